"""One schedule in figures: what ``plan schedule`` prints."""

from __future__ import annotations

from collections import Counter
from typing import TypedDict

import numpy as np

from costmodel.passes import check_schedule
from costmodel.schema.schedule import Schedule
from planner.simulator.simulate import simulate
from planner.simulator.times import Array, StageTimes


class ScheduleSummary(TypedDict):
    """The JSON of ``plan schedule``. The figures are None when the schedule is not valid; ``problems`` says why.

    valid                 whether ``check_schedule`` has no complaint
    problems              its complaints
    makespan              first F to last W or B, in the unit of the times given
    bubble_fraction       1 - busy / (makespan · ranks)
    span_bubble_fraction  1 - busy / (longest first-F-to-last-W of a rank · ranks)
    peak_activations      per rank, in micro-batches of all of a rank's layers
    passes                how many, over all ranks
    order                 {rank: "0F0 0F1 0B0 …"}
    """

    valid: bool
    problems: list[str]
    makespan: float | None
    bubble_fraction: float | None
    span_bubble_fraction: float | None
    peak_activations: list[float] | None
    passes: int
    order: dict[str, str]


def schedule_summary(schedule: Schedule, f: float, b: float, w: float, comm: float) -> ScheduleSummary:
    """Check and simulate ``schedule`` with the times of ``rank_times``. Raises InvalidSpec for a negative time."""
    times = rank_times(schedule, f, b, w, comm)
    problems = check_schedule(schedule)
    summary: ScheduleSummary = {
        "valid": not problems,
        "problems": problems,
        "makespan": None,
        "bubble_fraction": None,
        "span_bubble_fraction": None,
        "peak_activations": None,
        "passes": sum(len(order) for order in schedule.orders),
        "order": schedule.to_text(),
    }
    if not problems:
        simulation = simulate(schedule, times)
        summary["makespan"] = simulation.makespan_s
        summary["bubble_fraction"] = simulation.bubble_fraction
        summary["span_bubble_fraction"] = simulation.span_bubble_fraction
        summary["peak_activations"] = simulation.peak_activations(rank_shares(schedule)).tolist()
    return summary


def rank_times(schedule: Schedule, f: float, b: float, w: float, comm: float) -> StageTimes:
    """Times of stages from times of ranks: ``f``, ``b`` (input gradient) and ``w`` (weight gradient) are what all of a
    rank's layers take for one micro-batch, shared equally by its stages; ``comm`` is the delay of an edge between two
    ranks. Raises InvalidSpec for a negative time.
    """
    share = rank_shares(schedule)
    return StageTimes(f * share, b * share, w * share, edge_s=comm)


def rank_shares(schedule: Schedule) -> Array:
    """Each stage's share of its rank's layers, all of a rank's stages of one copy alike; shape ``[num_stages]``."""
    stages_on_rank = Counter(schedule.stage_to_rank)
    return np.array([schedule.copies / stages_on_rank[rank] for rank in schedule.stage_to_rank])
