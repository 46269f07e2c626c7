"""OrderProblem: what an order is looked for, and what it must obey."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from costmodel.schema.errors import Infeasible, InvalidSpec
from planner.simulator import StageTimes

ROUNDING = 1e-9
"""Share of a memory cap by which sums of floats may pass it."""


@dataclass(frozen=True, eq=False)
class OrderProblem:
    """Where the stages of one copy of a model live, how long their passes take, and how much may be alive.

    stage_to_rank     rank of every stage, in model order
    num_microbatches
    times             one row, in any unit
    memory_cap        per rank, the most that may be alive, in the unit of ``stage_weights``; the same for all if scalar
    stage_weights     what one micro-batch of each stage keeps alive from the start of F to the end of W (of B when the
                      backward is whole); default each stage's equal share of its rank, so that a cap counts
                      micro-batches of all of a rank's layers
    splits_backward   whether the backward runs as I and W

    Leaves out: what a split backward keeps besides, from I to W; count it into the weight. Copies of the model that run
    in opposite directions, and passes other than F, B, I and W.

    Raises InvalidSpec for shapes that don't fit or figures that cannot be; Infeasible when a rank cannot hold one
    micro-batch of all its stages, for then no order exists. When every rank can, one does: micro-batch by micro-batch.
    """

    stage_to_rank: tuple[int, ...]
    num_microbatches: int
    times: StageTimes
    memory_cap: tuple[float, ...] | float = float("inf")
    stage_weights: tuple[float, ...] | None = None
    splits_backward: bool = True

    def __post_init__(self) -> None:
        ranks = range(max(self.stage_to_rank, default=-1) + 1)
        if set(self.stage_to_rank) != set(ranks):
            raise InvalidSpec(f"stage_to_rank = {self.stage_to_rank} must place a stage on every rank from 0")
        if self.num_microbatches < 1:
            raise InvalidSpec(f"num_microbatches = {self.num_microbatches} must be 1 or more")
        if self.times.batch_shape or self.times.num_stages != len(self.stage_to_rank):
            raise InvalidSpec(
                f"times are of {self.times.num_stages} stages in a batch of {self.times.batch_shape}; an order is "
                f"looked for with one row for {len(self.stage_to_rank)} stages"
            )
        on_rank = Counter(self.stage_to_rank)
        weights = self.stage_weights or tuple(1.0 / on_rank[rank] for rank in self.stage_to_rank)
        object.__setattr__(self, "stage_weights", _column("stage_weights", weights, len(self.stage_to_rank)))
        caps = np.broadcast_to(np.asarray(self.memory_cap, dtype=np.float64), len(ranks))
        object.__setattr__(self, "memory_cap", _column("memory_cap", caps.tolist(), len(ranks)))
        for rank in ranks:
            if self.rank_weight(rank) > self.caps[rank] * (1.0 + ROUNDING):
                raise Infeasible(
                    f"rank {rank} may keep {self.caps[rank]:g} alive, but one micro-batch of its stages takes "
                    f"{self.rank_weight(rank):g}: no order exists",
                    hint=f"allow at least {max(self.rank_weight(each) for each in ranks):g}",
                )

    @property
    def num_ranks(self) -> int:
        return len(self.caps)

    @property
    def num_stages(self) -> int:
        return len(self.stage_to_rank)

    @property
    def weights(self) -> tuple[float, ...]:
        """``stage_weights``, filled in."""
        return self.stage_weights  # type: ignore[return-value]

    @property
    def caps(self) -> tuple[float, ...]:
        """``memory_cap``, one a rank."""
        return self.memory_cap  # type: ignore[return-value]

    def stages_on(self, rank: int) -> list[int]:
        """The rank's stages, in model order."""
        return [stage for stage, home in enumerate(self.stage_to_rank) if home == rank]

    def rank_weight(self, rank: int) -> float:
        """What one micro-batch of all of a rank's stages keeps alive."""
        return sum(self.weights[stage] for stage in self.stages_on(rank))

    def edges(self) -> list[float]:
        """Delay from stage s to s + 1 and back; 0 inside a rank."""
        homes = self.stage_to_rank
        delays: list[float] = np.asarray(self.times.edge_s).tolist()
        return [0.0 if homes[at] == homes[at + 1] else delay for at, delay in enumerate(delays)]


def _column(name: str, values: Sequence[float], length: int) -> tuple[float, ...]:
    if len(values) != length:
        raise InvalidSpec(f"{name} has {len(values)} figures; there must be {length}")
    for value in values:
        if not value > 0:
            raise InvalidSpec(f"{name} has the value {value:g}; it must be more than 0")
    return tuple(map(float, values))
