"""The arrays and ``check_schedule`` agree on which orders can run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_schedules import random_schedule

from costmodel.passes import check_schedule
from costmodel.schema.errors import InvalidSpec
from costmodel.schema.schedule import Pass, PassKind, Schedule
from planner.simulator.graph import graph_of

unhurried = settings(deadline=None, max_examples=150)

Orders = list[list[Pass]]


def _drop(random: Random, orders: Orders, rank: int, at: int) -> None:
    orders[rank].pop(at)


def _double(random: Random, orders: Orders, rank: int, at: int) -> None:
    orders[rank].insert(random.randrange(len(orders[rank])), orders[rank][at])


def _swap(random: Random, orders: Orders, rank: int, at: int) -> None:
    other = random.randrange(len(orders[rank]))
    orders[rank][at], orders[rank][other] = orders[rank][other], orders[rank][at]


def _move(random: Random, orders: Orders, rank: int, at: int) -> None:
    orders[random.randrange(len(orders))].insert(0, orders[rank].pop(at))


def _renumber(random: Random, orders: Orders, rank: int, at: int) -> None:
    step = orders[rank][at]
    orders[rank][at] = step._replace(microbatch=step.microbatch + random.choice((-1, 1)))


def _restage(random: Random, orders: Orders, rank: int, at: int) -> None:
    step = orders[rank][at]
    orders[rank][at] = step._replace(stage=step.stage + random.choice((-1, 1)))


def _rename(random: Random, orders: Orders, rank: int, at: int) -> None:
    orders[rank][at] = orders[rank][at]._replace(kind=random.choice(list(PassKind)))


def _unpair(random: Random, orders: Orders, rank: int, at: int) -> None:
    parts = orders[rank][at].parts
    orders[rank][at] = orders[rank][at]._replace(parts=random.choice((parts[:1], parts[::-1])))


EDITS = (_drop, _double, _swap, _move, _renumber, _restage, _rename, _unpair)


def _edited(random: Random, edit: Callable[[Random, Orders, int, int], None]) -> Schedule:
    schedule = random_schedule(random)
    orders = [list(order) for order in schedule.orders]
    rank = random.choice([rank for rank, order in enumerate(orders) if order])
    edit(random, orders, rank, random.randrange(len(orders[rank])))
    return replace(schedule, orders=tuple(map(tuple, orders)))


@unhurried
@given(st.integers(0, 2**32), st.sampled_from(EDITS))
def test_what_the_check_refuses_is_refused(seed: int, edit: Callable[[Random, Orders, int, int], None]) -> None:
    schedule = _edited(Random(seed), edit)
    problems = check_schedule(schedule)
    refusal = ""
    try:
        graph_of(schedule)
    except InvalidSpec as error:
        refusal = str(error)
    if "collectives" in refusal:
        assert not problems
    else:
        assert bool(refusal) == bool(problems)


def test_collectives_in_different_orders() -> None:
    """Each rank waits for a collective that the other comes to only later; one after the other they never run."""
    order = {
        "0": "0F0 0F1 0VOCAB_F0 0VOCAB_F1 0VOCAB_B0 0VOCAB_B1 0B0 0B1",
        "1": "1F0 1F1 1VOCAB_F1 1VOCAB_B1 1VOCAB_F0 1VOCAB_B0 1B0 1B1",
    }
    schedule = Schedule.from_text("crossed", 2, (0, 1), order)
    with pytest.raises(InvalidSpec, match="'crossed' cannot run: its ranks put the collectives"):
        graph_of(schedule)
