"""ScheduleKind: one schedule as a choice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from costmodel.placement import looped
from costmodel.schema.schedule import Pass
from planner.schedules.times import PassTimes


@dataclass(frozen=True)
class ScheduleKind:
    """``vpp``: stages a rank (of one copy) when nobody asks for another number. ``splits_backward``: runs I and W
    apart. ``allows(pp, m, vpp)``: which sizes it can do, on integers or, broadcasting, on NumPy columns; ``rule`` says
    the same in words. ``stage_to_rank(pp, vpp)``: where the stages live, those of all copies. ``copies``: whole models
    that run through the ranks. ``heeds_times``: ``generate`` takes the times of the passes as a fourth argument, and
    other times may give another order.
    """

    name: str
    generate: Callable[..., list[list[Pass]]]
    allows: Callable[[Any, Any, Any], Any]
    rule: str
    splits_backward: bool = False
    vpp: int = 1
    stage_to_rank: Callable[[int, int], tuple[int, ...]] = looped
    copies: int = 1
    heeds_times: bool = False

    def orders(self, pp: int, num_microbatches: int, vpp: int, times: PassTimes) -> tuple[tuple[Pass, ...], ...]:
        """The passes of each rank in order."""
        extra = (times,) if self.heeds_times else ()
        return tuple(tuple(order) for order in self.generate(pp, num_microbatches, vpp, *extra))
