"""What ``plan run`` left behind, read back: the measured timeline of a run's last step."""

from __future__ import annotations

from pathlib import Path

from costmodel.schema.base import Spec
from costmodel.schema.errors import InvalidSpec
from costmodel.schema.layout import Layout
from costmodel.schema.plan import Plan
from costmodel.schema.trace import Trace

RECORD = "*.runs.json"
"""What ``plan run PLAN.json`` adds its runs to, beside the plan."""


class MeasuredFigures(Spec):
    """Of a run's figures the one that is shown."""

    model_config = {"extra": "ignore"}

    step_time_s: float


class MeasuredRun(Spec):
    """Of one run of a record what is drawn. ``trace``: the passes of its last step, where they were timed."""

    model_config = {"extra": "ignore"}

    date: str
    schedule: str
    layout: Layout
    measured: MeasuredFigures
    trace: Trace | None = None

    def is_of(self, plan: Plan) -> bool:
        """Whether it ran the plan's own layout and schedule."""
        return (self.layout, self.schedule) == (plan.layout, plan.pipeline.schedule)


class _Record(Spec):
    model_config = {"extra": "ignore"}

    runs: tuple[MeasuredRun, ...]


def find_run(place: str, plan: Plan) -> MeasuredRun:
    """The last run with a timeline in a folder or a record file, one of ``plan``'s own layout before all others.

    Raises InvalidSpec where there is none, saying what is there instead.
    """
    path = Path(place).expanduser()
    if not (path.is_dir() or path.is_file()):
        raise InvalidSpec(f"{place} is not there", "name the folder in which plan run left NAME.runs.json")
    files = sorted(path.glob(RECORD)) if path.is_dir() else [path]
    if not files:
        raise InvalidSpec(f"{place} holds no {RECORD}", "plan run PLAN.json writes one beside the plan")
    runs: list[MeasuredRun] = []
    for file in files:
        try:
            runs += read_runs(file.read_text(encoding="utf-8"), file.name)
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidSpec(f"{file} cannot be read: {error}") from None
    return choose_run(runs, place, plan)


def read_runs(text: str, name: str) -> list[MeasuredRun]:
    """The runs of a record, oldest first. Raises InvalidSpec for what is none."""
    return list(_Record.load_json(text, name).runs)


def choose_run(runs: list[MeasuredRun], place: str, plan: Plan) -> MeasuredRun:
    """The last with a timeline, one of ``plan``'s own layout before all others. Raises InvalidSpec for none."""
    timed = [run for run in reversed(runs) if run.trace is not None and run.trace.events]
    if not timed:
        raise InvalidSpec(
            f"no run in {place} has a timeline", "plan run times passes of plans with pp > 1 on processors"
        )
    return next((run for run in timed if run.is_of(plan)), timed[0])
