"""Predicted against measured: every run as a point, and how far off each group of runs is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from math import ceil, floor, log10
from types import MappingProxyType

import plotly.graph_objects as go

from planner.report.units import seconds
from planner.validation.result import PricedRow
from ui.palette import CYCLE, FAINT, GREY, SKY, styled

GROUPS: Mapping[str, Callable[[PricedRow], str]] = MappingProxyType(
    {
        "source": lambda one: one.row.source or "rows",
        "GPU": lambda one: one.row.gpu,
        "framework": lambda one: one.row.framework or "not stated",
        "precision": lambda one: one.row.precision or "not stated",
    }
)
"""By what runs can be grouped."""

BAND = 0.1
"""Within ten percent: the band around the diagonal."""

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross")


def predicted_against_measured(results: Sequence[PricedRow], group: str) -> go.Figure:
    """Seconds of a step on two logarithmic axes, a colour and a sign for each group, the largest groups first."""
    points = grouped(results, group)
    every = [value for runs in points.values() for one in runs for value in _times(one)]
    low, high = (min(every) / 1.4, max(every) * 1.4) if every else (0.1, 10.0)
    figure = go.Figure(
        go.Scatter(
            x=[low, high, high, low], y=[low * (1 - BAND), high * (1 - BAND), high * (1 + BAND), low * (1 + BAND)],
            fill="toself", fillcolor=FAINT, line={"width": 0}, mode="lines", name="within 10%", hoverinfo="skip",
        )
    )  # fmt: skip
    figure.add_scatter(x=[low, high], y=[low, high], mode="lines", line={"color": GREY, "width": 1}, showlegend=False)
    for place, (name, runs) in enumerate(points.items()):
        measured, predicted = zip(*(_times(one) for one in runs), strict=True)
        figure.add_scatter(
            x=measured, y=predicted, mode="markers", name=f"{name} ({len(runs):,})",
            marker={"color": CYCLE[place % len(CYCLE)], "symbol": SYMBOLS[place // len(CYCLE) % len(SYMBOLS)],
                    "size": 6, "opacity": 0.7},
            text=[_said(one) for one in runs], hovertemplate="%{text}<extra></extra>",
        )  # fmt: skip
    ends = [floor(log10(low)), ceil(log10(high))]
    ticks = {"type": "log", "range": [log10(low), log10(high)], "dtick": 1, "tick0": ends[0]}
    return styled(
        figure, height=520, xaxis={**ticks, "title": "measured seconds a step"},
        yaxis={**ticks, "title": "predicted seconds a step"},
        legend={"orientation": "v", "y": 1, "yanchor": "top", "x": 1.01},
    )  # fmt: skip


def errors_by_group(results: Sequence[PricedRow], group: str) -> go.Figure:
    """Predicted / measured - 1 in percent: a box for each group - its median, quartiles, and the runs beyond."""
    points = grouped(results, group)
    figure = go.Figure(
        [
            go.Box(
                x=[100 * (one.step_error or 0.0) for one in runs], name=name, marker={"color": SKY, "size": 3},
                line={"width": 1.2}, boxpoints="outliers", hoverinfo="x+name",
            )
            for name, runs in points.items()
        ]
    )  # fmt: skip
    figure.add_vrect(x0=-100 * BAND, x1=100 * BAND, fillcolor=FAINT, line_width=0, layer="below")
    return styled(
        figure, height=90 + 26 * max(len(points), 3), showlegend=False, yaxis={"autorange": "reversed"},
        xaxis={"title": "predicted / measured − 1, percent", "zeroline": True, "zerolinecolor": GREY},
    )  # fmt: skip


def grouped(results: Sequence[PricedRow], group: str) -> dict[str, list[PricedRow]]:
    """The rows that have both times, by group, the largest first."""
    found: dict[str, list[PricedRow]] = defaultdict(list)
    for one in results:
        if one.step_error is not None:
            found[GROUPS[group](one)].append(one)
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))


def _times(one: PricedRow) -> tuple[float, float]:
    """Measured and predicted, of a row that has both."""
    assert one.row.step_time_s is not None
    assert one.step_time_s is not None
    return one.row.step_time_s, one.step_time_s


def _said(one: PricedRow) -> str:
    row, (measured, predicted) = one.row, _times(one)
    degrees = {"tp": row.tp, "pp": row.pp, "cp": row.cp, "ep": row.ep}
    layout = " · ".join(f"{name} {degree}" for name, degree in degrees.items() if (degree or 1) > 1)
    return (
        f"<b>{row.model or row.id}</b> on {row.gpus} {row.gpu}<br>{layout or 'data parallel'},"
        f" micro-batch {row.micro_batch or '–'}, {row.framework}<br>"
        f"measured {seconds(measured)}, predicted {seconds(predicted)} ({one.step_error:+.1%})<br>{row.id}"
    )
