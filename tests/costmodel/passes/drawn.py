"""Schedules to try the passes on: every registered one, at any size it allows."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from hypothesis import strategies as st

from costmodel.schema.schedule import Pass, Schedule
from planner.schedules import SCHEDULES, build_schedule

Size = tuple[str, int, int, int]
"""Name, ranks, micro-batches, stages a rank."""


@cache
def sizes(max_pp: int = 6, max_microbatches: int = 12, max_vpp: int = 4) -> list[Size]:
    """Every size of every schedule within these bounds."""
    return [
        (name, pp, num_microbatches, vpp)
        for name, kind in SCHEDULES.items()
        for pp in range(1, max_pp + 1)
        for num_microbatches in range(1, max_microbatches + 1)
        for vpp in range(1, max_vpp + 1)
        if kind.allows(pp, num_microbatches, vpp)
    ]


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    """Any schedule that can be built: the name first, so that each is as likely as the next."""
    name = draw(st.sampled_from(sorted(SCHEDULES)))
    return build_schedule(*draw(st.sampled_from([size for size in sizes() if size[0] == name])))


def edited(schedule: Schedule, rank: int, order: list[Pass]) -> Schedule:
    """The schedule with another order on one rank."""
    return replace(schedule, orders=(*schedule.orders[:rank], tuple(order), *schedule.orders[rank + 1 :]))


def from_lines(lines: str, num_microbatches: int, stage_to_rank: tuple[int, ...], copies: int = 1) -> Schedule:
    """A schedule of one line per rank."""
    passes = {str(rank): line for rank, line in enumerate(lines.strip().splitlines())}
    return Schedule.from_text("written", num_microbatches, stage_to_rank, passes, copies)


TWO_COPIES = from_lines("0F0 3F1 0B0 3B1\n2F1 1F0 1B0 2B1", 2, (0, 1, 1, 0), 2)
"""Two ranks, one micro-batch down and one up."""

PAIRED = from_lines("0F0 0F1 0B0 0B1\n1F0 (1F1;1B0)OVERLAP_F_B 1B1", 2, (0, 1))

VOCABULARY = from_lines(
    "0VOCAB_IN_F0 0F0 0VOCAB_F0 0VOCAB_B0 0B0 0VOCAB_IN_B0\n1VOCAB_IN_F0 1F0 1VOCAB_F0 1VOCAB_B0 1B0 1VOCAB_IN_B0",
    1,
    (0, 1),
)
"""Embedding and output layer split over both ranks, two barriers."""

ONE_BARRIER = from_lines("0F0 0VOCAB_F0 0VOCAB_W0 0B0\n1F0 1VOCAB_F0 1B0 1VOCAB_W0", 1, (0, 1))

GATHERED = from_lines(
    "0UNSHARD 0F0 0F1 0RESHARD 0UNSHARD 0B0 0REDUCE_GRAD 0B1 0RESHARD 0REDUCE_GRAD\n1F0 1B0 1F1 1B1", 2, (0, 1)
)
"""Stage 0 gathers twice and reduces twice."""

FROZEN = from_lines("0F0 0FROZEN_F0 0F1 0FROZEN_F1 0B0 1FROZEN_F1 0B1\n1F0 1B0 1FROZEN_F0 1F1 1B1", 2, (0, 1))
"""Two frozen pieces, those of micro-batch 0 on two ranks."""

WRITTEN = (TWO_COPIES, PAIRED, VOCABULARY, ONE_BARRIER, GATHERED, FROZEN)
