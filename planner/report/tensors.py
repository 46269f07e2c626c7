"""Where the plan puts every tensor."""

from __future__ import annotations

from rich.markup import escape

from costmodel.schema.plan import Plan
from planner.report.console import ReportConsole, grid, heading, indented


def print_tensors(plan: Plan, console: ReportConsole) -> None:
    """A line for each matrix of each layer kind, for gradients, moments and activations; none on one device."""
    axes = [
        axis for axis in (*plan.layout.order, "etp", "ep", "edp") if any(axis in one.placements for one in plan.tensors)
    ]
    if not axes:
        return
    heading(console, "Tensors", "a DTensor placement for every axis of more than one rank")
    table = grid("", ">shape", *axes)
    for one in plan.tensors:
        shape = " × ".join(f"{size:,}" for size in one.shape)
        table.add_row(escape(one.tensor), shape, *(one.placements.get(axis, "") for axis in axes))
    console.print(indented(table))
