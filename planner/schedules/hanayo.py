"""Hanayo: the model runs to and fro over the ranks in w waves, 2w stages a rank.

A wave goes from rank 0 to rank p - 1 and back, so the two stages at a turn share a rank and send nothing. Units of p
micro-batches follow one another (see ``units``). With v = 2w stages a rank and m a multiple of p:

    bubble / (busy + bubble) = (p - 1) / (2w·m + p - 1)          B = F
                               (2p - 2) / (3w·m + 2p - 2)        B = 2F and m = p

The first is the least that this placement allows: the last rank starts p - 1 forwards late and stops p - 1 backwards
early in any order. It is the bubble of the interleaved schedule with as many stages a rank, at less memory.

Source: Liu et al. 2023, "Hanayo: Harnessing Wave-like Pipeline Parallelism for Enhanced Large Model Training
Efficiency" (the waves). Both formulas are derived here and follow from ``units``. Leaves out: their search for the
number of waves, which is ``vpp`` / 2 here.
"""

from __future__ import annotations

from costmodel.placement import zigzag
from costmodel.schema.schedule import Pass
from planner.schedules.units import packed_units


def hanayo(pp: int, num_microbatches: int, vpp: int) -> list[list[Pass]]:
    """The passes of each rank in order; ``vpp`` = 2w stages a rank, w waves."""
    return packed_units(pp, num_microbatches, vpp, zigzag(pp, vpp), 1)
