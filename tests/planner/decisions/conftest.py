"""Searches that cost nothing: a plan whose step time is a formula of devices and batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from costmodel.schema.errors import Infeasible
from costmodel.schema.plan import Plan
from costmodel.schema.prediction import Interval
from planner.request import Request, build_request

BATCH = 3360
"""Divides evenly over any number of devices up to 8."""


@pytest.fixture
def ask() -> Callable[[int | None, int | None], Request]:
    """The request for ``tiny`` on so many H100."""

    def build(devices: int | None, batch: int | None) -> Request:
        return build_request("tiny", devices, gpu="h100", global_batch_size=batch or BATCH, calibration="none")

    return build


@pytest.fixture
def searching(make_plan: Any) -> Callable[[Callable[[int, int], float | None]], Any]:
    """``searching(step_s)``: a search that finds a step of ``step_s(devices, batch)`` seconds, or nothing for None and
    where the request wants a faster one.

    What it was asked is in its ``asked``.
    """
    some: Plan = make_plan()

    def of(step_s: Callable[[int, int], float | None]) -> Any:
        def find(request: Request, on_progress: Any = None) -> Plan:
            devices, batch = request.cluster.num_devices, request.workload.global_batch_size
            find.asked.append((devices, batch))  # type: ignore[attr-defined]
            mean = step_s(devices, batch)
            if mean is None or mean >= request.within_s:
                raise Infeasible(f"nothing on {devices}")
            prediction = some.prediction.model_copy(
                update={"step_time_s": Interval(mean=mean, low=mean / 1.2, high=mean * 1.2)}
            )
            cluster = some.cluster.model_copy(update={"num_devices": devices})
            return some.model_copy(update={"prediction": prediction, "cluster": cluster, "workload": request.workload})

        find.asked = []  # type: ignore[attr-defined]
        return find

    return of
