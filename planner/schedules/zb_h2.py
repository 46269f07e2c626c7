"""ZB-H2: enough forwards ahead that no rank idles between its first and its last pass.

The block's F and I each go on three passes after the neighbour's, twice 1F1B's lifespan in all: rank r forwards
2(p - r) - 1 micro-batches before its first I. With F = I = W and no delay at most 2p - 1 micro-batches are alive, the
makespan is m(F + I + W) + (p - 1)F for m >= p, and no rank idles inside its own span from m = 2p - 1 on. For other
times the order follows them, under the limit of the paper's automatic search, 2p.

Whatever the times, no order of one stage a rank that keeps at most M micro-batches alive has a span below
(p - 1)(F + I + 2c) + m(F + I) + (max(m - M, 0) + 1)W: the last rank starts (p - 1)(F + c) late and must have done m - M
W's before its last I, whose gradient then goes all the way back. Where F or I exceed W this is what ZB-H2 takes.

Source: Qi et al. 2023, "Zero Bubble Pipeline Parallelism", section 2.2 and figure 3; section 3.1 (2p).
"""

from __future__ import annotations

from costmodel.schema.schedule import Pass
from planner.schedules.building_block import uniform_block
from planner.schedules.squeeze import Ahead, squeeze_best
from planner.schedules.times import EQUAL_TIMES, PassTimes


def zb_h2(pp: int, num_microbatches: int, vpp: int = 1, times: PassTimes = EQUAL_TIMES) -> list[list[Pass]]:
    """The passes of each rank in order; one stage a rank."""
    del vpp
    fewer = 1 if times.are_equal else 0
    return squeeze_best(
        lambda p: uniform_block(p, (3, 3)), pp, num_microbatches, lambda p: 2 * p - fewer, times, Ahead.NONE
    ).orders


def least_span(pp: int, num_microbatches: int, times: PassTimes, memory: int) -> float:
    """Bound on the longest rank's span of any order of one stage a rank that keeps at most ``memory`` micro-batches
    alive from F to W: the larger of a rank's work and the way described above.
    """
    way = (pp - 1) * (times.forward + times.input_grad + 2 * times.comm)
    before_last = num_microbatches * (times.forward + times.input_grad)
    weight_grads = max(num_microbatches - memory, 0) + 1
    return max(num_microbatches * times.work, way + before_last + weight_grads * times.weight_grad)
