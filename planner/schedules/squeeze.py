"""A building block made into orders: repeated, its warm-up and drain squeezed, W put where a rank would idle.

Played out in time with the times given. A rank that is free takes, in this order,

1. the next pass of its block order, if what it needs has arrived and, for an F, if memory allows (a W first if not);
2. a later pass of its block order that has arrived, where ``ahead`` lets it (below);
3. a W, oldest first, if at least ``patience`` of it is over when the pass of 1 can start, or if that is an F that needs
   its memory, or one of the I's of stage 0 after the last F: nobody else waits for these;
4. nothing, until something arrives.

No F starts while ``limit`` chunks are alive, from F to W. A pass may run ahead only if the block order fits under
``limit`` after it just as well, so the order never blocks itself: the pass that starts first by the block's own clock
among all that are left can always run.

Source: Qi et al. 2024, "Pipeline Parallelism with Controllable Memory" (squeezing, reordering); Qi et
al. 2023, "Zero Bubble Pipeline Parallelism", section 3.1 (W into gaps).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from heapq import heappop, heappush

from costmodel.schema.errors import InvalidSpec
from costmodel.schema.schedule import Pass, PassKind
from planner.schedules.building_block import BuildingBlock
from planner.schedules.times import EQUAL_TIMES, PassTimes

_TOLERANCE = 1e-9
_PATIENCE = (1.0, 0.75, 0.5, 0.0)
_FEW_RANKS = 16


class Ahead(StrEnum):
    """Which passes may leave their place in the block order when the rank would otherwise wait."""

    NONE = "none"
    FORWARDS = "forwards"
    """F's, and I's once no F is left."""
    ALL = "all"


@dataclass(frozen=True)
class Squeezed:
    """``orders[rank]``; ``makespan``: first start to last end; ``span``: the longest of the ranks' own. Both in the
    unit of the times that the order was made for.
    """

    orders: list[list[Pass]]
    makespan: float
    span: float


def squeeze(
    block: BuildingBlock,
    num_microbatches: int,
    limit: int,
    times: PassTimes = EQUAL_TIMES,
    ahead: Ahead = Ahead.FORWARDS,
    patience: float = 1.0,
) -> Squeezed:
    """The orders of ``num_microbatches`` under a memory of ``limit`` chunks a rank.

    O(passes · log ranks), plus a look along the block order for each F that runs ahead. Raises InvalidSpec when the
    block alone needs more than ``limit``.
    """
    if max(block.peaks) > limit:
        raise InvalidSpec(
            f"memory limit of {limit} chunks a rank: the building block needs {max(block.peaks)}",
            "take a block of shorter lifespan or a longer cycle",
        )
    return _Play(block, num_microbatches, limit, times, ahead, patience).run()


def squeeze_best(
    block_of: Callable[[int], BuildingBlock],
    pp: int,
    num_microbatches: int,
    limit: Callable[[int], int],
    times: PassTimes,
    ahead: Ahead = Ahead.FORWARDS,
) -> Squeezed:
    """The shortest of ``squeeze`` with several degrees of patience, then of the shortest span; with equal times all are
    alike. ``block_of``, ``limit``: by number of ranks. Degrees are told apart on few ranks and on 3p micro-batches at
    most: longer pipelines rank them the same way.
    """
    if times.are_equal:
        return squeeze(block_of(pp), num_microbatches, limit(pp), times, ahead)
    few = min(num_microbatches, 3 * pp)
    ranks = min(pp, _FEW_RANKS)
    some = max(1, round(few * ranks / pp))
    tried = {patience: squeeze(block_of(ranks), some, limit(ranks), times, ahead, patience) for patience in _PATIENCE}
    best = min(tried, key=lambda patience: (tried[patience].makespan, tried[patience].span))
    return squeeze(block_of(pp), num_microbatches, limit(pp), times, ahead, best)


class _Rank:
    """One rank's state. ``unfinished``: chunks between F and I; ``alive``: between F and W."""

    def __init__(self, block: BuildingBlock, number: int, num_microbatches: int) -> None:
        self.legs, legs = block.leg_order(number, num_microbatches), range(2 * block.vpp)
        self.places: list[list[int]] = [[] for _ in legs]
        for place, leg in enumerate(self.legs):
            self.places[leg].append(place)
        self.stages = [block.stages[number][block.chunk(leg)] for leg in legs]
        self.takers = [_taker(block, number, leg) for leg in legs]
        self.arrivals = [[math.inf] * num_microbatches for _ in legs]
        self.served = [0] * len(legs)
        self.is_done = bytearray(len(self.legs))
        self.head = 0
        self.unfinished = self.alive = 0
        self.pending: list[Pass] = []
        self.weights_done = 0
        self.order: list[Pass] = []
        self.free = self.begin = 0.0


def _taker(block: BuildingBlock, number: int, leg: int) -> tuple[int, int]:
    """(rank, leg) that a micro-batch takes after a leg on a rank; the leg past the last where it is through."""
    down = leg % 2 == 0
    if number == (block.pp - 1 if down else 0):
        return number, leg + 1
    return number + (1 if down else -1), leg


