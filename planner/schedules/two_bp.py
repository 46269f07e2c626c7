"""2BP: any schedule with a full backward, its backward cut in two stages.

Every B becomes the input gradient I in its place. Its weight gradient W waits until the rank would stand idle, in
times where F, I and W of a stage are alike; those still waiting at the end run there. So that memory stays bounded, at
most p micro-batches wait on a rank: with more, the oldest W runs at once.

With F = I = W the bubble of GPipe falls from 3(p - 1) to 2(p - 1) passes, as published; that of 1F1B to p - 1 for
m >= p, below the published 2(p - 1), for which every W goes to the end of the step.

Source: Rae, Lee and Richings 2024, "2BP: 2-Stage Backpropagation" (backward-p1 is I, backward-p2 is W). Where W runs
differs: they put all of them to the end, or half way through where memory is short.
Leaves out: joining the W of several micro-batches into one call.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from costmodel.schema.schedule import Pass, PassKind, Schedule


def defer_weight_grads(schedule: Schedule) -> Schedule:
    """``schedule`` with every B as I and a W that runs later on the same rank. ``schedule`` has plain F and B only, in
    an order that can run.
    """
    ends = _Ends(schedule)
    ranks = [_Rank(order, ends, limit=schedule.stages_per_copy) for order in schedule.orders]
    while sum(rank.advance() for rank in ranks):
        pass
    return replace(schedule, orders=tuple(rank.finish() for rank in ranks))


class _Ends:
    """When the passes of each stage and micro-batch ended, in passes; None: not yet."""

    def __init__(self, schedule: Schedule) -> None:
        stages, microbatches = range(schedule.num_stages), schedule.num_microbatches
        self.of_forwards: list[list[int | None]] = [[None] * microbatches for _ in stages]
        self.of_input_grads: list[list[int | None]] = [[None] * microbatches for _ in stages]
        self.is_first = [schedule.is_first(stage) for stage in stages]
        self.is_last = [schedule.is_last(stage) for stage in stages]


class _Rank:
    """One rank on a clock of passes, all equally long."""

    def __init__(self, order: tuple[Pass, ...], ends: _Ends, limit: int) -> None:
        self._todo, self._ends, self._limit = order, ends, limit
        self._order: list[Pass] = []
        self._waiting: deque[Pass] = deque()
        self._at = self._now = 0

    def advance(self) -> bool:
        """Run passes until one waits for another rank. Whether there was any.

        Where the next pass's input comes later than the rank is free, weight gradients fill the time until then.
        """
        ends, todo, order, waiting, start = self._ends, self._todo, self._order, self._waiting, self._at
        while self._at < len(todo):
            step = todo[self._at]
            kind, stage, microbatch, _ = step
            forward = kind is PassKind.FORWARD
            ready: int | None = 0
            if forward and not ends.is_first[stage]:
                ready = ends.of_forwards[stage - 1][microbatch]
            elif not forward and not ends.is_last[stage]:
                ready = ends.of_input_grads[stage + 1][microbatch]
            if ready is None:
                break
            while waiting and self._now < ready:
                self._weight_grad()
            self._at += 1
            self._now = end = max(self._now, ready) + 1
            if forward:
                order.append(step)
                ends.of_forwards[stage][microbatch] = end
                continue
            order.append(Pass(PassKind.INPUT_GRAD, stage, microbatch))
            ends.of_input_grads[stage][microbatch] = end
            waiting.append(Pass(PassKind.WEIGHT_GRAD, stage, microbatch))
            if len(waiting) > self._limit:
                self._weight_grad()
        return self._at > start

    def finish(self) -> tuple[Pass, ...]:
        return (*self._order, *self._waiting)

    def _weight_grad(self) -> None:
        self._order.append(self._waiting.popleft())
        self._now += 1
