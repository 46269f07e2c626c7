"""The best plan on fewer and on more GPUs: what they give together, and what a run takes and costs there."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from planner.decisions.curve import Point
from planner.report.line import layout_words
from planner.report.units import count, percent, seconds
from ui.figures.axes import log_axis
from ui.palette import BLUE, GREEN, GREY, styled

DAY_S = 86400.0


def scaling(points: Sequence[Point]) -> go.Figure:
    """Tokens/s of all GPUs together over their number, both logarithmic, beside linear scaling from the fewest that
    do; model FLOPs utilization on an axis of its own, from nothing to twice the highest."""
    found = [point for point in points if point.plan is not None]
    devices = [point.devices for point in found]
    rates = [point.answer[0].prediction.tokens_per_s_per_device * point.devices for point in found]
    shares = [point.answer[0].prediction.mfu for point in found]
    figure = go.Figure(
        [
            go.Scatter(
                name="linear scaling", x=devices, y=[rates[0] * number / devices[0] for number in devices],
                mode="lines", line={"color": GREY, "dash": "dot", "width": 1.5}, hoverinfo="skip",
            ),
            go.Scatter(
                name="tokens/s", x=devices, y=rates, mode="lines+markers", line={"color": BLUE, "width": 2},
                marker={"size": 9}, customdata=_said(found),
                hovertemplate="<b>%{x:,} GPUs</b>: %{customdata[0]} tokens/s<br>%{customdata[1]}<extra></extra>",
            ),
            go.Scatter(
                name="MFU", x=devices, y=shares, mode="lines+markers", yaxis="y2",
                line={"color": GREEN, "width": 2, "dash": "dash"}, marker={"size": 7},
                hovertemplate="<b>%{x:,} GPUs</b>: MFU %{y:.1%}<extra></extra>",
            ),
        ]
    )  # fmt: skip
    return styled(
        figure, height=380,
        xaxis={"title": "GPUs", "type": "log", "tickvals": devices, "ticktext": [f"{n:,}" for n in devices]},
        yaxis=log_axis("tokens/s, all together", 0.7 * min(rates), 1.4 * max(rates)),
        yaxis2={"title": "MFU", "overlaying": "y", "side": "right", "tickformat": ".0%", "showgrid": False,
                "range": [0, 2 * max(shares)], "tickmode": "auto", "nticks": 6, "automargin": True},
    )  # fmt: skip


def run_cost(points: Sequence[Point]) -> go.Figure:
    """Days of the run against its cost, or its GPU-hours where no price is known, a point for each number of GPUs."""
    found = [point for point in points if point.plan is not None]
    trainings = [point.answer[1] for point in found]
    priced = trainings[0].cost is not None
    spent = [one.cost or one.device_hours for one in trainings]
    days = [one.time_s.mean / DAY_S for one in trainings]
    figure = go.Figure(
        go.Scatter(
            x=spent, y=days, cliponaxis=False,
            mode="lines+markers+text", line={"color": GREY, "width": 1}, marker={"size": 11, "color": BLUE},
            text=[f"{point.devices:,}" for point in found], textposition="top right",
            customdata=[(seconds(one.time_s.mean), count(one.device_hours)) for one in trainings],
            hovertemplate="<b>%{text} GPUs</b>: %{customdata[0]}, %{customdata[1]} GPU-hours<extra></extra>",
        )
    )  # fmt: skip
    tokens = count(trainings[0].tokens)
    return styled(
        figure, height=380, yaxis=log_axis(f"days for {tokens} tokens", 0.7 * min(days), 1.5 * max(days)),
        xaxis={"title": "cost of the run" if priced else "GPU-hours of the run", "range": [0, 1.15 * max(spent)]},
        margin={"l": 8, "r": 40, "t": 24, "b": 8},
    )  # fmt: skip


def _said(found: Sequence[Point]) -> list[tuple[str, str]]:
    said = []
    for point in found:
        plan, _ = point.answer
        rate = plan.prediction.tokens_per_s_per_device * point.devices
        said.append((count(rate), f"MFU {percent(plan.prediction.mfu)}<br>{layout_words(plan.layout)}"))
    return said
