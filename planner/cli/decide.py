"""One number of GPUs is a search; several are a curve, and a deadline asks which."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from planner.cli.answer import deliver, progress
from planner.cli.files import plan_json, write_text
from planner.decisions.counts import parse_counts
from planner.decisions.training import check_in_time, with_training

if TYPE_CHECKING:
    from planner.decisions.curve import Curve
    from planner.decisions.question import Question
    from planner.request import Request

INTERRUPTED = 130


def decide(
    ask: Callable[[int | None, int | None], Request],
    gpus: str | None,
    question: Question,
    *,
    explain: bool,
    out: Path | None,
    json: bool,
) -> None:
    """Answer the question and print it. ``ask`` gives the request for a number of GPUs and a global batch size."""
    from planner.search import find_plan

    counts = None if gpus is None else parse_counts(gpus)
    if counts is None or len(counts) == 1:
        request = ask(None if counts is None else counts[0], None)
        with progress() as say:
            plan = with_training(find_plan(request, say), question)
        check_in_time(plan)
        deliver(plan, explain=explain, out=out, json=json)
        return
    from planner.decisions.curve import check_answered, scan

    with progress() as say:
        curve = scan(find_plan, ask, counts, question, say)
    check_answered(curve, question)
    _deliver_curve(curve, question, out=out, json=json)
    if curve.interrupted:
        raise typer.Exit(INTERRUPTED)


def _deliver_curve(curve: Curve, question: Question, *, out: Path | None, json: bool) -> None:
    from planner.decisions.document import to_document

    chosen = None if curve.chosen is None else curve.chosen.plan
    if out is not None and chosen is not None:
        write_text(out, plan_json(chosen))
    if json:
        print(to_document(curve).model_dump_json(indent=1))
        return
    from planner.report.console import make_console
    from planner.report.curve import print_curve

    console = make_console()
    print_curve(curve, question, console)
    if out is not None and chosen is not None:
        console.print(f"\nthe plan for {chosen.cluster.num_devices:,} GPUs is written to {out}", style="dim")
