"""A second, slow simulator: the definition of a schedule's makespan, a pair being one pass as long as its two."""

from __future__ import annotations

from costmodel.passes import Product, Rules
from costmodel.schema.schedule import PassKind, Schedule


def makespan(schedule: Schedule, f: float, i: float, w: float) -> float:
    """End of the last pass. ``f``, ``i``, ``w``: times of all of a rank's layers; no delay between ranks, gathers and
    reductions take none.
    """
    share = schedule.copies * schedule.num_ranks / schedule.num_stages
    time_s = {PassKind.FORWARD: f, PassKind.BACKWARD: i + w, PassKind.INPUT_GRAD: i, PassKind.WEIGHT_GRAD: w}
    rules = Rules(schedule)
    made_at: dict[Product, float] = {}
    todo = [[step for step in order if step.work[0].kind in time_s][::-1] for order in schedule.orders]
    now = [0.0] * schedule.num_ranks
    while any(todo):
        before = sum(map(len, todo))
        for rank, order in enumerate(todo):
            while order and all(product in made_at for part in order[-1].work for product in rules.takes(part)):
                step = order.pop()
                inputs = [made_at[product] for part in step.work for product in rules.takes(part)]
                now[rank] = max([now[rank], *inputs]) + share * sum(time_s[part.kind] for part in step.work)
                for part in step.work:
                    product = rules.makes(part)
                    if product is not None:
                        made_at[product] = now[rank]
        assert sum(map(len, todo)) < before, f"{schedule.name} waits for ever"
    return max(now)


def peak_activations(schedule: Schedule) -> list[float]:
    """For each rank the most micro-batches of all its layers alive at once: from F to W, or to B."""
    share = schedule.copies * schedule.num_ranks / schedule.num_stages
    change = {PassKind.FORWARD: 1, PassKind.BACKWARD: -1, PassKind.WEIGHT_GRAD: -1}
    peaks = []
    for order in schedule.orders:
        alive = most = 0
        for step in order:
            for part in step.work:
                alive += change.get(part.kind, 0)
                most = max(most, alive)
        peaks.append(most * share)
    return peaks
