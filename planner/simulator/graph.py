"""What waits for what in a schedule, as integer arrays, worked out once per schedule.

A pass waits for two things: the pass before it on its rank, and the one pass that makes its input:

    F  of stage s   F of stage s - 1
    B, I            B or I of stage s + 1; on the last stage its own F
    W               its own I

Passes are numbered rank after rank with one empty slot before each rank's first, so the pass before slot i is always
slot i - 1, and slot 0 stands for "nothing".
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from costmodel.passes import check_schedule
from costmodel.schema.errors import InvalidSpec
from costmodel.schema.schedule import Pass, PassKind, Schedule

Index = NDArray[np.int64]

_CODE = {PassKind.FORWARD: 0, PassKind.BACKWARD: 1, PassKind.INPUT_GRAD: 2, PassKind.WEIGHT_GRAD: 3}
_FORWARD, _WEIGHT_GRAD = 0, 3


@dataclass(frozen=True, eq=False)
class PassGraph:
    """The arrays of one schedule. Shapes: ``[passes]`` rank after rank, or ``[slots]``, slots = passes + ranks.

    num_stages
    slot         [passes]      slot of each pass
    first        [ranks + 1]   first[r]: the empty slot before rank r's passes; first[-1] = slots
    kind, stage  [passes]      kind as an index into F, B, I, W
    awaited      [slots]       the slot elsewhere that this one waits for
    edge         [slots]       index of the edge (stage s to s + 1) it comes over; num_stages - 1 for none
    work         [slots]       kind · num_stages + stage, an index into the table of times; 4 · num_stages if empty
    order        [passes]      slots, so that whatever a slot waits for comes before it
    levels       [levels + 1]  bounds in ``order`` of groups whose members don't wait for each other
    """

    num_stages: int
    slot: Index
    first: Index
    kind: Index
    stage: Index
    awaited: Index
    edge: Index
    work: Index
    order: Index
    levels: Index

    @cached_property
    def program(self) -> list[tuple[int, int, int, int]]:
        """(slot, awaited, edge, work) in ``order``, as Python integers, for the one-row loop."""
        columns = (self.order, self.awaited[self.order], self.edge[self.order], self.work[self.order])
        return list(zip(*(column.tolist() for column in columns), strict=True))


_GRAPHS: dict[int, PassGraph] = {}


def graph_of(schedule: Schedule) -> PassGraph:
    """The graph of ``schedule``, built once per object. Raises InvalidSpec when ``check_schedule`` has complaints."""
    # Keyed by identity, for hashing a schedule means hashing every pass; gone before the identity can be used again.
    key = id(schedule)
    graph = _GRAPHS.get(key)
    if graph is None:
        graph = _GRAPHS[key] = _build(schedule)
        weakref.finalize(schedule, _GRAPHS.pop, key).atexit = False
    return graph


def _build(schedule: Schedule) -> PassGraph:
    num_stages, num_microbatches = schedule.num_stages, schedule.num_microbatches
    lengths = np.array([len(order) for order in schedule.orders])
    first = np.concatenate([[0], np.cumsum(lengths + 1)])
    rank = np.repeat(np.arange(schedule.num_ranks), lengths)
    slot = np.arange(len(rank)) + rank + 1
    kinds, stages, microbatches, _ = zip(*passes_of(schedule), strict=True) if len(rank) else ((),) * 4
    kind = np.array([_CODE[each] for each in kinds], dtype=np.int64)
    stage, microbatch = np.array(stages, dtype=np.int64), np.array(microbatches, dtype=np.int64)

    home, last = np.array(schedule.stage_to_rank), num_stages - 1
    inside = (stage >= 0) & (stage <= last) & (microbatch >= 0) & (microbatch < num_microbatches)
    if not inside.all() or (home[stage] != rank).any():
        raise _invalid(schedule)
    unit = stage * num_microbatches + microbatch
    if not _complete(unit, kind, num_stages * num_microbatches):
        raise _invalid(schedule)

    is_forward, is_weight_grad = kind == _FORWARD, kind == _WEIGHT_GRAD
    source = np.minimum(np.where(is_forward, stage - 1, np.where(is_weight_grad, stage, stage + 1)), last)
    takes_forward = is_forward | (~is_weight_grad & (stage == last))
    forward, backward = (np.zeros(num_stages * num_microbatches, np.int64) for _ in range(2))
    forward[unit[is_forward]] = slot[is_forward]
    sends_grad = ~is_forward & ~is_weight_grad
    backward[unit[sends_grad]] = slot[sends_grad]
    wanted = np.maximum(source, 0) * num_microbatches + microbatch

    awaited, edge, work = np.zeros(first[-1], np.int64), np.full(first[-1], last), np.full(first[-1], 4 * num_stages)
    awaited[slot] = np.where(source < 0, 0, np.where(takes_forward, forward[wanted], backward[wanted]))
    edge[slot] = np.where((source >= 0) & (home[source] != rank), np.minimum(source, stage), last)
    work[slot] = kind * num_stages + stage

    level = _levels(first.tolist(), awaited.tolist())
    if level is None:
        raise _invalid(schedule)
    depth = np.array(level)[slot]
    order = slot[np.argsort(depth, kind="stable")]
    return PassGraph(num_stages, slot, first, kind, stage, awaited, edge, work, order, np.cumsum(np.bincount(depth)))


def _complete(unit: Index, kind: Index, num_units: int) -> bool:
    """Whether each (stage, micro-batch) has F once and either B once or I and W once."""
    forward, backward, input_grad, weight_grad = (
        np.bincount(unit[kind == code], minlength=num_units) for code in range(len(_CODE))
    )
    return bool(((forward == 1) & (backward + input_grad == 1) & (input_grad == weight_grad)).all())


def _levels(first: list[int], awaited: list[int]) -> list[int] | None:
    """Length of the longest chain of passes ending in each slot; None when some wait for each other for ever."""
    level = [0] * len(awaited)
    reached = [start + 1 for start in first[:-1]]
    waiting_rank: dict[int, int] = {}
    ready = list(range(len(reached)))
    done = len(reached)
    while ready:
        rank = ready.pop()
        slot, end = reached[rank], first[rank + 1]
        done -= slot
        while slot < end:
            source = awaited[slot]
            if source and not level[source]:
                waiting_rank[source] = rank
                break
            before, elsewhere = level[slot - 1], level[source]
            level[slot] = (before if before > elsewhere else elsewhere) + 1
            if slot in waiting_rank:
                ready.append(waiting_rank.pop(slot))
            slot += 1
        done += slot
        reached[rank] = slot
    return level if done == len(awaited) else None


def _invalid(schedule: Schedule) -> InvalidSpec:
    problem, *more = check_schedule(schedule)
    others = f" (and {len(more)} more)" if more else ""
    return InvalidSpec(f"schedule {schedule.name!r} cannot run: {problem}{others}")


def passes_of(schedule: Schedule) -> list[Pass]:
    """All passes, rank after rank: the order of every ``[passes]`` array."""
    return list(chain.from_iterable(schedule.orders))
