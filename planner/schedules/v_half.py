"""V-Half: two chunks a rank, there and back, at half of 1F1B's memory.

Legs go on by 1, 1, 2 and 1 passes a rank; for even p three passes between the last F and the first I keep them from
meeting in the cycle. At most p/2 + 1 micro-batches are alive on a rank. With F = I = W, no delay, p > 2 and m >= p the
bubble is (3p - 7)F / 2 for even p and (3p - 6)F / 2 for odd p. The order heeds no other times.

Source: Qi et al. 2024, "Pipeline Parallelism with Controllable Memory" (V-Half). The offsets are this
project's, found among the uniform blocks of that memory.
"""

from __future__ import annotations

from costmodel.schema.schedule import Pass
from planner.schedules.building_block import uniform_block
from planner.schedules.squeeze import squeeze


def v_half(pp: int, num_microbatches: int, vpp: int = 2) -> list[list[Pass]]:
    """The passes of each rank in order; two stages a rank in zigzag."""
    del vpp
    wait = 0 if pp % 2 else 3
    return squeeze(uniform_block(pp, (1, 1, 2, 1), (0, wait, 0)), num_microbatches, limit=pp + 2).orders
