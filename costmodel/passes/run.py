"""Let a schedule's passes run, each rank in its order, every pass as soon as what it takes is there.

Sends don't block and take no time. What comes of it is an order of all passes in which each finds its inputs made, or
the passes that wait for ever; check.py wants to know which, lower.py builds on the order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from heapq import heappop, heappush
from typing import NamedTuple

from costmodel.passes.rules import WHOLE, Product, Rules
from costmodel.schema.schedule import STAGE_KINDS, Pass, PassKind, Schedule

USUAL_TIMES: Mapping[PassKind, float] = {
    kind: 0.0 if kind in STAGE_KINDS else 2.0 if kind is PassKind.BACKWARD else 1.0 for kind in PassKind
}
"""Forward, input gradient and weight gradient take the same time, gathers none."""

OnEnd = Callable[[int, Pass, list[Product]], None]
"""Called with a rank, its pass that ends, and the products that are whole with it: its own, or a joint one whose last
part it makes.
"""


class Stuck(NamedTuple):
    """A pass that waits for ever: where it stands, and the first product it misses."""

    rank: int
    position: int
    missing: Product


def run_passes(
    schedule: Schedule, on_end: OnEnd | None = None, times: Mapping[PassKind, float] = USUAL_TIMES
) -> list[Stuck]:
    """Call ``on_end`` for every pass that can run, in the order in which they end. Returns, of each rank that does not
    come to its end, the pass it stands at. ``times``: how long a pass of a kind takes; a pair takes as long as both.
    """
    rules = Rules(schedule)
    takes, makes, num_ranks = rules.takes, rules.makes, schedule.num_ranks
    made: set[Product] = set()
    parts_made: dict[Product, int] = {}
    waiting: dict[Product, list[int]] = {}
    reached = [0] * num_ranks
    running: list[tuple[float, int]] = []

    def start_next(rank: int, now: float) -> None:
        order = schedule.orders[rank]
        if reached[rank] == len(order):
            return
        step = order[reached[rank]]
        for part in step.parts or (step,):
            for product in takes(part):
                if product not in made:
                    waiting.setdefault(product, []).append(rank)
                    return
        lasts = sum(times[part.kind] for part in step.parts) if step.parts else times[step.kind]
        heappush(running, (now + lasts, rank))

    for rank in range(num_ranks):
        start_next(rank, 0.0)
    while running:
        now, rank = heappop(running)
        step = schedule.orders[rank][reached[rank]]
        reached[rank] += 1
        whole = []
        for part in step.parts or (step,):
            product = makes(part)
            if product is None:
                continue
            if product.stage == WHOLE:
                parts_made[product] = parts_made.get(product, 0) + 1
                if parts_made[product] < num_ranks:
                    continue
            whole.append(product)
            made.add(product)
        if on_end is not None:
            on_end(rank, step, whole)
        start_next(rank, now)
        for product in whole:
            if product in waiting:
                for waiter in waiting.pop(product):
                    start_next(waiter, now)
    stuck = [Stuck(rank, reached[rank], product) for product, ranks in waiting.items() for rank in ranks]
    return sorted(stuck)
