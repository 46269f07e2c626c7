"""How many messages between stages a rank holds, counted in simulated orders, against the closed form."""

from __future__ import annotations

from collections import defaultdict
from itertools import product

import numpy as np
import pytest

from costmodel.layouts import Layouts
from costmodel.pipeline import estimate_waiting
from costmodel.schedules import SCHEDULES as FORMS
from costmodel.schema.layout import Layout
from costmodel.schema.schedule import PassKind, Schedule
from planner.schedules.registry import SCHEDULES, build_schedule
from planner.simulator import StageTimes, simulate
from planner.simulator.columns import passes_of

NAMES = [name for name in SCHEDULES if name in FORMS and not FORMS[name].barriers and "+" not in name]

BACKWARDS = (PassKind.BACKWARD, PassKind.INPUT_GRAD)


def most_held(schedule: Schedule, chunks: int) -> list[int]:
    """Messages on each rank at once, from when they were sent to the end of the pass that they were for."""
    stages = len(schedule.stage_to_rank)
    each, edge_s = np.full(stages, 1.0 / chunks), 0.02
    simulation = simulate(schedule, StageTimes(each, each, each, edge_s=edge_s))
    ends_s = {
        (part.kind, part.stage, part.microbatch): end_s
        for one, end_s in zip(passes_of(schedule), simulation.finish_s.tolist(), strict=True)
        for part in one.parts or (one,)
    }
    events: defaultdict[int, list[tuple[float, int]]] = defaultdict(list)
    for (kind, stage, microbatch), end_s in ends_s.items():
        if kind not in (PassKind.FORWARD, *BACKWARDS):
            continue
        source = stage - 1 if kind is PassKind.FORWARD else stage + 1
        senders = (kind,) if kind is PassKind.FORWARD else BACKWARDS
        copy = stages // schedule.copies
        rank = schedule.stage_to_rank[stage]
        if source // copy != stage // copy or schedule.stage_to_rank[source] == rank:
            continue
        sent_s = next(ends_s[sent] for other in senders if (sent := (other, source, microbatch)) in ends_s)
        events[rank] += [(round(sent_s + edge_s, 9), 1), (round(end_s, 9), -1)]
    return [_most(sorted(events[rank])) for rank in range(schedule.num_ranks)]


def _most(events: list[tuple[float, int]]) -> int:
    return max(np.cumsum([change for _, change in events], dtype=int).tolist(), default=0)


@pytest.mark.parametrize("name", NAMES)
def test_no_order_holds_more_messages(name: str) -> None:
    compared = 0
    for pp, microbatches, vpp in product((2, 4, 8), (1, 3, 8, 13, 29), (1, 2, 4)):
        if not FORMS[name].allows(pp, microbatches, vpp):
            continue
        held = most_held(build_schedule(name, pp, microbatches, vpp), vpp)
        layout = Layout(pp=pp, vpp=vpp, num_microbatches=microbatches)
        said = estimate_waiting(Layouts.from_rows([(layout, name)]), np.arange(pp)[None, :])[0]
        assert (np.array(held) <= said).all(), (pp, microbatches, vpp, held, said)
        compared += 1
    assert compared > 3


@pytest.mark.parametrize(("name", "pp", "microbatches"), [("breadth-first", 4, 29), ("interleaved-1f1b", 8, 13)])
def test_the_first_rank_keeps_what_comes_round(name: str, pp: int, microbatches: int) -> None:
    """All of a round that comes back before the rest of it has left: far more than two of either direction."""
    assert most_held(build_schedule(name, pp, microbatches, 2), 2)[0] > microbatches - pp >= 5
