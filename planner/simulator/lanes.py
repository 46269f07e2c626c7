"""Lay passes, transfers, messages and collectives out as slots of lanes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from planner.simulator.columns import JOINT_MAKERS, REDUCE_GRAD, UNSHARD, Columns, Index
from planner.simulator.table import Delays, Durations
from planner.simulator.waits import Waits


class Lane(NamedTuple):
    """``kind``: compute, communication, send, receive (``number``: the network level) or collective (``number``: the
    joint product, as JOINT_MAKERS; ``rank`` -1).
    """

    kind: str
    rank: int
    number: int = 0


@dataclass
class Slots:
    """Slots as they are laid out, lane after lane; the names are PassGraph's."""

    delays: Delays
    durations: Durations
    lanes: list[Lane] = field(default_factory=list)
    first: list[int] = field(default_factory=lambda: [0])
    _links: list[tuple[Index, Index, Index]] = field(default_factory=list)
    _work: list[tuple[Index, Index]] = field(default_factory=list)

    def add(self, lanes: list[Lane], lane: Index) -> Index:
        """Slots on new ``lanes``, one for each entry of ``lane``, which numbers them and is ascending."""
        base = self.first[-1]
        counts = np.bincount(lane, minlength=len(lanes))
        self.lanes += lanes
        self.first += (base + np.cumsum(counts + 1)).tolist()
        return base + lane + 1 + np.arange(len(lane))

    def connect(self, slot: Index, awaited: Index, delay: Index | int) -> None:
        """``slot`` waits for ``awaited``."""
        self._links.append((slot, awaited, np.broadcast_to(delay, slot.shape)))

    def occupy(self, slot: Index, work: Index | int) -> None:
        """``slot`` takes the time that ``work`` is the index of."""
        self._work.append((slot, np.broadcast_to(work, slot.shape)))

    def arrays(self) -> tuple[Index, Index, Index, Index]:
        """first, awaited, edge and work."""
        slots, first = self.first[-1], np.array(self.first)
        awaited, edge = np.zeros(slots, np.int64), np.full(slots, self.delays.none)
        work = np.full(slots, self.durations.nothing)
        for slot, source, delay in self._links:
            awaited[slot], edge[slot] = source, delay
        for slot, index in self._work:
            work[slot] = index
        empty = np.zeros(slots, bool)
        empty[first[:-1]] = True
        awaited[empty[awaited]] = 0
        return first, awaited, edge, work


def lay_out(
    columns: Columns, waits: Waits, work: Index, slots: Slots, link_levels: tuple[int, ...] | None
) -> tuple[Index, Index]:
    """Fill ``slots``. Returns the slot of every pass, and PassGraph's ``sent``."""
    ranks, passes = columns.num_ranks, len(columns.kind)
    beside = (columns.kind == UNSHARD) | (columns.kind == REDUCE_GRAD)
    num_waits = np.bincount(waits.taker, minlength=passes)
    width = np.where(beside, 0, np.maximum(num_waits, 1))
    slots.add([Lane("compute", rank) for rank in range(ranks)], np.repeat(columns.rank, width))
    # The last compute slot up to each pass: its own, or for a transfer that of the pass before it.
    reached = np.cumsum(width) + columns.rank
    slot = reached.copy()
    transfers = np.flatnonzero(beside)
    if len(transfers):
        slot[transfers] = slots.add([Lane("communication", rank) for rank in range(ranks)], columns.rank[transfers])
        slots.connect(slot[transfers], reached[transfers], slots.delays.none)
    slots.occupy(slot, work)

    delay = waits.delay.copy()
    source = np.concatenate([slot, _add_collectives(columns, slot, slots)])[waits.source]
    sent = np.zeros((0, 4), np.int64)
    if link_levels is not None:
        message = np.flatnonzero(waits.delay < slots.delays.none)
        leaves, arrives = _add_links(columns, waits, message, source[message], slots, link_levels)
        source[message], delay[message] = arrives, slots.delays.none
        sent = np.stack([leaves, arrives, waits.source[message], waits.taker[message]], axis=1)
    turn = np.arange(len(waits.taker)) - np.searchsorted(waits.taker, waits.taker)
    slots.connect(slot[waits.taker] - num_waits[waits.taker] + 1 + turn, source, delay)
    return slot, sent


def _add_links(
    columns: Columns, waits: Waits, message: Index, source: Index, slots: Slots, link_levels: tuple[int, ...]
) -> tuple[Index, Index]:
    """The slots of ``message`` (numbers of waits) on the links of senders and of receivers."""
    maker, taker, edge = waits.source[message], waits.taker[message], waits.delay[message]
    names, level = np.unique(np.array(link_levels, dtype=np.int64)[edge], return_inverse=True)

    def on_lanes(kind: str, mine: Index, order: tuple[Index, ...]) -> Index:
        lane = columns.rank[mine] * len(names) + level
        by_lane = np.lexsort((*order, lane))
        lanes = [Lane(kind, rank, number) for rank in range(columns.num_ranks) for number in names.tolist()]
        placed = np.empty(len(message), np.int64)
        placed[by_lane] = slots.add(lanes, lane[by_lane])
        slots.occupy(placed, slots.durations.wire + edge)
        return placed

    backward = columns.home[edge] == columns.rank[taker]
    leaves = on_lanes("send", maker, (backward, maker))
    slots.connect(leaves, source, slots.delays.none)
    arrives = on_lanes("receive", taker, (backward, taker))
    slots.connect(arrives, leaves, slots.delays.first_bytes + edge)
    return leaves, arrives


def _add_collectives(columns: Columns, slot: Index, slots: Slots) -> Index:
    """The slot of each joint product; shape ``[JOINT_MAKERS · micro-batches]``."""
    shape = (columns.num_ranks, columns.num_microbatches)
    placed = np.zeros((len(JOINT_MAKERS), columns.num_microbatches), np.int64)
    for number, kind in enumerate(JOINT_MAKERS):
        if kind in columns.present:
            works = columns.works(kind)
            maker = np.empty(shape[0] * shape[1], np.int64)
            maker[columns.unit(works)] = columns.owner[works]
            maker = maker.reshape(shape)
            order = np.argsort(maker[0])
            lane = [Lane("collective", -1, number)]
            gates = slots.add(lane, np.zeros(maker.size, np.int64)).reshape(maker.T.shape)
            slots.connect(gates.ravel(), slot[maker[:, order].T].ravel(), slots.delays.none)
            slots.occupy(gates[:, -1], slots.durations.joint + number)
            placed[number, order] = gates[:, -1]
    return placed.ravel()
