"""``plan sensitivity``: the same plan, and the best one, on a machine with one figure changed."""

from __future__ import annotations

from typing import Annotated

import typer

from costmodel.schema.errors import InvalidSpec
from planner.cli import options


def sensitivity(
    plan: options.PlanFile,
    change: Annotated[
        list[str] | None,
        typer.Option(metavar="FIGURE=FACTOR,…", help="What to change: network=2,memory=0.9 (default a dozen changes)."),
    ] = None,
    search: Annotated[
        bool, typer.Option("--search/--no-search", help="Look for the best layout under each change.")
    ] = True,
    time_limit: Annotated[float, typer.Option(metavar="SECONDS", help="For each of those searches.")] = 5.0,
    json: options.Json = False,
) -> None:
    """How a plan's step changes with the machine's figures, and which changes make another layout win.

    plan sensitivity a.json --change network=2
    """
    from planner.cli.files import read_plan
    from planner.sensitivity import CHANGES, sweep

    if not time_limit > 0:
        raise InvalidSpec(f"--time-limit {time_limit:g}: must be more than 0 seconds")
    changes = tuple(_change(text) for text in _parts(change)) or CHANGES
    read = read_plan(plan)
    found = sweep(read, changes, search, time_limit)
    if json:
        from planner.report.sensitivity import sensitivity_json

        print(sensitivity_json(read, found))
        return
    from planner.report.console import make_console
    from planner.report.sensitivity import print_sensitivity

    print_sensitivity(read, found, make_console())


def _parts(change: list[str] | None) -> list[str]:
    return [part.strip() for text in change or () for part in text.split(",") if part.strip()]


def _change(text: str) -> tuple[str, float]:
    """``network=2`` -> ("network", 2.0). Raises InvalidSpec for what is no such pair, UnknownName for the figure."""
    from planner.sensitivity import figure_named

    name, _, factor = text.partition("=")
    try:
        by = float(factor)
    except ValueError:
        raise InvalidSpec(f"--change {text!r} is not FIGURE=FACTOR", "write it like --change network=2") from None
    return figure_named(name).name, by