class _Play:
    """The game of all ranks, event by event."""

    def __init__(
        self,
        block: BuildingBlock,
        num_microbatches: int,
        limit: int,
        times: PassTimes,
        ahead: Ahead,
        patience: float,
    ) -> None:
        self.vpp, self.num_microbatches, self.limit, self.ahead = block.vpp, num_microbatches, limit, ahead
        self.tolerance = _TOLERANCE * times.work
        forward, input_grad = times.forward / block.vpp, times.input_grad / block.vpp
        self.leg_time = [forward if block.is_forward(leg) else input_grad for leg in range(2 * block.vpp)]
        self.weight_grad, self.comm = times.weight_grad / block.vpp, times.comm
        self.least_gap = patience * self.weight_grad - self.tolerance
        self.ranks = [_Rank(block, number, num_microbatches) for number in range(block.pp)]
        self.ranks[0].arrivals[0] = [0.0] * num_microbatches
        self.events = [(0.0, rank) for rank in range(block.pp)]

    def run(self) -> Squeezed:
        while self.events:
            now, number = heappop(self.events)
            rank = self.ranks[number]
            if now >= rank.free:
                self._play(now, number, rank)
        for rank in self.ranks:
            left = rank.pending[rank.weights_done :]
            rank.order += left
            rank.free += len(left) * self.weight_grad
        spans = [rank.free - rank.begin for rank in self.ranks]
        return Squeezed([rank.order for rank in self.ranks], max(rank.free for rank in self.ranks), max(spans))

    def _play(self, now: float, number: int, rank: _Rank) -> None:
        """One decision of a free rank."""
        while rank.head < len(rank.legs) and rank.is_done[rank.head]:
            rank.head += 1
        if rank.head == len(rank.legs):
            return
        leg = rank.legs[rank.head]
        arrival = rank.arrivals[leg][rank.served[leg]]
        if arrival <= now + self.tolerance:
            if self._is_full(rank, leg):
                self._start_weight_grad(now, number, rank)
            else:
                self._start(now, number, rank, leg)
            return
        gap = arrival - now
        early = min(self._early(now, rank, leg, gap), default=None)
        if early is not None:
            self._start(now, number, rank, early[1])
        elif rank.weights_done < len(rank.pending) and (
            gap >= self.least_gap or self._is_full(rank, leg) or self._nobody_waits(number, rank, leg)
        ):
            self._start_weight_grad(now, number, rank)

    def _early(self, now: float, rank: _Rank, head: int, gap: float) -> Iterator[tuple[int, int]]:
        """(place, leg) of the passes that may run before their turn, within ``gap``."""
        if self.ahead is Ahead.NONE:
            return
        for leg, microbatch in enumerate(rank.served):
            if leg == head or microbatch == self.num_microbatches or self.leg_time[leg] > gap + self.tolerance:
                continue
            if rank.arrivals[leg][microbatch] > now + self.tolerance:
                continue
            place = rank.places[leg][microbatch]
            if leg < self.vpp:
                if rank.alive < self.limit and self._fits_early(rank, place):
                    yield place, leg
            elif self.ahead is Ahead.ALL or self._no_forward_left(rank):
                yield place, leg

    def _fits_early(self, rank: _Rank, place: int) -> bool:
        """Whether everything up to ``place`` still fits if the F that stands there goes first."""
        unfinished = rank.unfinished + 1
        for earlier in range(rank.head, place):
            if not rank.is_done[earlier]:
                unfinished += 1 if rank.legs[earlier] < self.vpp else -1
                if unfinished > self.limit:
                    return False
        return True

    def _is_full(self, rank: _Rank, head: int) -> bool:
        """Whether the next pass in turn is an F that needs a W first."""
        return head < self.vpp and rank.alive >= self.limit

    def _nobody_waits(self, number: int, rank: _Rank, head: int) -> bool:
        """Whether the rank awaits I's of stage 0 with all its F's done."""
        return number == 0 and head == len(rank.served) - 1 and self._no_forward_left(rank)

    def _no_forward_left(self, rank: _Rank) -> bool:
        return all(done == self.num_microbatches for done in rank.served[: self.vpp])

    def _start(self, now: float, number: int, rank: _Rank, leg: int) -> None:
        microbatch, stage = rank.served[leg], rank.stages[leg]
        rank.served[leg] += 1
        rank.is_done[rank.places[leg][microbatch]] = True
        kind = PassKind.FORWARD
        if leg < self.vpp:
            rank.unfinished += 1
            rank.alive += 1
        else:
            kind = PassKind.INPUT_GRAD
            rank.unfinished -= 1
            rank.pending.append(Pass(PassKind.WEIGHT_GRAD, stage, microbatch))
        end = self._occupy(now, number, rank, Pass(kind, stage, microbatch), self.leg_time[leg])
        receiver, next_leg = rank.takers[leg]
        if receiver == number:
            if next_leg < len(rank.served):
                rank.arrivals[next_leg][microbatch] = end
            return
        taker, arrival = self.ranks[receiver], end + self.comm
        taker.arrivals[next_leg][microbatch] = arrival
        # A rank that is busy until then looks again when it is free.
        if arrival >= taker.free:
            heappush(self.events, (arrival, receiver))

    def _start_weight_grad(self, now: float, number: int, rank: _Rank) -> None:
        step = rank.pending[rank.weights_done]
        rank.weights_done += 1
        rank.alive -= 1
        self._occupy(now, number, rank, step, self.weight_grad)

    def _occupy(self, now: float, number: int, rank: _Rank, step: Pass, duration: float) -> float:
        """Put the pass into the order; when it ends."""
        if not rank.order:
            rank.begin = now
        rank.order.append(step)
        rank.free = now + duration
        heappush(self.events, (rank.free, number))
        return rank.free
