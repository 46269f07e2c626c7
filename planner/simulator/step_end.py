"""The optimizer at the end of a step, behind a barrier or without one.

    with a barrier      every rank updates once all gradients are there and their global norm is known
    post-validation     rank r updates once its own gradients and the norm so far, handed on from rank r - 1, are there;
                        the whole norm comes back during the next step's warm-up, where each rank checks its update

Source: Qi et al. 2023, "Zero Bubble Pipeline Parallelism", section 4.
Leaves out: updates that the validation takes back and repeats; cores shared with other ranks' last passes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from planner.simulator.side_times import checked_column
from planner.simulator.times import Array


@dataclass(frozen=True, eq=False)
class StepEnd:
    """``optimizer_s``: the update, shape ``[num_ranks]`` or a scalar. ``norm_s``: reducing the norm over all ranks;
    under post-validation ``hop_s``, handing it on to the next rank, and ``validation_s`` of each rank take its place.

    Raises InvalidSpec for a negative or non-finite time.
    """

    optimizer_s: ArrayLike
    norm_s: float = 0.0
    post_validation: bool = False
    hop_s: float = 0.0
    validation_s: float = 0.0

    def __post_init__(self) -> None:
        for name in ("optimizer_s", "norm_s", "hop_s", "validation_s"):
            checked_column(name, getattr(self, name))


@dataclass(frozen=True, eq=False)
class WholeStep:
    """``start_s``, ``finish_s``: when each rank updates, shape ``[ranks]``. ``step_s``: from one step to the next.

    That is first start to last update; or without a barrier the longest rank's own first start to the end of its update
    and its validation, as a next step of the same shape can start as early.
    """

    start_s: Array
    finish_s: Array
    step_s: float


def whole_step(first_start_s: Array, last_finish_s: Array, end: StepEnd) -> WholeStep:
    """From each rank's own first start and last end; shapes ``[ranks]``."""
    optimizer_s = np.broadcast_to(np.asarray(end.optimizer_s, dtype=np.float64), last_finish_s.shape)
    if not end.post_validation:
        start_s = np.full(last_finish_s.shape, last_finish_s.max() + end.norm_s)
        finish_s = start_s + optimizer_s
        return WholeStep(start_s, finish_s, float(finish_s.max() - first_start_s.min()))
    hops_s = end.hop_s * np.arange(len(last_finish_s))
    start_s = np.maximum.accumulate(last_finish_s - hops_s) + hops_s
    finish_s = start_s + optimizer_s
    return WholeStep(start_s, finish_s, float((finish_s + end.validation_s - first_start_s).max()))
