"""Published runs whose layout is known whole: priced exactly as they were laid out, and asked again with every degree
pinned and nothing said of recomputation.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from costmodel.gemm import peak_flops_per_s
from costmodel.schema.base import Spec
from costmodel.schema.errors import Infeasible, InvalidSpec
from costmodel.schema.layout import Layout, RecomputePolicy
from costmodel.schema.plan import Plan
from costmodel.schema.workload import Precision
from planner.constraints.keys import KEYS
from planner.constraints.techniques import optimizer_technique
from planner.predict import predict_plan
from planner.request import Request, build_request
from planner.search.find import find_plan


class PublishedRun(Spec):
    """One run: what was trained on what, every degree of its layout, and the figure that its authors give.

    At most one of ``step_time_s``, ``tflops_per_gpu`` and ``mfu``; the latter two count 6 FLOPs per active parameter
    and token and causal attention, as predictions do, and ``mfu`` refers to the datasheet's dense peak.
    ``unstated``: what the source leaves open and how it was filled in. ``miss``: why the prediction is known to be off.
    """

    name: str
    model: str
    gpu: str
    gpus: PositiveInt
    runtime: str
    precision: Precision
    seq_len: PositiveInt
    global_batch_size: PositiveInt
    layout: Layout
    schedule: str
    recompute: RecomputePolicy = "none"
    moe_capacity_factor: PositiveFloat | None = None
    step_time_s: PositiveFloat | None = None
    tflops_per_gpu: PositiveFloat | None = None
    mfu: float | None = Field(default=None, gt=0, lt=1)
    unstated: str = ""
    miss: str = ""
    source: str
    date: str

    @model_validator(mode="after")
    def _one_figure(self) -> PublishedRun:
        figures = [self.step_time_s, self.tflops_per_gpu, self.mfu]
        if sum(figure is not None for figure in figures) > 1:
            raise ValueError("give one of step_time_s, tflops_per_gpu and mfu")
        return self


@dataclass(frozen=True)
class JudgedRun:
    """A published run beside its prediction: ``plan`` as it was run, ``pinned`` as ``find_pinned`` answers.
    ``published_s``: seconds a step, None where no figure is given.
    """

    run: PublishedRun
    plan: Plan
    pinned: Plan | None
    published_s: float | None

    @property
    def ratio(self) -> float | None:
        """Predicted over published step time."""
        return self._ratio(self.plan)

    @property
    def pinned_ratio(self) -> float | None:
        """The pinned answer's predicted over the run's published step time."""
        return None if self.pinned is None else self._ratio(self.pinned)

    def _ratio(self, plan: Plan) -> float | None:
        return None if self.published_s is None else plan.prediction.step_time_s.mean / self.published_s

    @property
    def covered(self) -> bool:
        """Whether the published time lies in the prediction's own 90% interval; nothing given is nothing missed."""
        step = self.plan.prediction.step_time_s
        return self.published_s is None or step.low <= self.published_s <= step.high

    @property
    def fits(self) -> bool:
        return self.plan.prediction.memory.fits_probability >= 0.5


def load_published(path: Path) -> tuple[PublishedRun, ...]:
    """The ``[[run]]`` entries of a TOML file. Raises InvalidSpec for a malformed file or entry."""
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8")).get("run", [])
    except tomllib.TOMLDecodeError as error:
        raise InvalidSpec(f"{path} is not whole TOML: {error}") from None
    return tuple(PublishedRun.load(entry, f"{path.name}, run {number}") for number, entry in enumerate(entries, 1))


def request_of(run: PublishedRun, fix: tuple[str, ...] = (), allow: tuple[str, ...] = ()) -> Request:
    """What the run would have asked the planner, under the shipped fit and no calibration of one's own."""
    return build_request(
        run.model,
        run.gpus,
        gpu=run.gpu,
        runtime=run.runtime,
        precision=run.precision,
        seq_len=run.seq_len,
        global_batch_size=run.global_batch_size,
        moe_capacity_factor=run.moe_capacity_factor,
        calibration="none",
        fix=fix,
        allow=allow,
    )


def find_pinned(run: PublishedRun) -> Plan | None:
    """The search's own answer with the run's degrees, schedule and sharding pinned: it chooses what to recompute, for a
    P(fits) of 0.95 at least. None where nothing that the runtime can recompute is enough.
    """
    said = {name: getattr(run.layout, name) for name in KEYS if name in Layout.model_fields and name != "order"}
    fix = (*(f"{name}={str(value).lower()}" for name, value in said.items()), f"schedule={run.schedule}")
    lossy = run.layout.optimizer_format
    allow = () if lossy == "fp32" else (optimizer_technique(lossy),)
    try:
        return find_plan(request_of(run, fix, allow=allow))
    except Infeasible:
        return None


def judge_run(run: PublishedRun) -> JudgedRun:
    """Price the run's own layout, and ask for it. Raises InvalidSpec where it contradicts model, machine or runtime."""
    request = request_of(run)
    plan = predict_plan(request, run.layout, run.schedule, run.recompute)
    published_s = run.step_time_s
    if run.tflops_per_gpu is not None or run.mfu is not None:
        peak = peak_flops_per_s(request.device, run.precision)
        rate = run.tflops_per_gpu * 1e12 if run.tflops_per_gpu is not None else (run.mfu or 0.0) * peak
        published_s = plan.prediction.model_flops_per_step / (run.gpus * rate)
    return JudgedRun(run, plan, find_pinned(run), published_s)
