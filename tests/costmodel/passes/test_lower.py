"""Lowered lists: complete, in order, and ending on the strictest transport; crossed ones are caught."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest
from drawn import FROZEN, GATHERED, ONE_BARRIER, PAIRED, TWO_COPIES, VOCABULARY, WRITTEN, edited, from_lines, schedules
from drawn import sizes as all_sizes
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from costmodel.passes import (
    COLLECTIVES,
    NOBODY,
    RECEIVES,
    SENDS,
    Action,
    ActionKind,
    add_gathers,
    check_lowered,
    check_schedule,
    lower,
)
from costmodel.passes.actions import action_of
from costmodel.passes.rules import WHOLE, Product, Rules
from costmodel.schema.errors import InvalidSpec
from costmodel.schema.schedule import Pass, PassKind, Schedule, overlap
from planner.schedules import SCHEDULES, build_schedule

unhurried = settings(deadline=None)
Lists = list[list[Action]]


def test_every_generated_schedule_lowers_to_lists_that_end() -> None:
    for name in SCHEDULES:
        own = [size for size in all_sizes(8, 16, 4) if size[0] == name]
        for size in random.Random(2).sample(own, min(len(own), 300 // len(SCHEDULES))):
            assert check_lowered(lower(build_schedule(*size))) == [], size


@pytest.mark.parametrize("schedule", WRITTEN)
def test_passes_of_every_kind_lower_to_lists_that_end(schedule: Schedule) -> None:
    assert check_lowered(lower(schedule)) == []
    assert check_lowered(lower(schedule, gathers=True)) == []


times = st.fixed_dictionaries({kind: st.floats(0, 5) for kind in PassKind})


@unhurried
@given(schedules(), st.booleans(), times)
def test_lists_are_the_passes_with_one_message_per_product(
    schedule: Schedule, gathers: bool, times: dict[PassKind, float]
) -> None:
    """Whatever the passes take, and with gathers or without."""
    lists = lower(schedule, gathers=gathers, times=times)
    assert check_lowered(lists) == []
    stated = add_gathers(schedule) if gathers else schedule
    for own, order in zip(lists, stated.orders, strict=True):
        assert [action for action in own if _is_pass(action)] == [action_of(step) for step in order]
    _assert_messages(schedule, lists)


def _is_pass(action: Action) -> bool:
    return action.kind not in SENDS | RECEIVES | COLLECTIVES


def _assert_messages(schedule: Schedule, lists: Sequence[Sequence[Action]]) -> None:
    """One F and one B message over each edge between two ranks for each micro-batch that crosses it, right after its
    pass, and none inside a rank.
    """
    homes, found, wanted = schedule.stage_to_rank, Counter[tuple[str, int, int, int]](), set()
    for own in lists:
        for at, action in enumerate(own):
            if action.kind in SENDS:
                found[action.kind, action.stage, action.microbatch, action.peer] += 1
                maker = max(place for place in range(at) if _is_pass(own[place]))
                assert any(part.stage == action.stage for part in (own[maker].parts or (own[maker],)))
    for order in schedule.orders:
        for step in order:
            for part in step.work:
                forward = part.kind is PassKind.FORWARD
                edge = not schedule.is_last(part.stage) if forward else not schedule.is_first(part.stage)
                if edge and (forward or part.kind in (PassKind.BACKWARD, PassKind.INPUT_GRAD)):
                    peer = homes[part.stage + (1 if forward else -1)]
                    if peer != homes[part.stage]:
                        kind = ActionKind.SEND_F if forward else ActionKind.SEND_B
                        wanted.add((kind, part.stage, part.microbatch, peer))
    assert found == Counter(wanted)


@unhurried
@given(st.one_of(schedules(), st.sampled_from(WRITTEN)), times)
def test_every_pass_finds_what_it_takes_on_its_rank(schedule: Schedule, times: dict[PassKind, float]) -> None:
    """Made there, or brought there before; a collective finds the rank's own part made."""
    rules = Rules(schedule)
    for rank, own in enumerate(lower(schedule, times=times)):
        there: set[Product] = set()
        parts: set[Product] = set()
        steps = iter(schedule.orders[rank])
        for action in own:
            if not _is_pass(action):
                product = _moved(action)
                if action.kind.startswith("SUM"):
                    assert product in parts
                    if action.peer in (rank, NOBODY):
                        there.add(product)
                elif action.kind in SENDS or action.peer == rank:
                    assert product in there
                else:
                    there.add(product)
                continue
            step = next(steps)
            if schedule.num_ranks > 1:
                assert there.issuperset(product for part in step.work for product in rules.takes(part))
            made = [product for part in step.work if (product := rules.makes(part)) is not None]
            there.update(product for product in made if product.stage != WHOLE)
            parts.update(product for product in made if product.stage == WHOLE)


