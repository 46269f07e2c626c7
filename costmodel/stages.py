"""Where a schedule's stages live, and what each rank sends."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from costmodel.schedules import SCHEDULES
from costmodel.schema.errors import InvalidSpec


@dataclass(frozen=True)
class Stages:
    """Where the stages of all copies live, each copy's in model order: ranks by stage, and columns [p] by rank.

    ``embedding``, ``head``: whether a rank holds that end of the model, or a part of it. ``activations``,
    ``gradients``: messages that it sends to other ranks for a micro-batch that crosses all of its stages.
    """

    stage_to_rank: tuple[int, ...]
    copies: int
    embedding: NDArray[np.bool_]
    head: NDArray[np.bool_]
    activations: NDArray[np.int64]
    gradients: NDArray[np.int64]

    @property
    def num_ranks(self) -> int:
        return len(self.embedding)

    @property
    def per_copy(self) -> int:
        """Stages of one copy."""
        return len(self.stage_to_rank) // self.copies


@lru_cache(maxsize=4096)
def stages_of(schedule: str, pp: int, vpp: int) -> Stages:
    """The placement of a schedule's stages on ``pp`` ranks. Raises KeyError for a name that has no form."""
    form = SCHEDULES[schedule]
    stage_to_rank = form.stage_to_rank(pp, vpp)
    homes = np.reshape(stage_to_rank, (form.copies, -1)).tolist()
    columns = {name: np.zeros(pp, np.int64) for name in ("embedding", "head", "activations", "gradients")}
    for home in homes:
        columns["embedding"][home if form.barriers else home[:1]] = 1
        columns["head"][home if form.barriers else home[-1:]] = 1
        for before, after in pairwise(home):
            columns["activations"][before] += before != after
            columns["gradients"][after] += before != after
    return Stages(
        stage_to_rank=stage_to_rank,
        copies=form.copies,
        embedding=columns["embedding"] > 0,
        head=columns["head"] > 0,
        activations=columns["activations"],
        gradients=columns["gradients"],
    )


def resembling(stage_to_rank: tuple[int, ...], pp: int, vpp: int, splits_backward: bool) -> str:
    """The schedule whose stages lie so, and whose backward is split likewise if there is one: for an order found rather
    than named. Raises InvalidSpec where stages lie as no schedule places them.
    """
    placed = [
        name
        for name, form in SCHEDULES.items()
        if form.allows(pp, pp, vpp) and stages_of(name, pp, vpp).stage_to_rank == stage_to_rank
    ]
    if not placed:
        raise InvalidSpec(
            f"pipeline.stage_to_rank = {list(stage_to_rank)} is not a placement that is priced",
            "round and round the ranks, there and back, or either in two directions",
        )
    return next((name for name in placed if SCHEDULES[name].splits_backward == splits_backward), placed[0])
