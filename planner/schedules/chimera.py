"""Chimera: two copies of the model run through the same ranks in opposite directions, each with half of the data.

A unit is p micro-batches, p/2 each way, merged so that one direction works where 1F1B of the other would wait; more
micro-batches are a chain of units, the next filling the ends of the one before ("direct concatenation"; see ``units``):

    bubble / (busy + bubble) = (p - 2) / (2m + p - 2)            B = F and m a multiple of p
                               (p - 2) / (3m/2 + p - 2)          B = 2F and m = p

Between p/2 + 1 and p micro-batches are alive on a rank. Every rank keeps two stages, that is twice the weights.

Source: Li and Hoefler 2021, "Chimera: Efficiently Training Large-Scale Neural Networks with Bidirectional Pipelines",
table 2 (the formulas, their D and N being p and m). Leaves out: more than two copies; forward doubling and backward
halving, which trade memory for the bubbles between units when B = 2F.
"""

from __future__ import annotations

from costmodel.placement import looped
from costmodel.schema.schedule import Pass
from planner.schedules.units import packed_units


def chimera(pp: int, num_microbatches: int, vpp: int = 1) -> list[list[Pass]]:
    """The passes of each rank in order; one stage of each copy a rank; ``pp`` even."""
    return packed_units(pp, num_microbatches, vpp, looped(pp, vpp), 2)
