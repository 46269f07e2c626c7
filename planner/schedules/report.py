"""One schedule in figures: what ``plan schedule`` prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np

from costmodel.passes import check_schedule
from costmodel.schema.schedule import VOCAB_KINDS, PassKind, Schedule
from planner.simulator.side_times import FrozenTimes, VocabTimes
from planner.simulator.simulate import simulate
from planner.simulator.simulation import Simulation
from planner.simulator.step_end import StepEnd
from planner.simulator.times import Array, StageTimes


class ScheduleSummary(TypedDict):
    """The JSON of ``plan schedule``. The figures are None when the schedule is not valid; ``problems`` says why.

    valid                 whether ``check_schedule`` has no complaint
    problems              its complaints
    makespan              first F to last W or B, in the unit of the times given
    bubble_fraction       1 - busy / (makespan · ranks)
    span_bubble_fraction  1 - busy / (longest first-F-to-last-W of a rank · ranks)
    peak_activations      per rank, in micro-batches of all of a rank's layers
    step                  the optimizer included, where one is given
    passes                how many, over all ranks
    order                 {rank: "0F0 0F1 0B0 …"}
    """

    valid: bool
    problems: list[str]
    makespan: float | None
    bubble_fraction: float | None
    span_bubble_fraction: float | None
    peak_activations: list[float] | None
    step: float | None
    passes: int
    order: dict[str, str]


def schedule_summary(
    schedule: Schedule, f: float, b: float, w: float, comm: float, *, end: StepEnd | None = None, **more: Any
) -> ScheduleSummary:
    """Check and simulate ``schedule`` with the times of ``rank_times``; ``more``: its further times.

    Raises InvalidSpec for a negative time.
    """
    times = rank_times(schedule, f, b, w, comm, **more)
    problems = check_schedule(schedule)
    simulation = None if problems else simulate(schedule, times)
    return summarize(schedule, problems, simulation, end)


def summarize(
    schedule: Schedule, problems: list[str], simulation: Simulation | None, end: StepEnd | None = None
) -> ScheduleSummary:
    """The figures of a simulation that was run already; None where the schedule has problems."""
    summary: ScheduleSummary = {
        "valid": not problems,
        "problems": problems,
        "makespan": None,
        "bubble_fraction": None,
        "span_bubble_fraction": None,
        "peak_activations": None,
        "step": None,
        "passes": sum(len(order) for order in schedule.orders),
        "order": schedule.to_text(),
    }
    if simulation is not None:
        summary["makespan"] = simulation.makespan_s
        summary["bubble_fraction"] = simulation.bubble_fraction
        summary["span_bubble_fraction"] = simulation.span_bubble_fraction
        summary["peak_activations"] = simulation.peak_activations(rank_shares(schedule)).tolist()
        summary["step"] = None if end is None else simulation.whole_step(end).step_s
    return summary


def rank_times(
    schedule: Schedule,
    f: float,
    b: float,
    w: float,
    comm: float,
    *,
    recompute: float = 0.0,
    wire: float = 0.0,
    gather: float = 0.0,
    reduce: float = 0.0,
    vocab: float = 0.0,
    frozen: Sequence[float] = (),
) -> StageTimes:
    """Times of stages from times of ranks: ``f``, ``b`` (input gradient) and ``w`` (weight gradient) are what all of a
    rank's layers take for one micro-batch, shared equally by its stages of one copy; ``comm`` is the delay of an edge
    between two ranks. ``gather`` and ``reduce`` are of all of a rank's layers, too; ``recompute`` is what a micro-batch
    recomputes in them, ``wire`` how long one message occupies a link. ``vocab``: the whole output layer's forward,
    where it is split over the ranks; either of its gradients takes as long. ``frozen``: each piece of a frozen model.
    Raises InvalidSpec for a negative time.
    """
    share = rank_shares(schedule)
    part = vocab / schedule.num_ranks
    # VOCAB_F makes the input gradient too where VOCAB_W makes the other; VOCAB_B makes both.
    once = PassKind.VOCAB_WEIGHT_GRAD in schedule.kinds
    vocabulary = VocabTimes(forward_s=2 * part if once else part, backward_s=2 * part, weight_grad_s=part)
    return StageTimes(
        f * share,
        b * share,
        w * share,
        recompute * share,
        edge_s=comm,
        gather_s=gather * share,
        reduce_s=reduce * share,
        wire_s=wire,
        vocab=vocabulary if VOCAB_KINDS & schedule.kinds else None,
        frozen=FrozenTimes(np.array(frozen, dtype=np.float64)) if len(frozen) else None,
    )


def rank_shares(schedule: Schedule) -> Array:
    """Each stage's share of its rank's layers; shape ``[num_stages]``.

    A rank's stages of one copy share its layers equally; another copy has all of them once more.
    """
    homes = [(stage // schedule.stages_per_copy, rank) for stage, rank in enumerate(schedule.stage_to_rank)]
    stages_there = Counter(homes)
    return np.array([1.0 / stages_there[home] for home in homes])
