"""``plan explain``: why a plan costs what it costs, alone or against another plan or layout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from costmodel.schema.errors import InvalidSpec
from planner.cli import options


def explain(
    plan: options.PlanFile,
    against: Annotated[
        str | None, typer.Option(metavar="PLAN|tp=8,pp=4", help="The plan, or the layout, to hold it against.")
    ] = None,
) -> None:
    """Explain a plan: every layer and term, and what binds; with --against, what differs from another plan, or why not
    another layout.

    plan explain a.json --against tp=8,pp=4
    """
    from planner.binding import what_binds
    from planner.cli.files import read_plan
    from planner.report.console import make_console
    from planner.report.proof import print_sentences

    if plan == against == "-":
        raise InvalidSpec("both plans are -, and standard input can be read once only", "name a file for one of them")
    first, console = read_plan(plan), make_console()
    if against is None:
        from planner.report.plan import print_plan

        # Before anything is printed: it prices the plan's own fields, and refuses those that were edited amiss.
        limiting = [one.says for one in what_binds(first)]
        print_plan(first, console, explain=True)
        print_sentences("What binds", limiting, console)
        return
    from planner.report.compare import print_comparison

    left_out: tuple[str, ...] = ()
    if _names_layout(against):
        from planner.against import as_asked, find_against

        found = find_against(first, against)
        second, left_out = found.plan, found.left_out
        limiting = [as_asked(one.says) for one in what_binds(second)]
    else:
        second = read_plan(against)
        limiting = [one.says for one in what_binds(second)]
    print_comparison(first, second, console, names=(plan, against))
    print_sentences("Why B was not weighed", left_out, console)
    print_sentences("What binds A", [one.says for one in what_binds(first)], console)
    print_sentences("What binds B", limiting, console)


def _names_layout(text: str) -> bool:
    """``tp=8,pp=4``; a file may have such a name, and is then meant."""
    return "=" in text and not Path(text).exists()
