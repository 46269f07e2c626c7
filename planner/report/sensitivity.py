"""The table of a sensitivity sweep: what each change does to the plan's step, and who wins then."""

from __future__ import annotations

import json
from dataclasses import asdict

from rich.markup import escape

from costmodel.schema.plan import Plan
from planner.report.console import ReportConsole, grid, heading, indented
from planner.report.units import percent, seconds
from planner.sensitivity import FIGURES, Outcome, Sensitivity

MARGIN = 0.01
"""Share of the step by which another layout must be faster before it is said to win: the default gap of a search."""


def print_sensitivity(plan: Plan, found: Sensitivity, console: ReportConsole) -> None:
    """Changes one a line, then elasticities, largest first."""
    base = found.base
    console.print(
        f"[bold]{escape(plan.model.name)}[/bold]: {seconds(base.step_time_s)} a step, P(fits)"
        f" {percent(base.fits_probability)}"
    )
    heading(console, "One figure changed", "the same plan, and whether another layout would win")
    says = [_says(plan, one) for one in found.outcomes]
    table = grid("", ">times", ">step", ">change", ">P(fits)", *([""] if any(says) else []))
    for one, said in zip(found.outcomes, says, strict=True):
        share = one.plan.step_time_s / base.step_time_s - 1.0
        table.add_row(
            one.figure.replace("_", " "),
            f"{one.factor:g}",
            seconds(one.plan.step_time_s),
            f"{share * 100:+.1f}%",
            percent(one.plan.fits_probability),
            *([escape(said)] if any(says) else []),
        )
    console.print(indented(table))
    heading(console, "Elasticity", "d ln step / d ln figure: -0.8 = one percent more of it saves 0.8 percent")
    table = grid("", ">", "")
    for name, value in sorted(found.elasticities.items(), key=lambda pair: -abs(pair[1])):
        table.add_row(name.replace("_", " "), f"{value:+.3f}", f"[dim]{FIGURES[name].says}[/dim]")
    console.print(indented(table))


def _says(plan: Plan, one: Outcome) -> str:
    if one.reason is not None:
        return one.reason
    if one.best_step_time_s is None or one.best_line is None:
        return ""
    if not one.wins(MARGIN, plan.constraints.fit_probability):
        return "stays best"
    if one.plan.fits_probability < plan.constraints.fit_probability:
        return f"does not fit; {seconds(one.best_step_time_s)} with {one.best_line}"
    faster = one.plan.step_time_s / one.best_step_time_s - 1.0
    return f"{percent(faster)} faster: {one.best_line}"


def sensitivity_json(plan: Plan, found: Sensitivity) -> str:
    """The same as JSON: ``base``, ``outcomes`` with ``wins``, ``elasticities``."""
    document = asdict(found)
    for entry, one in zip(document["outcomes"], found.outcomes, strict=True):
        entry["wins"] = one.wins(MARGIN, plan.constraints.fit_probability)
    return json.dumps(document, indent=1)
