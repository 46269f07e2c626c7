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

from costmodel.passes import Product, Rules
from costmodel.schema.schedule import Pass, PassKind, Schedule


def defer_weight_grads(schedule: Schedule) -> Schedule:
    """``schedule`` with every B as I and a W that runs later on the same rank. ``schedule`` has plain F and B only."""
    split = replace(schedule, orders=tuple(tuple(_input_grad(step) for step in order) for order in schedule.orders))
    rules = Rules(split)
    limit = schedule.stages_per_copy
    ranks = [_Rank(order, limit) for order in split.orders]
    made_at: dict[Product, int] = {}
    moved = True
    while moved:
        moved = False
        for rank in ranks:
            while (step := rank.next()) is not None:
                taken = rules.takes(step)
                if not all(product in made_at for product in taken):
                    break
                end = rank.run(step, max((made_at[product] for product in taken), default=0))
                made = rules.makes(step)
                if made is not None:
                    made_at[made] = end
                moved = True
    return replace(split, orders=tuple(rank.finish() for rank in ranks))


def _input_grad(step: Pass) -> Pass:
    return step._replace(kind=PassKind.INPUT_GRAD) if step.kind is PassKind.BACKWARD else step


class _Rank:
    """One rank on a clock of passes, all equally long."""

    def __init__(self, order: tuple[Pass, ...], limit: int) -> None:
        self._todo, self._limit = deque(order), limit
        self._order: list[Pass] = []
        self._waiting: deque[Pass] = deque()
        self._now = 0

    def next(self) -> Pass | None:
        return self._todo[0] if self._todo else None

    def run(self, step: Pass, ready: int) -> int:
        """Run the next pass, whose inputs are there at ``ready``; weight gradients fill the time until then. The end
        of the pass.
        """
        self._todo.popleft()
        while self._waiting and self._now < ready:
            self._weight_grad()
        self._order.append(step)
        self._now = end = max(self._now, ready) + 1
        if step.kind is PassKind.INPUT_GRAD:
            self._waiting.append(step._replace(kind=PassKind.WEIGHT_GRAD))
            if len(self._waiting) > self._limit:
                self._weight_grad()
        return end

    def finish(self) -> tuple[Pass, ...]:
        return (*self._order, *self._waiting)

    def _weight_grad(self) -> None:
        self._order.append(self._waiting.popleft())
        self._now += 1