def _moved(action: Action) -> Product:
    """The product that a send, receive or collective moves."""
    kind, stage, microbatch = action[:3]
    what, distance = {
        ActionKind.RECV_F: ("activation", -1),
        ActionKind.RECV_B: ("gradient", 1),
        ActionKind.RECV_FROZEN: ("frozen", -1),
        ActionKind.SEND_F: ("activation", 0),
        ActionKind.SEND_B: ("gradient", 0),
        ActionKind.SEND_FROZEN: ("frozen", 0),
        ActionKind.BROADCAST_HIDDEN: ("activation", 0),
        ActionKind.BROADCAST_GRADIENT: ("gradient", 0),
        ActionKind.SUM_EMBEDDED: ("embedded", None),
        ActionKind.SUM_STATISTICS: ("statistics", None),
        ActionKind.SUM_VOCAB_GRADIENT: ("vocab_gradient", None),
    }[kind]
    return Product(what, WHOLE if distance is None else stage + distance, microbatch)


@unhurried
@given(schedules(), st.data())
def test_dropped_communication_is_caught(schedule: Schedule, data: st.DataObject) -> None:
    lists: Lists = [list(own) for own in lower(schedule)]
    rank, at = _any_communication(lists, data)
    del lists[rank][at]
    assert check_lowered(lists) != []


@unhurried
@given(schedules(), st.data())
def test_crossed_messages_are_caught(schedule: Schedule, data: st.DataObject) -> None:
    """Two sends, or two receives, of one pair of ranks and one direction change places."""
    lists: Lists = [list(own) for own in lower(schedule)]
    rank, at = _any_communication(lists, data)
    own, action = lists[rank], lists[rank][at]
    ends = SENDS if action.kind in SENDS else RECEIVES
    others = [place for place, each in enumerate(own) if place != at and each.kind in ends and each.peer == action.peer]
    assume(others and action.kind not in COLLECTIVES)
    other = data.draw(st.sampled_from(others))
    own[at], own[other] = own[other], own[at]
    assert check_lowered(lists) != []


def _any_communication(lists: Lists, data: st.DataObject) -> tuple[int, int]:
    places = [(rank, at) for rank, own in enumerate(lists) for at, action in enumerate(own) if not _is_pass(action)]
    assume(places)
    return data.draw(st.sampled_from(places))


def test_each_rank_placing_its_own_waits_for_ever() -> None:
    """1F1B with every receive right before its pass: both ranks come to their sends, and nobody receives."""
    lists = _lists(
        "0F0 0SEND_F0 0F1 0SEND_F1 0RECV_B0 0B0 0RECV_B1 0B1", "1RECV_F0 1F0 1B0 1SEND_B0 1RECV_F1 1F1 1B1 1SEND_B1"
    )
    assert check_lowered(lists) == [
        "rank 0: deadlock, 0SEND_F1 waits for ever for rank 1, which stands at 1SEND_B0",
        "rank 1: deadlock, 1SEND_B0 waits for ever for rank 0, which stands at 0SEND_F1",
    ]
    assert check_lowered(lower(build_schedule("1f1b", 2, 2))) == []


