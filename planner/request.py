"""Request: one question to the planner, with every name resolved and every default said aloud."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from costmodel.calibration.store import load_fit
from costmodel.catalog.fit import NO_FIT
from costmodel.catalog.toml_file import read_toml
from costmodel.schema.calibration import Calibration
from costmodel.schema.cluster import ClusterSpec, DeviceSpec
from costmodel.schema.errors import InvalidSpec
from costmodel.schema.fit import Fit
from costmodel.schema.model import ModelSpec
from costmodel.schema.plan import Plan, PlanConstraints
from costmodel.schema.runtime import Runtime
from costmodel.schema.workload import Workload
from planner.constraints import (
    Constraints,
    check_agreement,
    check_request,
    check_runtime,
    check_world,
    read_constraints,
)
from planner.machine import find_calibration, hold_free, load_machine
from planner.workload import build_workload


@dataclass(frozen=True, kw_only=True)
class Request(Constraints):
    """What to plan for, and within which limits: what the user took out of the search's hands, and the rest.

    ``device``: of the cluster's first group of nodes; ``other_devices``: of its further unlike groups, in order.
    ``free_bytes``: already taken from ``device``.
    ``fit_probability``: the least P(fits) of a feasible layout. ``gap``: stop when (best - bound) / best is below.
    ``within_s``: layouts whose step takes no less are no answer, and are not looked for. ``enough_s``: a
    layout whose step takes no more ends the search.
    ``robust``: the best plan under what is not known of the model's figures, not the fastest by mean.
    ``assumptions``: one sentence for everything that was defaulted.
    """

    model: ModelSpec
    device: DeviceSpec
    cluster: ClusterSpec
    workload: Workload
    runtime: Runtime
    calibration: Calibration | None = None
    fit: Fit = NO_FIT
    fit_probability: float = 0.95
    gap: float = 0.01
    time_limit_s: float = 60.0
    within_s: float = math.inf
    enough_s: float = 0.0
    top: int = 5
    robust: bool = False
    assumptions: tuple[str, ...] = ()
    other_devices: tuple[DeviceSpec, ...] = ()

    @property
    def devices_said(self) -> str:
        """``64 h100``, ``32 h100 + 64 a100-80g``."""
        if not self.other_devices:
            return f"{self.cluster.num_devices} {self.device.name}"
        groups, devices = self.cluster.unlike_groups, (self.device, *self.other_devices)
        return " + ".join(f"{group.num_devices} {one.name}" for group, one in zip(groups, devices, strict=True))


def build_request(
    model: str,
    gpus: int | None = None,
    *,
    gpu: str | None = None,
    cluster: str | Path | None = None,
    gpus_per_node: int | None = None,
    seq_len: int | None = None,
    global_batch_size: int | None = None,
    precision: str | None = None,
    optimizer: str | None = None,
    grad_reduce_dtype: str | None = None,
    moe_imbalance: float | None = None,
    moe_capacity_factor: float | None = None,
    compile: bool = False,
    runtime: str | None = None,
    fix: Iterable[str] = (),
    limit: Iterable[str] = (),
    forbid: Iterable[str] = (),
    allow: Iterable[str] = (),
    schedules: Iterable[str] = (),
    free_memory: str | None = None,
    constraints: str | Path | None = None,
    calibration: str | Path | None = None,
    fit: Fit | None = None,
    fit_probability: float = 0.95,
    gap: float = 0.01,
    time_limit_s: float = 60.0,
    top: int = 5,
    robust: bool = False,
) -> Request:
    """Resolve names and fill in defaults; whatever was not given becomes a sentence in ``assumptions``.

    ``gpus`` may be left out when ``cluster`` (a TOML file) says how many there are. ``calibration`` is a file,
    ``none``, or None for those that ``plan calibrate`` left: for this device, and from runs of one's own. ``fit``
    stands in for the latter, and for the shipped one. ``constraints`` is a TOML file that says what ``fix``, ``limit``,
    ``forbid``, ``allow``, ``schedules`` and ``free_memory`` say (``planner/constraints/file.py``).

    Raises UnknownName for a name no catalog has; InvalidSpec for a value that cannot be; Infeasible for fixed degrees
    that the number of devices is no multiple of.
    """
    _check_limits(fit_probability, gap, time_limit_s, top)
    assumptions: list[str] = []
    model_spec = _load_model(model)
    fit = fit or load_fit(calibration)
    (device, *others), machine = load_machine(gpus, gpu, cluster, gpus_per_node, fit, assumptions)
    found = find_calibration(calibration, (device, *others), fit, assumptions)
    if found is not None:
        from costmodel.calibration.apply import apply_calibration

        device, machine = apply_calibration(device, machine, found)
    workload = build_workload(
        model_spec,
        device,
        seq_len=seq_len,
        global_batch_size=global_batch_size,
        precision=precision,
        optimizer=optimizer,
        grad_reduce_dtype=grad_reduce_dtype,
        moe_imbalance=moe_imbalance,
        moe_capacity_factor=moe_capacity_factor,
        assumptions=assumptions,
        others=others,
    )
    runtime_spec = _load_runtime(runtime, compile, fit, assumptions)
    asked = read_constraints(
        fix=fix,
        limit=limit,
        forbid=forbid,
        allow=allow,
        schedules=schedules,
        free_memory=free_memory,
        document=read_toml(Path(constraints)) if constraints is not None else None,
        origin=str(constraints),
    )
    check_world(asked, machine.num_devices)
    check_agreement(asked)
    check_runtime(asked, runtime_spec)
    device, *others = hold_free((device, *others), asked.free_bytes, assumptions)
    request = Request(
        model=model_spec,
        device=device,
        cluster=machine,
        workload=workload,
        runtime=runtime_spec,
        calibration=found,
        fit=fit,
        **vars(asked),
        fit_probability=fit_probability,
        gap=gap,
        time_limit_s=time_limit_s,
        top=top,
        robust=robust,
        assumptions=tuple(assumptions),
        other_devices=tuple(others),
    )
    check_request(request)
    return request


def request_from_plan(plan: Plan, *, constrained: bool = True, **changes: Any) -> Request:
    """The question that a plan answers, its figures as they were; ``constrained=False``: without what the user pinned,
    limited or forbade. ``changes``: fields of Request. The runtime's spread is the plan's own already.

    Raises InvalidSpec for constraints that are none.
    """
    from planner.constraints.words import asked_by

    words = plan.constraints
    if not constrained:
        kept = ("allow", "free_bytes", "fit_probability")
        words = PlanConstraints(**{name: getattr(words, name) for name in kept})
    machine = plan.cluster
    known: dict[str, Any] = {
        "model": plan.model,
        "device": machine.device_spec,
        "other_devices": machine.other_specs,
        "cluster": machine.spec,
        "workload": plan.workload,
        "runtime": plan.runtime_spec,
        "fit_probability": words.fit_probability,
        "assumptions": plan.prediction.assumptions,
        **vars(asked_by(words)),
    }
    return Request(**{**known, **changes})


def _check_limits(fit_probability: float, gap: float, time_limit_s: float, top: int) -> None:
    def refuse(option: str, value: float, rule: str) -> None:
        raise InvalidSpec(f"{option} {value:g}: must be {rule}")

    if not 0 < fit_probability < 1:
        refuse("--fit-probability", fit_probability, "between 0 and 1, like 0.95")
    if not 0 <= gap < 1:
        refuse("--gap", gap, "from 0 up to 1, like 0.01 for one percent")
    if not time_limit_s > 0:
        refuse("--time-limit", time_limit_s, "more than 0 seconds")
    if top < 0:
        refuse("--top", top, "0 or more")


def _load_model(name: str) -> ModelSpec:
    from costmodel.catalog.models import load_model

    if not name.strip():
        raise InvalidSpec("--model is empty", "give a name that plan models lists, or the path of a config.json")
    return load_model(name)


def _load_runtime(name: str | None, compile: bool, fit: Fit, assumptions: list[str]) -> Runtime:
    from costmodel.catalog.runtimes import load_runtime

    runtime = load_runtime(name or "torch", fit)
    if name is None:
        assumptions.append(f"The training framework is {runtime.name}, {runtime.version} (--runtime).")
    return compiled(runtime) if compile else runtime


def compiled(runtime: Runtime) -> Runtime:
    """The runtime with its kernels as its compiler leaves them. Raises InvalidSpec where it has no compiled form."""
    kernels: Any = runtime.compiled_kernels
    if kernels is None:
        raise InvalidSpec(f"--compile: the runtime {runtime.name} has no compiled form", "leave --compile out")
    return runtime.model_copy(update={"kernels": kernels})
