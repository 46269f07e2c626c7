"""One pipeline schedule: its figures and its drawing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.report.console import ReportConsole
from planner.report.units import percent, plural
from planner.simulator.drawing import draw

if TYPE_CHECKING:
    from planner.schedules.report import ScheduleSummary
    from planner.simulator import Simulation

MOST_PEAKS = 64
"""Ranks whose peaks are listed one by one."""


def print_schedule(
    simulation: Simulation, summary: ScheduleSummary, console: ReportConsole, transfers: bool = False
) -> None:
    """The figures of ``summary`` in words, then one row a rank with time from left to right; ``transfers``: and one of
    its gathers and reductions.
    """
    schedule = simulation.schedule
    chunks = schedule.stages_per_copy // schedule.num_ranks
    shape = f"{plural(schedule.num_ranks, 'rank')}, {plural(schedule.num_microbatches, 'micro-batch')}"
    shape += f", {chunks} chunks a rank" if chunks > 1 else ""
    shape += f", {schedule.copies} copies of the model" if schedule.copies > 1 else ""
    console.print(f"[bold]{schedule.name}[/bold]: {shape}")
    peaks = summary["peak_activations"] or []
    console.print(
        f"makespan {simulation.makespan_s:g}   bubble {percent(simulation.bubble_fraction)} of all, "
        f"{percent(simulation.span_bubble_fraction)} of the longest rank's span   {summary['passes']:,} passes"
    )
    if summary["step"] is not None:
        console.print(f"step with its optimizer {summary['step']:g}")
    few = len(peaks) <= MOST_PEAKS
    listed = ", ".join(f"{peak:g}" for peak in peaks) if few else f"{min(peaks):g} to {max(peaks):g}"
    console.print(f"peak activations per rank, in micro-batches: {listed}\n")
    console.print(draw(simulation, width=console.width, markup=True, transfers=transfers), soft_wrap=True)
