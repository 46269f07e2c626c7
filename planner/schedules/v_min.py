"""V-Min: two chunks a rank, there and back, with the least memory a building block of full rate can have.

Every leg goes on by one pass a rank, so a micro-batch never waits between ranks. Passes of different legs meet in the
cycle when p is a multiple of 3; one pass between the last F and the first I parts them. For p = 2, 5, 8, … three passes
there cost no memory and shorten warm-up and drain. At most floor((p + 4) / 3) micro-batches are alive on a rank. With
F = I = W, no delay, p > 2 and m >= p the bubble is (4p - 7, 4p - 5, 4p - 9)F / 2 for p mod 3 = (0, 1, 2). The order
heeds no other times; as nothing in it can wait, unequal passes cost it more than others.

Source: Qi et al. 2024, "Pipeline Parallelism with Controllable Memory" (V-Min). The waits are this
project's.
"""

from __future__ import annotations

from costmodel.schema.schedule import Pass
from planner.schedules.building_block import uniform_block
from planner.schedules.squeeze import Ahead, squeeze

_WAIT = (1, 0, 3)
"""Passes between the last F and the first I, by p mod 3."""


def v_min(pp: int, num_microbatches: int, vpp: int = 2) -> list[list[Pass]]:
    """The passes of each rank in order; two stages a rank in zigzag."""
    del vpp
    wait = _WAIT[pp % 3]
    block = uniform_block(pp, (1, 1, 1, 1), (0, wait, 0))
    # Without a wait the block fills the memory and whatever runs ahead is in the way later.
    ahead = Ahead.ALL if wait else Ahead.NONE
    return squeeze(block, num_microbatches, 2 * ((pp + 4) // 3), ahead=ahead).orders
