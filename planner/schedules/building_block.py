"""A schedule as a building block that repeats: when one micro-batch's passes start, and the cycle after which the next
micro-batch does the same.

Micro-batch i is the block shifted by i cycles. On a rank a chunk of a micro-batch lives from its F to its I (to its W,
where that waits), so the rank keeps sum over chunks of (lifespan / cycle) alive, whatever the number of micro-batches:
the lifespan fixes the memory. Time is counted in passes: with F = I = W a chunk's pass takes 1 and the least cycle of
v chunks is 3v, with every rank busy. Only the order in which passes start is kept; W and real times are
``squeeze``'s part.

Source: Qi et al. 2024, "Pipeline Parallelism with Controllable Memory", arXiv 2405.15362.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from costmodel.placement import zigzag


@dataclass(frozen=True)
class BuildingBlock:
    """``starts[leg][rank]``: when micro-batch 0 starts each leg of its way on each rank, in passes. The legs, as a
    micro-batch takes them: F of chunk 0, …, F of chunk v - 1, I of chunk v - 1, …, I of chunk 0. Stages lie in zigzag,
    so legs run down the ranks and up them in turn. ``cycle``: from one micro-batch to the next.
    """

    starts: tuple[tuple[float, ...], ...]
    cycle: float

    @property
    def pp(self) -> int:
        return len(self.starts[0])

    @cached_property
    def vpp(self) -> int:
        return len(self.starts) // 2

    def chunk(self, leg: int) -> int:
        """The chunk that a leg passes through."""
        return leg if leg < self.vpp else 2 * self.vpp - 1 - leg

    def is_forward(self, leg: int) -> bool:
        return leg < self.vpp

    @cached_property
    def stages(self) -> tuple[tuple[int, ...], ...]:
        """``stages[rank][chunk]``."""
        homes = zigzag(self.pp, self.vpp)
        return tuple(tuple(stage for stage, home in enumerate(homes) if home == rank) for rank in range(self.pp))

    @cached_property
    def peaks(self) -> tuple[int, ...]:
        """Chunks between F and I at most on each rank when the block repeats for ever; fewer repeats need no more.

        At time t these are, over chunks, the F's started up to t minus the I's started before t.
        """
        return tuple(
            max(self._alive(rank, self.starts[leg][rank]) for leg in range(self.vpp)) for rank in range(self.pp)
        )

    def _alive(self, rank: int, time: float) -> int:
        started = sum(math.floor((time - self.starts[leg][rank]) / self.cycle) + 1 for leg in range(self.vpp))
        ended = sum(math.ceil((time - self.starts[leg][rank]) / self.cycle) for leg in range(self.vpp, 2 * self.vpp))
        return started - ended

    @cached_property
    def collisions(self) -> int:
        """Passes that share their place in the cycle with another of the same rank; ``squeeze`` runs those in turn."""
        legs = len(self.starts)
        return sum(legs - len({leg[rank] % self.cycle for leg in self.starts}) for rank in range(self.pp))

    def leg_order(self, rank: int, num_microbatches: int) -> list[int]:
        """The legs that the rank serves, by start; the n-th time that a leg comes up is micro-batch n."""
        times = [
            (leg[rank] + microbatch * self.cycle, number)
            for number, leg in enumerate(self.starts)
            for microbatch in range(num_microbatches)
        ]
        return [number for _, number in sorted(times)]


def uniform_block(
    pp: int, offsets: Sequence[float], waits: Sequence[float] | None = None, cycle: float | None = None
) -> BuildingBlock:
    """The block whose leg k starts ``offsets[k]`` passes later on each next rank of its way; 2v offsets of at least 1.

    ``waits[k]``: passes between the end of leg k and the start of leg k + 1, on the rank where the way turns; none by
    default. ``cycle``: 3v by default. With v = 2 and d the sum of the offsets, rank 0 keeps about p·d / 6 chunks.
    """
    vpp = len(offsets) // 2
    starts: list[tuple[float, ...]] = []
    start = 0.0
    for leg, offset in enumerate(offsets):
        way = [start + offset * hop for hop in range(pp)]
        starts.append(tuple(way if leg % 2 == 0 else reversed(way)))
        start = way[-1] + 1 + (waits[leg] if waits and leg < len(waits) else 0)
    return BuildingBlock(tuple(starts), 3.0 * vpp if cycle is None else cycle)
