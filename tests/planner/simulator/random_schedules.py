"""Random schedules with every kind of pass, made by running them; and random times for them."""

from __future__ import annotations

from random import Random

import numpy as np

from costmodel.passes import Rules
from costmodel.passes.rules import WHOLE, Product
from costmodel.schema.schedule import Pass, PassKind, Schedule, overlap
from planner.simulator import FrozenTimes, StageTimes, VocabTimes

GRADS = (PassKind.BACKWARD, PassKind.WEIGHT_GRAD)


def random_schedule(random: Random) -> Schedule:
    """Stages anywhere, one or two copies, full and split backwards mixed, pairs, gathers, vocabulary, frozen pieces."""
    ranks, m = random.randint(1, 4), random.randint(1, 5)
    copies = random.choice((1, 1, 2))
    per_copy = random.randint(1, 6)
    home = tuple(random.randrange(ranks) for _ in range(per_copy * copies))
    vocab = copies == 1 and random.random() < 0.4
    passes: list[tuple[int, Pass]] = []
    for microbatch in range(m):
        copy = random.randrange(copies)
        for stage in range(copy * per_copy, (copy + 1) * per_copy):
            split = random.random() < 0.5
            kinds = "FIW" if split else "FB"
            passes += [(home[stage], Pass(PassKind(kind), stage, microbatch)) for kind in kinds]
    if vocab:
        kinds = [PassKind.VOCAB_FORWARD, random.choice((PassKind.VOCAB_BACKWARD, PassKind.VOCAB_WEIGHT_GRAD))]
        if random.random() < 0.5:
            kinds += [PassKind.VOCAB_IN_FORWARD, PassKind.VOCAB_IN_BACKWARD]
        passes += [(rank, Pass(kind, rank, each)) for kind in kinds for rank in range(ranks) for each in range(m)]
    if random.random() < 0.4:
        pieces = random.randint(1, 3)
        passes += [
            (random.randrange(ranks), Pass(PassKind.FROZEN_FORWARD, piece, each))
            for piece in range(pieces)
            for each in range(m)
        ]
    shell = Schedule("random", m, home, tuple(tuple(step for _, step in passes) for _ in range(1)), copies)
    managed = {stage for stage in range(len(home)) if random.random() < 0.3}
    reduced = {stage for stage in range(len(home)) if random.random() < 0.3}
    orders = _run(random, Rules(shell), ranks, passes, managed, random.random() < 0.5)
    for stage in reduced:
        order = orders[home[stage]]
        makers = [at for at, step in enumerate(order) if any(p.stage == stage and p.kind in GRADS for p in step.work)]
        if makers:
            order.insert(random.randint(makers[-1] + 1, len(order)), Pass(PassKind.REDUCE_GRAD, stage))
        if len(makers) > 1 and random.random() < 0.5:
            order.insert(random.randint(makers[0] + 1, makers[-1]), Pass(PassKind.REDUCE_GRAD, stage))
    return Schedule("random", m, home, tuple(map(tuple, orders)), copies)


def _run(
    random: Random, rules: Rules, ranks: int, passes: list[tuple[int, Pass]], managed: set[int], pairs: bool
) -> list[list[Pass]]:
    """Put down one pass after the other whose inputs are there; so the order has no deadlock."""
    home = rules.schedule.stage_to_rank
    orders: list[list[Pass]] = [[] for _ in range(ranks)]
    left, made, gathered = list(passes), {}, set()
    parts: dict[Product, int] = {}

    def is_ready(rank: int, step: Pass) -> bool:
        if step.kind in tuple("FBIW") and step.stage in managed - gathered:
            return False
        product = rules.makes(step)
        if product is not None and product.stage == WHOLE and step.microbatch > 0:
            # One communicator: all ranks make their parts in the same order.
            earlier = step._replace(microbatch=step.microbatch - 1)
            if (rank, earlier) in left:
                return False
        return all(taken in made for taken in rules.takes(step))

    def finish(step: Pass) -> None:
        product = rules.makes(step)
        if product is not None:
            parts[product] = parts.get(product, 0) + 1
            if product.stage != WHOLE or parts[product] == ranks:
                made[product] = True

    while left:
        if managed and random.random() < 0.3:
            stage = random.choice(sorted(managed))
            kind = PassKind.RESHARD if stage in gathered else PassKind.UNSHARD
            orders[home[stage]].append(Pass(kind, stage))
            gathered ^= {stage}
        ready = [entry for entry in left if is_ready(*entry)]
        if not ready:
            continue
        rank, step = random.choice(ready)
        left.remove((rank, step))
        mates = [
            other
            for place, other in ready
            if place == rank and other != step and other.kind in (PassKind.BACKWARD, PassKind.INPUT_GRAD)
        ]
        if pairs and step.kind is PassKind.FORWARD and mates:
            mate = random.choice(mates)
            left.remove((rank, mate))
            orders[rank].append(overlap(step, mate))
            finish(mate)
        else:
            orders[rank].append(step)
        finish(step)
    return orders


def random_times(random: Random, schedule: Schedule, wires: bool) -> StageTimes:
    """Times of every kind, zeros among them."""
    stages, ranks = schedule.num_stages, schedule.num_ranks

    def column(size: int) -> np.ndarray:
        return np.array([random.choice((0.0, random.uniform(0.0, 3.0), random.randint(1, 3))) for _ in range(size)])

    works = [part for order in schedule.orders for step in order for part in step.work]
    pieces = max((part.stage + 1 for part in works if part.kind is PassKind.FROZEN_FORWARD), default=0)
    return StageTimes(
        *(column(stages) for _ in range(4)),
        edge_s=column(stages - 1),
        backward_s=random.choice((None, column(stages))),
        overlap_s=random.choice((None, column(stages))),
        gather_s=column(stages),
        reduce_s=column(stages),
        wire_s=column(stages - 1) if wires else 0.0,
        edge_level=np.array([random.randrange(2) for _ in range(stages - 1)], dtype=np.int64),
        vocab=VocabTimes(*(column(ranks) for _ in range(5)), *(random.uniform(0, 2) for _ in range(4))),
        frozen=FrozenTimes(column(pieces), column(pieces - 1)) if pieces else None,
    )
