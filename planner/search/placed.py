"""What placing one layout gives, and how a rank's mix of policies becomes its layers'."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from planner.evaluate import Evaluated
from planner.problem import Problem
from planner.search.options import Option


@dataclass(frozen=True)
class Placed:
    """``bound_s``: no placement of the layout is faster. ``slower``: it fits, but cannot beat the incumbent."""

    evaluated: Evaluated | None
    bound_s: float
    slower: bool = False


def deal(problem: Problem, lengths: tuple[int, ...], homes: Sequence[int], picked: Sequence[Option]) -> tuple[int, ...]:
    """Deal each rank's mix to its layers in model order, costlier policies last: early layers wait longest.

    ``homes``: the rank of each stage of one copy.
    """
    left = [option.mix.copy() for option in picked]
    policies = []
    position = 0
    for home, length in zip(homes, lengths, strict=True):
        mix = left[home]
        for kind in problem.kinds[position : position + length]:
            policy = int(np.flatnonzero(mix[kind] > 0.5)[-1])
            mix[kind, policy] -= 1
            policies.append(policy)
        position += length
    return tuple(policies)
