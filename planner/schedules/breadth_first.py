"""Breadth-first: all micro-batches through a chunk before any goes on to the next; backwards the same in reverse.

Each stage is used in two unbroken runs, so sharded parameters are gathered twice a step however many micro-batches
there are, and a stage's gradients can be reduced as soon as its one backward run ends, while earlier stages still
compute. All m micro-batches are alive. Bubble over ideal time: (p - 1) / (m·v) for m >= p.

With pp = 1 this is layered gradient accumulation: layer by layer instead of micro-batch by micro-batch.

Source: Lamy-Poirier 2022, "Breadth-First Pipeline Parallelism"; Lamy-Poirier 2021, "Layered gradient accumulation and
modular pipeline parallelism: fast and efficient training of large language models". PyTorch calls it LoopedBFS.
"""

from __future__ import annotations

from costmodel.schema.schedule import Pass, PassKind


def breadth_first(pp: int, num_microbatches: int, vpp: int) -> list[list[Pass]]:
    """The passes of each rank in order; ``vpp`` stages a rank."""
    orders = []
    for rank in range(pp):
        stages = range(rank, pp * vpp, pp)
        order = [Pass(PassKind.FORWARD, stage, at) for stage in stages for at in range(num_microbatches)]
        order += [
            Pass(PassKind.BACKWARD, stage, at) for stage in reversed(stages) for at in reversed(range(num_microbatches))
        ]
        orders.append(order)
    return orders
