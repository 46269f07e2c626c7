"""Blocks for a given memory, and the best schedule they give: any point between V-Min and ZB-V, and below.

The blocks tried are uniform ones of two chunks: four offsets of 1 to 3 passes and a wait of 0 to 3 between the last F
and the first I. With the least cycle, 6, they need a third of p micro-batches and up. For less memory the cycle grows:
ranks idle, and a micro-batch's lifespan spreads over fewer cycles, down to one micro-batch at a time.

Source: Qi et al. 2024, "Pipeline Parallelism with Controllable Memory" (uniform offsets).
May import ``planner.simulator``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice, product

from costmodel.placement import zigzag
from costmodel.schema.errors import Infeasible
from costmodel.schema.schedule import Schedule
from planner.schedules.building_block import BuildingBlock, uniform_block
from planner.schedules.report import rank_times
from planner.schedules.squeeze import Ahead, Squeezed, squeeze
from planner.schedules.times import EQUAL_TIMES, PassTimes
from planner.simulator.simulate import simulate

_OFFSETS = (1, 2, 3)
_WAITS = (0, 1, 2, 3)
_VPP = 2


def blocks(pp: int, memory_limit: float) -> Iterator[BuildingBlock]:
    """The V-shaped uniform blocks that keep at most ``memory_limit`` micro-batches (of all of a rank's layers) alive on
    any of ``pp`` >= 2 ranks; those that use most of it first, then those with fewest collisions.

    Raises Infeasible when the limit is below one micro-batch.
    """
    limit = _chunks(memory_limit)
    fitting = [block for block in _family(pp) if max(block.peaks) <= limit]
    yield from sorted(fitting, key=lambda block: (-max(block.peaks), block.collisions))
    if not fitting:
        yield from (_stretched(pp, less) for less in range(limit, _VPP - 1, -1))


@lru_cache(maxsize=4)
def v_schedule(
    pp: int, num_microbatches: int, memory_limit: float, times: PassTimes = EQUAL_TIMES, tries: int = 6
) -> Schedule:
    """The fastest for ``times`` among the orders that the first ``tries`` of ``blocks`` give, squeezed for these times
    and for equal ones; named ``v-schedule``, at most ``memory_limit`` micro-batches alive from F to W.

    They are told apart on 2p micro-batches at most. Raises Infeasible when the limit is below one micro-batch.
    """
    limit, few = _chunks(memory_limit), min(num_microbatches, 2 * pp)
    tried = [
        (_makespan(squeeze(block, few, limit, made_for, ahead), pp, few, made_for, times), block, ahead, made_for)
        for block in islice(blocks(pp, memory_limit), tries)
        for ahead in Ahead
        for made_for in dict.fromkeys((times, EQUAL_TIMES))
    ]
    _, block, ahead, made_for = min(tried, key=lambda each: each[0])
    return _schedule(squeeze(block, num_microbatches, limit, made_for, ahead), pp, num_microbatches)


def _makespan(squeezed: Squeezed, pp: int, num_microbatches: int, made_for: PassTimes, times: PassTimes) -> float:
    if made_for == times:
        return squeezed.makespan
    schedule = _schedule(squeezed, pp, num_microbatches)
    stage_times = rank_times(schedule, times.forward, times.input_grad, times.weight_grad, times.comm)
    return simulate(schedule, stage_times).makespan_s


def _schedule(squeezed: Squeezed, pp: int, num_microbatches: int) -> Schedule:
    orders = tuple(tuple(order) for order in squeezed.orders)
    return Schedule("v-schedule", num_microbatches, zigzag(pp, _VPP), orders)


def _chunks(memory_limit: float) -> int:
    if not memory_limit >= 1:
        raise Infeasible(
            f"memory limit of {memory_limit:g} micro-batches a rank: a pipeline keeps at least 1 alive",
            hint="give a limit of 1 or more",
        )
    return math.floor(memory_limit * _VPP + 1e-9) if math.isfinite(memory_limit) else 2**62


def _family(pp: int) -> Iterator[BuildingBlock]:
    for offsets, wait in product(product(_OFFSETS, repeat=2 * _VPP), _WAITS):
        yield uniform_block(pp, offsets, (0, wait, 0))


def _stretched(pp: int, limit: int) -> BuildingBlock:
    """V-Min's block with the shortest cycle, in whole passes, that needs at most ``limit`` chunks."""
    offsets = (1,) * (2 * _VPP)
    lifespan = 2 * _VPP * pp
    cycles = (uniform_block(pp, offsets, cycle=cycle) for cycle in range(3 * _VPP, lifespan + 1))
    return next(block for block in cycles if max(block.peaks) <= limit)
