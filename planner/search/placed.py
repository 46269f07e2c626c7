"""What placing one layout gives, and how a rank's mix of policies becomes its layers'."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from math import inf
from typing import Any, TypeVar

import numpy as np

from costmodel.kept import KeptBytes, KeptMicrobatches
from costmodel.layer_table import PricedLayers
from costmodel.layouts import Assignment, Column
from costmodel.stages import stages_of
from planner.evaluate import Evaluated
from planner.problem import Problem

OneRow = TypeVar("OneRow", Assignment, KeptBytes, KeptMicrobatches)


@dataclass(frozen=True)
class Placed:
    """``bound_s``: no placement of the layout is faster; inf where none fits, or another layout placed with it is never
    slower. ``step_s``: of the placement that was simulated, inf if none was. ``slower``: it may fit, but cannot
    beat the incumbent. ``programs``: how the solver left each integer program
    that had to be solved for it: optimal, feasible or unsolved (stopped by a limit), infeasible.
    """

    evaluated: Evaluated | None
    bound_s: float
    slower: bool = False
    step_s: float = inf
    programs: tuple[str, ...] = ()


def repeated(columns: OneRow, n: int) -> OneRow:
    """A dataclass of columns of one row as one of ``n`` equal rows."""

    def column(name: str) -> Any:
        value: Any = getattr(columns, name)
        return np.broadcast_to(value, (n, *value.shape[1:]))

    return replace(columns, **{one.name: column(one.name) for one in fields(columns)})


def dealt_by(layers: PricedLayers) -> tuple[int, ...]:
    """The rank whose mix each stage of the first copy takes: of two ranks that hold the same layers, the lower."""
    layout = layers.layouts.row(0)
    stages = stages_of(layers.layouts.schedule_name(0), layout.pp, layout.vpp)
    own = stages.stage_to_rank[: stages.per_copy]
    return own if stages.copies == 1 else tuple(min(rank, layout.pp - 1 - rank) for rank in own)


def deal(problem: Problem, lengths: tuple[int, ...], homes: Sequence[int], mixes: Sequence[Column]) -> tuple[int, ...]:
    """Deal each rank's mix to its layers in model order, the costlier policies first: early layers
    wait longest.

    ``homes``: the rank of each stage of one copy.
    """
    left = [mix.copy() for mix in mixes]
    policies = []
    position = 0
    for home, length in zip(homes, lengths, strict=True):
        mix = left[home]
        for kind in problem.kinds[position : position + length]:
            policy = int(np.flatnonzero(mix[kind] > 0.5)[-1])
            mix[kind, policy] -= 1
            policies.append(problem.pinned.policy(kind, policy))
        position += length
    return tuple(policies)
