"""What each group of nodes would make of the model by itself: is the rest of the cluster worth taking along?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import inf

from planner.evaluate import Evaluated
from planner.problem import Problem
from planner.request import Request
from planner.search.best_first import search
from planner.search.floor import estimate_step_floor_s
from planner.search.reasons import layout_line

PATIENCE_S = 5.0
"""Seconds for the search of one group."""


@dataclass(frozen=True)
class Alone:
    """One group by itself. ``least_s``: no layout of it is faster, inf where none exists or fits. ``best``: the fastest
    that was found, looked for only where it could be faster than the whole cluster."""

    devices: str
    least_s: float
    best: Evaluated | None


def groups_alone(request: Request, than_s: float = inf) -> Iterator[Alone]:
    """Every group by itself, searched where it could be faster than ``than_s``."""
    devices = (request.device, *request.other_devices)
    for device, group in zip(devices, request.cluster.unlike_groups, strict=True):
        own = replace(
            request, device=device, other_devices=(), cluster=request.cluster.alone(group), top=0,
            time_limit_s=min(request.time_limit_s, PATIENCE_S),
            fixed={key: value for key, value in request.fixed.items() if key != "first_group"},
        )  # fmt: skip
        least_s = estimate_step_floor_s(own)
        best = search(own, Problem.from_request(own)).best if least_s < than_s else None
        yield Alone(own.devices_said, least_s, best)


def say_alone(request: Request, step_s: float) -> list[str]:
    """A sentence for every group: that it alone would be faster, or how much longer it would take at least."""
    said: list[str] = []
    if "layers_per_stage" in request.fixed:
        return said
    for one in groups_alone(request, step_s):
        if one.best is not None and one.best.step_time_s < step_s:
            less = 1.0 - one.best.step_time_s / step_s
            said.append(
                f"The {one.devices} alone would be faster: {one.best.step_time_s:.2f} s a step, {less:.1%} less, with"
                f" {layout_line(one.best)}; a cluster file with that group only plans for them."
            )
        elif one.least_s < inf:
            taken_s = one.best.step_time_s if one.best is not None else one.least_s
            how = "would take" if one.best is not None else "would take at least"
            said.append(f"The {one.devices} alone {how} {taken_s:.2f} s a step.")
        else:
            said.append(f"The {one.devices} alone cannot hold the model.")
    return said
