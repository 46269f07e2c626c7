"""What happens with a plan once it is there: the file, the JSON or the report; and a word while it is not."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from planner.cli.files import plan_json, write_file

if TYPE_CHECKING:
    from costmodel.schema.plan import Plan
    from planner.search.run import Progress


def deliver(plan: Plan, *, explain: bool, out: Path | None, json: bool) -> None:
    """Write the plan file, if asked for; then print it as JSON or as a report. Raises InvalidSpec (unwritable file)."""
    if out is not None:
        write_file(out, plan_json(plan))
    if json:
        print(plan_json(plan), end="")
        return
    from planner.report.console import make_console
    from planner.report.plan import print_plan

    console = make_console()
    print_plan(plan, console, explain=explain)
    if out is not None:
        console.print(f"\nwritten to {out}", style="dim", highlight=False)


@contextmanager
def progress() -> Iterator[Callable[[Progress], None] | None]:
    """A line on standard error that each call rewrites and the end erases; None where that is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return

    from planner.report.progress import progress_line

    def say(progress: Progress) -> None:
        print(f"\r\x1b[2K{progress_line(progress)}", end="", file=sys.stderr, flush=True)

    try:
        yield say
    finally:
        print("\r\x1b[2K", end="", file=sys.stderr, flush=True)
