"""``plan run``: do what a plan says."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from costmodel.schema.errors import InvalidSpec
from planner.cli import options


def run(
    plan: options.PlanFile,
    steps: Annotated[int, typer.Option(metavar="N", help="How many training steps.")] = 20,
    data: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Text to train on; default Python's own sources.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Go on from the checkpoint there, and leave the next one.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The record to add this run to; default beside the plan.")
    ] = None,
    pace: Annotated[
        bool,
        typer.Option(
            "--pace", help="On a CPU: stretch each pass, so that ranks that share cores act as separate devices."
        ),
    ] = False,
) -> None:
    """Train as a plan says, and print measured beside predicted."""
    from planner.cli.files import check_writable, plan_json, read_plan, write_file

    if steps < 1:
        raise InvalidSpec(f"--steps {steps}: must be a whole number from 1")
    if data is not None and not data.exists():
        raise InvalidSpec(f"--data {data}: there is no such file or folder")
    if resume is not None and resume.exists() and not resume.is_dir():
        raise InvalidSpec(f"--resume {resume}: a checkpoint is a folder, and this is a file", "name a folder")
    check_writable(out)
    whole = read_plan(plan)
    require_torch()
    from executor.launch import run_plan

    extras = {"data": _text(data), "resume": _text(resume), "out": _text(out), "pace": pace}
    if plan != "-":
        raise typer.Exit(run_plan(plan, steps, **extras))
    with tempfile.TemporaryDirectory(prefix="parlay-") as folder:
        path = Path(folder, "plan.json")
        write_file(path, plan_json(whole))
        raise typer.Exit(run_plan(path, steps, **extras))


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def require_torch() -> None:
    """Raises InvalidSpec, naming the extra to install, where torch is missing."""
    from importlib.util import find_spec

    if find_spec("torch") is None:
        raise InvalidSpec("this command needs PyTorch, which is not installed", "pip install 'parlay[torch]'")
