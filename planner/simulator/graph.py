"""What waits for what in a schedule, as integer arrays, worked out once per schedule.

Everything that takes or costs time is a slot of a lane, and a lane's slots run one after the other:

    compute        one lane a rank      its passes in order
    communication  one lane a rank      UNSHARD and REDUCE_GRAD, from their place in the rank's order on
    link           two a rank and level what the rank sends, in the order of the passes that make it; what it receives,
                                        in the order of the passes that take it (only when messages occupy links)
    collective     one a joint product  each once all ranks' parts are there, in the order of rank 0's parts

A slot waits for two things: the slot before it on its lane, and one awaited slot elsewhere. A pass that waits for k > 1
things is preceded by k - 1 gates, slots of no length with one awaited slot each; and so is a collective.

Slots are numbered lane after lane with one empty slot before each lane's first, so the slot before slot i is always
slot i - 1, and slot 0 stands for "nothing".
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from costmodel.passes import check_schedule
from costmodel.schema.errors import InvalidSpec
from costmodel.schema.schedule import Schedule
from planner.simulator.columns import Columns, Index, columns_of
from planner.simulator.fits import fits
from planner.simulator.lanes import Lane, Slots, lay_out
from planner.simulator.per_schedule import PerSchedule
from planner.simulator.running import levels_of, running_order
from planner.simulator.table import Delays, Durations, durations_of
from planner.simulator.waits import waits_of


@dataclass(frozen=True, eq=False)
class PassGraph:
    """The arrays of one schedule. Shapes: ``[passes]`` rank after rank, or ``[slots]``.

    columns    the passes
    durations, delays  what ``work`` and ``edge`` are indices into
    slot       [passes]      slot of each pass; of UNSHARD and REDUCE_GRAD on the communication lane
    first      [lanes + 1]   first[l]: the empty slot before lane l's; first[-1] = slots; ranks' compute lanes first
    lanes      [lanes]
    awaited    [slots]       the slot elsewhere that this one waits for
    edge       [slots]       index of the delay after which what is awaited is there
    work       [slots]       index of the duration
    run        [slots]       non-empty slots, so that whatever a slot waits for comes before it
    sent       [messages, 4] slots on the sender's and on the receiver's link, and the numbers of the passes that make
                             and that take the message; empty when messages occupy no links
    """

    columns: Columns
    durations: Durations
    delays: Delays
    slot: Index
    first: Index
    lanes: tuple[Lane, ...]
    awaited: Index
    edge: Index
    work: Index
    run: Index
    sent: Index

    @property
    def num_stages(self) -> int:
        return self.durations.num_stages

    @property
    def num_ranks(self) -> int:
        return self.durations.num_ranks

    @cached_property
    def program(self) -> tuple[list[int], list[int]]:
        """(slot, awaited) in running order, as Python integers, for the one-row loop."""
        return self.run.tolist(), self.awaited[self.run].tolist()

    @cached_property
    def _by_level(self) -> tuple[Index, Index]:
        level = levels_of(int(self.first[-1]), *self.program)
        depth = level[self.run]
        return self.run[np.argsort(depth, kind="stable")], np.cumsum(np.bincount(depth))

    @property
    def order(self) -> Index:
        """Non-empty slots, level by level."""
        return self._by_level[0]

    @property
    def levels(self) -> Index:
        """Bounds in ``order`` of groups whose members don't wait for each other; shape ``[levels + 1]``."""
        return self._by_level[1]


_GRAPHS: PerSchedule[dict[tuple[int, ...] | None, PassGraph]] = PerSchedule()


def graph_of(schedule: Schedule, link_levels: tuple[int, ...] | None = None) -> PassGraph:
    """The graph of ``schedule``, built once per object and way of sending; ``link_levels``: as StageTimes has them.

    Raises InvalidSpec when ``check_schedule`` has complaints, or ranks disagree about the order of collectives.
    """
    graphs = _GRAPHS.of(schedule, lambda _: {})
    if link_levels not in graphs:
        graphs[link_levels] = _build(schedule, link_levels)
    return graphs[link_levels]


def _build(schedule: Schedule, link_levels: tuple[int, ...] | None) -> PassGraph:
    columns = columns_of(schedule)
    if not fits(columns):
        raise _invalid(schedule)
    waits = waits_of(columns)
    if waits is None:
        raise _invalid(schedule)
    durations, pass_work = durations_of(columns)
    slots = Slots(Delays(schedule.num_stages, columns.num_pieces), durations)
    slot, sent = lay_out(columns, waits, pass_work, slots, link_levels)
    first, awaited, edge, work = slots.arrays()
    run = running_order(first, awaited)
    if run is None:
        raise _invalid(schedule)
    lanes = tuple(slots.lanes)
    return PassGraph(columns, durations, slots.delays, slot, first, lanes, awaited, edge, work, run, sent)


def _invalid(schedule: Schedule) -> InvalidSpec:
    # The check knows no communicators: it lets a rank make its parts of joint products in an order of its own.
    problem, *more = check_schedule(schedule) or ["its ranks put the collectives of the vocabulary in different orders"]
    others = f" (and {len(more)} more)" if more else ""
    return InvalidSpec(f"schedule {schedule.name!r} cannot run: {problem}{others}")
