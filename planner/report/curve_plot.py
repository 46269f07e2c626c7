"""A scaling curve as a picture: throughput over GPUs, and the run's time against its cost. Needs matplotlib."""

from __future__ import annotations

import io
from pathlib import Path

from planner.decisions.curve import Curve, Point, pareto_front
from planner.decisions.question import Question
from planner.decisions.training import UNIT_TOKENS
from planner.report.scatter import COLOURS
from planner.report.units import count

DAY_S = 86400.0


def draw_curve(curve: Curve, question: Question, path: Path) -> bytes:
    """The picture of a curve that has some points, in the format of ``path``'s ending.

    Left: tokens per second over GPUs, both logarithmic, with the line of linear scaling from the first point. Right:
    days of the run against GPU-hours, or cost where there is a price; filled where no other point beats it in time,
    GPU-hours and memory, ringed where it was chosen; the deadline as a line.
    """
    from matplotlib.figure import Figure

    found = curve.found
    figure = Figure(figsize=(10.0, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    whole = [point for point in found if point.memory_share == 1]
    devices = [point.devices for point in whole]
    rates = [point.answer[0].prediction.tokens_per_s_per_device * point.devices for point in whole]
    linear = [rates[0] * number / devices[0] for number in devices]
    left.plot(devices, linear, color="0.6", linewidth=0.8, label="linear scaling")
    left.plot(devices, rates, color=COLOURS[0], marker="o", label="predicted")
    left.set(xscale="log", yscale="log", xlabel="GPUs", ylabel="tokens/s")
    left.set_xticks(devices, [f"{number:,}" for number in devices])
    left.xaxis.minorticks_off()
    left.legend(frameon=False)
    front = pareto_front(curve.points)
    costs = [point.answer[1].cost or point.answer[1].device_hours for point in found]
    days = [point.figures[0] / DAY_S for point in found]
    for point, cost, day in zip(found, costs, days, strict=True):
        fill = COLOURS[0] if any(point is one for one in front) else "white"
        edge = COLOURS[3] if point is curve.chosen else COLOURS[0]
        right.scatter(cost, day, color=fill, edgecolors=edge, linewidths=2.0, zorder=2)
        right.annotate(_name(point), (cost, day), xytext=(5, 5), textcoords="offset points", fontsize=8)
    if question.deadline_s is not None:
        right.axhline(question.deadline_s / DAY_S, color=COLOURS[3], linewidth=0.8, label="deadline")
        right.legend(frameon=False)
    priced = found[0].answer[1].cost is not None
    tokens = count(question.tokens or UNIT_TOKENS)
    right.set(yscale="log", xscale="log", xlabel="cost" if priced else "GPU-hours", ylabel=f"days for {tokens} tokens")
    for axis in (left.yaxis, right.xaxis, right.yaxis):
        axis.set_major_formatter(lambda value, _: count(value) if value >= 1000 else f"{value:g}")
        axis.set_minor_formatter(lambda value, _: count(value) if value >= 1000 else f"{value:g}")
    right.margins(0.15)
    picture = io.BytesIO()
    figure.savefig(picture, format=path.suffix.lower().removeprefix("."), dpi=150)
    return picture.getvalue()


def _name(point: Point) -> str:
    """``64``, or ``64 (50%)`` in half of the memory."""
    return f"{point.devices:,}" + ("" if point.memory_share == 1 else f" ({point.memory_share:.0%})")
