"""A scaling curve as JSON: its points in figures, without the plans' passes and layers."""

from __future__ import annotations

from typing import Literal

from costmodel.schema.base import Spec
from costmodel.schema.layout import Layout
from costmodel.schema.prediction import Interval
from costmodel.schema.training import Training
from planner.decisions.curve import Curve, Point, pareto_front


class CurvePoint(Spec):
    """One number of devices; every figure is None where ``why_not`` says that there is no plan.

    ``memory_share``: of each device's memory, in which the plan was searched.
    """

    num_devices: int
    why_not: str | None = None
    memory_share: float = 1.0
    global_batch_size: int | None = None
    layout: Layout | None = None
    schedule: str | None = None
    step_time_s: Interval | None = None
    tokens_per_s: float | None = None
    mfu: float | None = None
    memory_bytes_per_device: float | None = None
    training: Training | None = None
    gap: float | None = None
    on_pareto_front: bool = False


class CurveDocument(Spec):
    """``chosen``: the number of devices that answers the question; ``said``: what is known of numbers not listed."""

    schema_version: Literal[1] = 1
    model: str
    device: str
    points: tuple[CurvePoint, ...]
    chosen: int | None
    interrupted: bool
    said: str | None = None


def to_document(curve: Curve) -> CurveDocument:
    """The figures of a curve that has some."""
    some = next(point.plan for point in curve.points if point.plan is not None)
    front = pareto_front(curve.points)
    return CurveDocument(
        model=some.model.name,
        device=some.cluster.device,
        points=tuple(_point(point, any(point is one for one in front)) for point in curve.points),
        chosen=None if curve.chosen is None else curve.chosen.devices,
        interrupted=curve.interrupted,
        said=curve.said,
    )


def _point(point: Point, on_front: bool) -> CurvePoint:
    plan = point.plan
    if plan is None:
        return CurvePoint(num_devices=point.devices, why_not=point.why_not)
    prediction = plan.prediction
    return CurvePoint(
        num_devices=point.devices,
        memory_share=point.memory_share,
        global_batch_size=plan.workload.global_batch_size,
        layout=plan.layout,
        schedule=plan.pipeline.schedule,
        step_time_s=prediction.step_time_s,
        tokens_per_s=prediction.tokens_per_s_per_device * point.devices,
        mfu=prediction.mfu,
        memory_bytes_per_device=prediction.memory.peak_bytes_per_device,
        training=plan.training,
        gap=plan.certificate.gap,
        on_pareto_front=on_front,
    )
