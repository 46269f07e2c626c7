"""What runs measured, beside what their plan predicted: a JSON file that grows run by run. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from costmodel.schema.base import Spec
from costmodel.schema.errors import InvalidSpec
from costmodel.schema.files import write_whole
from costmodel.schema.layout import Layout
from costmodel.schema.plan import Plan
from costmodel.schema.trace import Trace


class Step(Spec):
    """One training step as measured. ``timed``: counts towards the mean (not warming up, not measuring memory)."""

    step: int
    loss: float
    step_time_s: float
    timed: bool


class Figures(Spec):
    """The figures that are compared. Memory is the worst rank's; ``allocated_bytes``: tensors, on the CPU live ones."""

    step_time_s: float
    tokens_per_s: float
    allocated_bytes: float
    reserved_bytes: float
    host_bytes: float

    @classmethod
    def predicted(cls, plan: Plan) -> Figures:
        """What ``plan`` predicts for the whole job."""
        prediction = plan.prediction
        return cls(
            step_time_s=prediction.step_time_s.mean,
            tokens_per_s=plan.workload.tokens_per_step / prediction.step_time_s.mean,
            allocated_bytes=prediction.memory.allocated_bytes,
            reserved_bytes=prediction.memory.reserved_bytes,
            host_bytes=prediction.memory.host_bytes,
        )


class Run(Spec):
    """One run of one plan. ``pace_unit_s``: prescribed seconds per layer and direction of a paced run, else 0.

    ``trace``: the passes of the last step, from its first pass on; None where they are not timed (pp = 1, CUDA).
    """

    date: str
    host: str
    torch_version: str
    model: str
    device: str
    world_size: int
    schedule: str
    layout: Layout
    steps: tuple[Step, ...]
    measured: Figures
    predicted: Figures
    rss_bytes: float
    pace_unit_s: float = 0.0
    trace: Trace | None = None


class RunRecord(Spec):
    """Runs in the order in which they ended."""

    schema_version: Literal[1] = 1
    runs: tuple[Run, ...] = ()


def load_record(path: Path) -> RunRecord:
    """Read a record; one without runs where there is no file. Raises InvalidSpec when it is not a record."""
    return RunRecord.load_json(path.read_text(), str(path)) if path.exists() else RunRecord()


def append_run(path: Path, run: Run) -> None:
    """Add ``run`` to the record at ``path``. The file is replaced whole: a reader never sees half of it."""
    record = load_record(path)
    grown = RunRecord(runs=(*record.runs, run))
    try:
        write_whole(path, grown.model_dump_json(indent=1))
    except OSError as error:
        raise InvalidSpec(
            f"out = {str(path)!r} cannot be written: {error.strerror}", "give --out a path in a writable folder"
        ) from None
