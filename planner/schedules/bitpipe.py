"""BitPipe: Chimera with each direction interleaved in a V, so that a rank holds two stages of each of two copies.

The first copy runs from rank 0 to p - 1 and back, the second from p - 1 to 0 and back, p/2 micro-batches of a unit of p
each (see ``units``). Half of Chimera's bubble with v = 2 stages of each copy a rank:

    bubble / (busy + bubble) = (p - 2) / (4m + p - 2)            B = F and m a multiple of p
                               (p - 2) / (3m + p - 2)            B = 2F and m = p

Between (3p + 2) / 4 and p micro-batches are alive on a rank; weights twice. Any v >= 2 works.

Source: Wu, Chen and Yu 2024, "BitPipe: Bidirectional Interleaved Pipeline Parallelism for Accelerating Large Models
Training" (the two merged Vs). Leaves out: their early forwarding between units.
"""

from __future__ import annotations

from costmodel.placement import zigzag
from costmodel.schema.schedule import Pass
from planner.schedules.units import packed_units


def bitpipe(pp: int, num_microbatches: int, vpp: int) -> list[list[Pass]]:
    """The passes of each rank in order; ``vpp`` stages of each copy a rank; ``pp`` even."""
    return packed_units(pp, num_microbatches, vpp, zigzag(pp, vpp), 2)
