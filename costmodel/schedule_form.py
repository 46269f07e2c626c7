"""What the cost model knows of a pipeline schedule without its order of passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from costmodel.placement import looped, mirrored, zigzag

Form = Callable[[Any, Any, Any, Any], Any]
"""A figure from (p, m, v, rank), floats or columns that broadcast."""


def nothing(p: Any, m: Any, v: Any, r: Any) -> Any:
    return 0.0 * (p + r)


@dataclass(frozen=True)
class ScheduleForm:
    """One schedule, by p ranks, m micro-batches and v stages a rank (of one copy).

    allows           (p, m, v): which sizes it can do, integers or columns
    in_flight        micro-batches alive at once on a rank, in units of all of the rank's layers of one copy
    least_in_flight  what the order never keeps less than, where in_flight is not exact
    pending          those between input gradient and weight gradient, likewise
    least_pending    what the order leaves at least beside least_in_flight: with x bytes a micro-batch alive and y one
                     waiting, a rank's peak is no less than x · least_in_flight + y · least_pending
    ahead            forwards before the first backward, where it is not in_flight
    gathers          how often the rank's sharded parameters are gathered for its forwards, and again for its backwards,
                     where they stay gathered for a run of passes; None: for every forward before the first backward
    fill             what every rank but the heaviest adds to the makespan: weights of its F, I and W, over v
    slack            what each micro-batch adds where F and B share slots of one length: times |B - F|, over v
    tripled          whether a micro-batch takes three times the longest of F, I and W at least, not just their sum
    round            micro-batches that cross one of the rank's stages before its next, where the last rank's neighbour
                     is the first; None: one at a time
    crossings        how often an activation's way through the model adds to the makespan, in edges between ranks
    placement        looped: stage s on rank s mod p; zigzag: there and back
    copies           whole models that run through the ranks, the second from the other end
    splits_backward  runs I and W apart
    forwards_first   runs every forward before the first backward
    barriers         embedding and output layer are split over all ranks, and their parts meet in so many collectives
                     between a micro-batch's last forward and first backward, one micro-batch's time each; 0: both whole
    """

    allows: Callable[[Any, Any, Any], Any]
    in_flight: Form
    least_in_flight: Form | None = None
    pending: Form = nothing
    least_pending: Form | None = None
    ahead: Form | None = None
    gathers: Form | None = None
    fill: tuple[float, float, float] = (1.0, 1.0, 1.0)
    slack: float = 0.0
    tripled: bool = False
    round: Form | None = None
    crossings: float = 2.0
    placement: Literal["looped", "zigzag"] = "looped"
    copies: int = 1
    splits_backward: bool = False
    forwards_first: bool = False
    barriers: int = 0

    def stage_to_rank(self, pp: int, vpp: int) -> tuple[int, ...]:
        """Where the stages of all copies live, each copy's in model order."""
        one = (zigzag if self.placement == "zigzag" else looped)(pp, vpp)
        return one if self.copies == 1 else mirrored(one, pp)
