"""A plan's pipeline: its bubble, what its order keeps alive, and the order drawn over time."""

from __future__ import annotations

from costmodel.schema.plan import Plan
from planner.evaluate import evaluate_plan
from planner.kept import count_kept_microbatches
from planner.report.console import ReportConsole, heading
from planner.report.units import percent, seconds
from planner.simulator.drawing import draw


def print_pipeline(plan: Plan, console: ReportConsole) -> None:
    """The plan's own order of passes with its own times. Nothing where there is one rank."""
    if plan.layout.pp == 1:
        return
    evaluated = evaluate_plan(plan)
    simulation, schedule = evaluated.simulation, evaluated.schedule
    heading(console, "Pipeline")
    copies = f", {schedule.copies} copies of the model" if schedule.copies > 1 else ""
    console.print(
        f"  {schedule.name}: {schedule.num_stages} stages on {schedule.num_ranks} ranks{copies};"
        f" {seconds(simulation.makespan_s)}, bubble {percent(simulation.bubble_fraction)}"
    )
    alive = count_kept_microbatches(schedule).in_flight[0].tolist()
    console.print(f"  micro-batches alive per rank at most: {', '.join(f'{most:g}' for most in alive)}\n")
    console.print(draw(simulation, width=console.width, markup=True), soft_wrap=True)
