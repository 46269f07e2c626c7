"""``plan trace``: a plan's simulated step as a timeline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from planner.cli import options


def trace(
    plan: options.PlanFile,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to write it; default standard output.")
    ] = None,
) -> None:
    """Simulate a plan's own order of passes and write the timeline, which Perfetto opens."""
    import json

    from planner.cli.files import check_writable, read_plan, write_file

    check_writable(out)
    whole = read_plan(plan)
    from planner.evaluate import evaluate_plan

    text = json.dumps(evaluate_plan(whole).simulation.trace().to_chrome()) + "\n"
    if out is None:
        print(text, end="")
    else:
        write_file(out, text)