def _lists(*lines: str) -> Lists:
    """Two ranks' lists from PyTorch's form."""

    def action(text: str, rank: int) -> Action:
        name = text.lstrip("0123456789")
        kind = name.rstrip("0123456789")
        peer = 1 - rank if kind.startswith(("SEND", "RECV")) else NOBODY
        return Action(ActionKind(kind), int(text[: -len(name)]), int(name[len(kind) :]), peer)

    return [[action(text, rank) for text in line.split()] for rank, line in enumerate(lines)]


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (
            ("0F0 0SEND_F0 0F1 0SEND_F1", "1RECV_F1 1RECV_F0 1F0 1F1"),
            "rank 1: 1RECV_F1 would be given what 0SEND_F0 of rank 0 sends, message 0 on that way",
        ),
        (("0F0 0SEND_F0", "1F0"), "rank 0: 0SEND_F0 waits for ever: rank 1 receives 0 messages"),
        (("0F0", "1RECV_F0 1F0"), "rank 1: 1RECV_F0 waits for ever: rank 0 sends 0 messages"),
        (("0SEND_F0 0F0", "1RECV_F0 1F0"), "rank 0: 0SEND_F0 stands before the pass that makes what it sends"),
        (("0F0 0SEND_F0", "1F0 1RECV_F0"), "rank 1: 1F0 stands before the receive of what it takes"),
    ],
)  # fmt: skip
def test_faulty_lists_are_named(lines: tuple[str, str], problem: str) -> None:
    assert problem in check_lowered(_lists(*lines))


def test_collectives_in_another_order_are_caught() -> None:
    lists: Lists = [list(own) for own in lower(VOCABULARY)]
    places = [at for at, action in enumerate(lists[0]) if action.kind in COLLECTIVES]
    assert [lists[0][at].kind for at in places] == [
        ActionKind.SUM_EMBEDDED,
        ActionKind.BROADCAST_HIDDEN,
        ActionKind.SUM_STATISTICS,
        ActionKind.SUM_VOCAB_GRADIENT,
        ActionKind.BROADCAST_GRADIENT,
    ]
    one, other = places[2:4]
    lists[0][one], lists[0][other] = lists[0][other], lists[0][one]
    assert check_lowered(lists) == [
        "rank 0: deadlock, 1SUM_VOCAB_GRADIENT0 waits for ever for rank 1, which stands at 1SUM_STATISTICS0",
        "rank 1: deadlock, 1SUM_STATISTICS0 waits for ever for rank 0, which stands at 1SUM_VOCAB_GRADIENT0",
    ]


def test_roots_of_collectives() -> None:
    roots = {action.kind: (action.stage, action.peer) for action in lower(VOCABULARY)[0] if action.kind in COLLECTIVES}
    assert roots == {
        ActionKind.SUM_EMBEDDED: (0, 0),
        ActionKind.BROADCAST_HIDDEN: (1, 1),
        ActionKind.SUM_STATISTICS: (1, NOBODY),
        ActionKind.SUM_VOCAB_GRADIENT: (1, 1),
        ActionKind.BROADCAST_GRADIENT: (0, 0),
    }
    kinds = {action.kind for own in lower(ONE_BARRIER) for action in own}
    assert kinds & COLLECTIVES == {ActionKind.BROADCAST_HIDDEN, ActionKind.SUM_STATISTICS}


def _text(schedule: Schedule, gathers: bool = False) -> list[str]:
    return [" ".join(map(str, own)) for own in lower(schedule, gathers=gathers)]


def test_sends_stay_in_their_copy() -> None:
    assert _text(TWO_COPIES) == [
        "0F0 0SEND_F0 3RECV_F1 3F1 0RECV_B0 0B0 3B1 3SEND_B1",
        "1RECV_F0 2F1 2SEND_F1 1F0 1B0 1SEND_B0 2RECV_B1 2B1",
    ]
    assert {action.peer for action in lower(TWO_COPIES)[0]} == {1, NOBODY}


def test_a_pair_sends_both_its_products() -> None:
    schedule = from_lines(
        "0F0 3F0 0F1 3I0 (3F1;0I0)OVERLAP_F_B 3B1 0W0 3W0 0B1\n1F0 2F0 1F1 2F1 2B0 1B0 2B1 1B1", 2, (0, 1, 1, 0)
    )
    assert check_schedule(schedule) == []
    lists = lower(schedule)
    assert check_lowered(lists) == []
    assert "(3F1;0I0)OVERLAP_F_B" in [str(action) for action in lists[0]]
    assert _text(PAIRED)[1] == "1RECV_F0 1RECV_F1 1F0 (1F1;1B0)OVERLAP_F_B 1SEND_B0 1B1 1SEND_B1"


