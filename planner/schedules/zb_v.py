"""ZB-V: two chunks a rank, there and back, and no bubble inside a rank's span at 1F1B's memory.

Rank r holds stages r and 2p - 1 - r, so the last of the first chunks and the first of the second meet on rank p - 1 and
the loss is on rank 0. The block's four legs all go on by three passes a rank: a micro-batch's two chunks together live
2p cycles on every rank, which is p micro-batches. In the warm-up F's run ahead as far as that allows.

With F = I = W, no delay and m >= p the makespan is m(F + I + W) + (p - 1)F / 2, the last rank's wait for its first F:
no order of two chunks can do better. From m = 2p - 1 on no rank idles inside its own span.

Source: Qi et al. 2023, "Zero Bubble Pipeline Parallelism", section 6 (ZB-V); Qi et al. 2024, "Pipeline Parallelism with
Controllable Memory" (V-ZB).
"""

from __future__ import annotations

from costmodel.schema.schedule import Pass
from planner.schedules.building_block import uniform_block
from planner.schedules.squeeze import squeeze_best
from planner.schedules.times import EQUAL_TIMES, PassTimes


def zb_v(pp: int, num_microbatches: int, vpp: int = 2, times: PassTimes = EQUAL_TIMES) -> list[list[Pass]]:
    """The passes of each rank in order; two stages a rank in zigzag."""
    del vpp
    return squeeze_best(lambda p: uniform_block(p, (3, 3, 3, 3)), pp, num_microbatches, lambda p: 2 * p, times).orders
