"""One number of GPUs is a search; several are a curve; none at all, with a deadline, asks how many."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from costmodel.schema.errors import InvalidSpec
from planner.cli.answer import deliver, progress
from planner.cli.files import check_writable, plan_json, write_file

if TYPE_CHECKING:
    from planner.decisions.curve import Curve
    from planner.decisions.question import Ask, Question
    from planner.sizes import Sizes

INTERRUPTED = 130


def decide(
    ask: Ask,
    sizes: Callable[[], Sizes],
    gpus: str | None,
    question: Question,
    *,
    pareto: bool,
    explain: bool,
    out: Path | None,
    plot: Path | None,
    json: bool,
) -> None:
    """Answer the question and print it. ``ask`` gives the request for a number of GPUs and a global batch size;
    ``sizes`` the numbers of them that there can be."""
    from planner.decisions.counts import parse_counts

    counts = None if gpus is None else parse_counts(gpus)
    how_many = counts is None and question.deadline_s is not None
    if pareto and counts is None:
        raise InvalidSpec("--pareto: needs --gpus, on which numbers of them", "like --gpus 64 or --gpus 8..1024")
    one = not pareto and (counts is None or len(counts) == 1)
    if one and plot is not None:
        raise InvalidSpec(f"--plot {plot}: draws a curve over several numbers of GPUs", "like --gpus 8..1024")
    if one and not how_many:
        _deliver_one(ask, None if counts is None else counts[0], question, explain=explain, out=out, json=json)
        return
    check_writable(plot)
    if plot is not None:
        from planner.report.scatter import check_plot

        check_plot(plot)
    curve = _curve(ask, sizes, counts, question, pareto)
    if curve.interrupted and not curve.found:
        print(f"interrupted before a number of GPUs was in time. {curve.said}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED)
    _deliver_curve(curve, question, out=out, plot=plot, json=json)
    if curve.interrupted:
        raise typer.Exit(INTERRUPTED)


def _deliver_one(
    ask: Ask, devices: int | None, question: Question, *, explain: bool, out: Path | None, json: bool
) -> None:
    from planner.decisions.curve import find_run
    from planner.decisions.training import check_in_time, without_unasked
    from planner.search import find_plan

    with progress() as say:
        plan = without_unasked(find_run(find_plan, ask, devices, question, say), question)
    check_in_time(plan)
    deliver(plan, explain=explain, out=out, json=json)


def _curve(
    ask: Ask,
    sizes: Callable[[], Sizes],
    counts: tuple[int, ...] | None,
    question: Question,
    pareto: bool,
) -> Curve:
    from planner.decisions.curve import check_answered, scan
    from planner.decisions.fewest import find_fewest
    from planner.decisions.less_memory import SHARES
    from planner.search import find_plan

    with progress() as say:
        if counts is None:
            curve = find_fewest(find_plan, ask, sizes(), question, say)
        else:
            curve = scan(find_plan, ask, counts, question, say, SHARES if pareto else (1.0,))
    if not curve.interrupted:
        check_answered(curve, question)
    return curve


def _deliver_curve(curve: Curve, question: Question, *, out: Path | None, plot: Path | None, json: bool) -> None:
    chosen = None if curve.chosen is None else curve.chosen.plan
    written = []
    if out is not None and chosen is not None:
        write_file(out, plan_json(chosen))
        written.append(f"the plan for {chosen.cluster.num_devices:,} GPUs is written to {out}")
    if plot is not None:
        from planner.report.curve_plot import draw_curve

        write_file(plot, draw_curve(curve, question, plot))
        written.append(f"the curve is drawn in {plot}")
    if json:
        from planner.decisions.document import to_document

        print(to_document(curve).model_dump_json(indent=1))
        return
    from planner.report.console import make_console
    from planner.report.curve import print_curve

    console = make_console()
    print_curve(curve, question, console)
    for sentence in written:
        console.print(f"\n{sentence}", style="dim", highlight=False)
