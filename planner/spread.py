"""How sure a prediction is: what measurements leave open of the parameters, and how well its corner is described.

    spread² = corner² + parameters²

corner: spread of log(predicted / measured) over published runs of the same device generation, runtime and kinds of
parallelism, shrunk towards that of a source never seen; over several kinds of node the widest of theirs. parameters:
spread of the log step time over samples of the fitted factors and, where the device was measured here, gᵀ C g with that
calibration's covariance C.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from math import sqrt

import numpy as np

from costmodel.calibration.apply import applies_to
from costmodel.calibration.parameters import read_path, write_path
from costmodel.catalog.fit import fitted_cluster, fitted_device, fitted_runtime
from costmodel.layouts import Assignment, Column, Layouts
from costmodel.ops import Setting
from costmodel.schema.calibration import Calibration
from costmodel.schema.fit import Fit
from costmodel.schema.layout import Layout
from planner.mixed import price_rows
from planner.placement import Placement
from planner.problem import Problem

STEP = 0.05
"""Change of a parameter's logarithm by which the step time's response is probed."""

SAMPLES = 8
"""Draws from the fitted parameters: their spread is then known to a quarter, and it is the smaller part."""

SHRINK = 10.0
"""A corner's own spread counts in full against so many rows of the next wider one."""


def names_of(problem: Problem) -> dict[str, str]:
    """The catalog entries that a problem rests on, by kind."""
    setting = problem.setting
    return {"device": setting.device.name, "cluster": problem.cluster.name, "runtime": setting.runtime.name}


def corner_of(problem: Problem, layout: Layout, setting: Setting | None = None) -> str:
    """``generation/runtime/parallelism``: ``hopper/megatron/tp+pp``; data parallelism alone is ``dp``. ``setting``: of
    another group of nodes than the first."""
    setting = setting or problem.setting
    return f"{setting.device.generation}/{setting.runtime.name}/{layout.parallelism}"


def corner_spread(fit: Fit, corner: str, expected: float) -> float:
    """Standard deviation of log step time in a corner, from the widest group of rows that holds it to the narrowest.

    variance ← (rows · variance of the rows + SHRINK · variance so far) / (rows + SHRINK), starting from a source never
    seen. ``expected``: the runtime's own, which stands where the fit knows nothing of the runtime.
    """
    wide = corner.rpartition("/")[0] + "/"
    variance = max(fit.unseen_log_std, 0.0 if _knows(fit, wide) else expected) ** 2
    for members in (
        [one for one in fit.corners if one.corner.startswith(wide)],
        [one for one in fit.corners if one.corner == corner],
    ):
        rows = sum(one.rows for one in members)
        seen = sum(one.rows * one.log_std**2 for one in members)
        variance = (seen + SHRINK * variance) / (rows + SHRINK)
    return sqrt(variance)


def _knows(fit: Fit, wide: str) -> bool:
    runtime = wide.split("/")[1]
    return any(one.corner.split("/")[1] == runtime for one in fit.corners)


@lru_cache(maxsize=4)
def _deviations(covariance: tuple[tuple[float, ...], ...]) -> Column:
    """[SAMPLES, p] draws of the log factors about the fit, the same every time."""
    half = draw_from(covariance, np.random.default_rng(0).standard_normal((SAMPLES // 2, len(covariance))))
    return np.concatenate([half, -half])


def draw_from(covariance: Sequence[Sequence[float]], noise: Column) -> Column:
    """[n, p] draws with the covariance from [n, p] standard normal numbers: noise · (V √Λ)ᵀ, with C = V Λ Vᵀ."""
    size = len(covariance)
    values, vectors = np.linalg.eigh(np.array(covariance).reshape(size, size))
    return np.asarray(noise @ (vectors * np.sqrt(np.maximum(values, 0.0))).T)


def with_factors(fit: Fit, draw: Column) -> Fit:
    """One draw [p] of a fit's log factors, as factors on figures that already have the fit's own."""
    moved = tuple(
        parameter.model_copy(update={"factor": float(np.exp(by))})
        for parameter, by in zip(fit.parameters, draw, strict=True)
    )
    return fit.model_copy(update={"parameters": moved})


def sample_fits(fit: Fit) -> tuple[Fit, ...]:
    """Draws from a fit, each as factors on figures that already have the fit's own."""
    if not fit.parameters:
        return ()
    return tuple(with_factors(fit, draw) for draw in _deviations(fit.covariance))


def parameter_spread(problem: Problem, layouts: Layouts, assignment: Assignment, samples: tuple[Fit, ...]) -> Column:
    """[n] standard deviation of the rows' log step time (closed form) over the samples."""
    if not samples:
        return np.zeros(len(layouts))
    base = _log_time(problem, layouts, assignment)
    moved = np.stack([_log_time(sampled(problem, sample), layouts, assignment) for sample in samples])
    return np.asarray(np.sqrt(np.mean((moved - base) ** 2, axis=0)))


def _log_time(problem: Problem, layouts: Layouts, assignment: Assignment) -> Column:
    return np.asarray(np.log(price_rows(problem, layouts, assignment).step_time_s))


def sampled(problem: Problem, sample: Fit) -> Problem:
    """The problem with a draw's factors on its figures."""
    runtime = fitted_runtime(problem.setting.runtime, sample)
    cluster = fitted_cluster(problem.cluster, sample)
    groups = cluster.unlike_groups if problem.others else cluster.groups[:1]
    first, *others = [
        replace(setting, device=fitted_device(setting.device, sample), runtime=runtime, host=group.host)
        for setting, group in zip(problem.settings, groups, strict=True)
    ]
    return Problem(first, cluster, others=tuple(others))


def with_spread(problem: Problem, placement: Placement, fit: Fit, calibration: Calibration | None) -> Problem:
    """The problem with its runtime's spread replaced by what is to be expected of this placement."""
    runtime = problem.setting.runtime
    corners = [corner_of(problem, placement.layout, setting) for setting in problem.settings]
    variance = max(corner_spread(fit, corner, runtime.spread) for corner in corners) ** 2
    layouts = Layouts.from_rows([(placement.layout, placement.schedule)])
    assignment = placement.assignment(problem.kinds, problem.num_kinds, problem.setting.num_policies)
    variance += float(parameter_spread(problem, layouts, assignment, sample_fits(fit))[0]) ** 2
    if calibration is not None:
        base = _log_time(problem, layouts, assignment)[0]
        slopes = np.array(
            [
                _slope(problem, layouts, assignment, calibration, index, base)
                for index in range(len(calibration.parameters))
            ]
        )
        variance += max(float(slopes @ np.array(calibration.covariance) @ slopes), 0.0)
    changed = runtime.model_copy(update={"spread": sqrt(variance)})
    first, *others = (replace(setting, runtime=changed) for setting in problem.settings)
    return replace(problem, setting=first, others=tuple(others))


def _slope(
    problem: Problem, layouts: Layouts, assignment: Assignment, calibration: Calibration, index: int, base: float
) -> float:
    """Change of log step time per log parameter of a calibration."""
    path = calibration.parameters[index].name
    device, cluster = problem.setting.device, problem.cluster
    if not applies_to(calibration, path, cluster):
        return 0.0
    # Downwards: some parameters are shares that may not pass 1.
    value = read_path(device, cluster, path) * float(np.exp(-STEP))
    device, cluster = write_path(device, cluster, path, value)
    moved = Problem(replace(problem.setting, device=device, host=cluster.groups[0].host), cluster)
    return float(base - _log_time(moved, layouts, assignment)[0]) / STEP