def test_frozen_pieces_cross_ranks() -> None:
    """Micro-batch 0 goes on from rank 0 to rank 1, micro-batch 1 stays."""
    assert _text(FROZEN) == [
        "0F0 0SEND_F0 0FROZEN_F0 0SEND_FROZEN0 0F1 0SEND_F1 0FROZEN_F1 0RECV_B0 0B0 1FROZEN_F1 0RECV_B1 0B1",
        "1RECV_F0 1RECV_FROZEN0 1F0 1RECV_F1 1B0 1SEND_B0 1FROZEN_F0 1F1 1B1 1SEND_B1",
    ]


def test_a_receive_is_posted_before_its_product_is_ready() -> None:
    """While rank 1 runs F0, rank 0 runs F1: the receive of F1 stands before F0."""
    assert _text(build_schedule("1f1b", 2, 2))[1] == "1RECV_F0 1RECV_F1 1F0 1B0 1SEND_B0 1F1 1B1 1SEND_B1"


def test_one_rank_sends_nothing() -> None:
    assert _text(from_lines("0VOCAB_IN_F0 0F0 1F0 0VOCAB_F0 0VOCAB_W0 1B0 0B0 0VOCAB_IN_B0", 1, (0, 0))) == [
        "0VOCAB_IN_F0 0F0 1F0 0VOCAB_F0 0VOCAB_W0 1B0 0B0 0VOCAB_IN_B0"
    ]


def test_gathers_are_added_where_none_are_stated() -> None:
    one = from_lines("0F0 1F0 2F0 3F0 3I0 2I0 1B0 0B0 3W0 2W0", 1, (0, 0, 0, 0))
    assert _text(one, gathers=True) == [
        "0UNSHARD 1UNSHARD 2UNSHARD 0F0 0RESHARD 3UNSHARD 1F0 2F0 3F0 3I0 3RESHARD 0UNSHARD 2I0 2RESHARD 3UNSHARD "
        "1B0 1REDUCE_GRAD 1RESHARD 2UNSHARD 0B0 0REDUCE_GRAD 0RESHARD 3W0 3REDUCE_GRAD 3RESHARD 2W0 2REDUCE_GRAD "
        "2RESHARD"
    ]
    stated = add_gathers(GATHERED)
    assert stated == GATHERED
    reduced = add_gathers(from_lines("0UNSHARD 0F0 0B0", 1, (0,)))
    assert [str(step) for step in reduced.orders[0]] == ["0UNSHARD", "0F0", "0B0", "0REDUCE_GRAD"]


@unhurried
@given(schedules(), st.integers(1, 4))
def test_added_gathers_are_valid(schedule: Schedule, stages_ahead: int) -> None:
    assert check_schedule(add_gathers(schedule, stages_ahead)) == []


any_pass = st.builds(Pass, st.sampled_from(PassKind), st.integers(-1, 4), st.integers(-1, 3))


@settings(deadline=None, max_examples=50)
@given(st.one_of(schedules(), st.sampled_from(WRITTEN)), st.data())
def test_what_the_check_accepts_lowers_to_lists_that_end(schedule: Schedule, data: st.DataObject) -> None:
    """Whatever stands in the order, pairs of anything included."""
    rank = data.draw(st.integers(0, schedule.num_ranks - 1))
    order = list(schedule.orders[rank])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(order)))
        step = data.draw(any_pass | st.builds(overlap, any_pass, any_pass) | st.sampled_from(schedule.orders[rank]))
        order[at : at + data.draw(st.integers(0, 1))] = [step]
    changed = edited(schedule, rank, order)
    if check_schedule(changed) == []:
        assert check_lowered(lower(changed, gathers=True)) == []


def test_what_cannot_run_is_not_lowered() -> None:
    with pytest.raises(InvalidSpec, match="schedule 'written' cannot run: rank 0: pass 0B0 comes before 0F0"):
        lower(from_lines("0B0 0F0", 1, (0,)))
