"""ScheduleKind: one schedule as a choice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from costmodel.schema.schedule import Pass
from planner.schedules.placement import looped


@dataclass(frozen=True)
class ScheduleKind:
    """``vpp``: stages a rank (of one copy) when nobody asks for another number. ``splits_backward``: runs I and W
    apart. ``allows(pp, m, vpp)``: which sizes it can do, on integers or, broadcasting, on NumPy columns; ``rule`` says
    the same in words. ``stage_to_rank(pp, vpp)``: where the stages live, those of all copies. ``copies``: whole models
    that run through the ranks.
    """

    name: str
    generate: Callable[[int, int, int], list[list[Pass]]]
    allows: Callable[[Any, Any, Any], Any]
    rule: str
    splits_backward: bool = False
    vpp: int = 1
    stage_to_rank: Callable[[int, int], tuple[int, ...]] = looped
    copies: int = 1

    @property
    def needs_vpp(self) -> bool:
        """Whether a rank holds several stages."""
        return self.vpp > 1
