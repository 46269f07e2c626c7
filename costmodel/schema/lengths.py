"""LengthPlan: a step's sequences of mixed lengths, dealt to groups of ranks of unlike context parallelism."""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from costmodel.schema.base import Spec
from costmodel.schema.layout import RecomputePolicy

DOCUMENT: Literal["mixed-lengths"] = "mixed-lengths"
"""What tells the file from a plan's."""


class LengthShare(Spec):
    """``count`` sequences of up to ``length`` tokens, over all groups of a shape; ``packed`` at once in a group."""

    length: PositiveInt
    count: PositiveInt
    packed: PositiveInt


class LengthGroups(Spec):
    """``groups`` groups of cp_ring · cp_ulysses · tp devices each; the slowest of them computes for ``busy_s``."""

    groups: PositiveInt
    cp_ring: PositiveInt
    cp_ulysses: PositiveInt
    busy_s: PositiveFloat
    sequences: tuple[LengthShare, ...]


class LengthLayout(Spec):
    """What all ranks have in common, and the groups they form. ``step_time_s``: of the slowest group, with the
    reductions and the update behind it.
    """

    tp: PositiveInt
    ep: PositiveInt = 1
    zero_stage: Literal[0, 1]
    recompute: RecomputePolicy
    offload: NonNegativeFloat = 0.0
    groups: tuple[LengthGroups, ...]
    step_time_s: PositiveFloat

    @property
    def mixed(self) -> bool:
        """Whether groups of more than one context-parallel shape run side by side."""
        return len(self.groups) > 1


class LengthPlan(Spec):
    """The answer to a histogram of lengths.

    ``chosen``: the layout to run. ``uniform``: the fastest whose groups are all alike; ``mixed``: the fastest found at
    all, which may be the same. gain = uniform / mixed - 1; gap = (mixed - lower bound) / mixed.
    """

    document: Literal["mixed-lengths"] = DOCUMENT
    schema_version: Literal[1] = 1
    model: str
    cluster: str
    device: str
    num_devices: PositiveInt
    runtime: str
    sequences: PositiveInt
    tokens: PositiveInt
    longest: PositiveInt
    chosen: LengthLayout
    uniform: LengthLayout
    mixed: LengthLayout
    gain: float
    tokens_per_s_per_device: PositiveFloat
    lower_bound_s: PositiveFloat
    gap: NonNegativeFloat
    considered: PositiveInt
    wall_s: NonNegativeFloat
    assumptions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
