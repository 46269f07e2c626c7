"""What can be taken away of a plan, each made when it is asked for."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass

from costmodel.schema.plan import Plan


@dataclass(frozen=True)
class File:
    """``content``: makes the text. ``says``: what it is for."""

    label: str
    name: str
    mime: str
    says: str
    content: Callable[[], str]


def files_of(name: str, plan: Callable[[], Plan]) -> list[File]:
    """The plan itself, its report, its simulated step and its order of passes; ``name``: what the files are called."""
    json_type = "application/json"
    return [
        File(
            "Plan", f"{name}.plan.json", json_type, "All of it: plan run, plan show and plan explain read it.",
            lambda: plan().model_dump_json(indent=1) + "\n",
        ),
        File("Report", f"{name}.txt", "text/plain", "What plan show --explain prints.", lambda: _report(plan())),
        File("Trace", f"{name}.trace.json", json_type, "The simulated step, for Perfetto.", lambda: _trace(plan())),
        File(
            "Schedule", f"{name}.schedule.csv", "text/csv", "The order of passes as PyTorch reads it, a line a rank.",
            lambda: _schedule(plan()),
        ),
    ]  # fmt: skip


def _report(plan: Plan) -> str:
    from planner.report.console import WIDTH, ReportConsole
    from planner.report.plan import print_plan

    text = io.StringIO()
    print_plan(plan, ReportConsole(file=text, width=WIDTH, highlight=False, emoji=False), explain=True)
    return text.getvalue()


def _trace(plan: Plan) -> str:
    from planner.evaluate import evaluate_plan

    return json.dumps(evaluate_plan(plan).simulation.trace().to_chrome()) + "\n"


def _schedule(plan: Plan) -> str:
    from costmodel.passes import to_csv

    return to_csv(plan.schedule())
