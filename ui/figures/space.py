"""The space: time against memory of its layouts, coloured by one of their choices."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from costmodel.schema.plan import Plan
from planner.report.line import layout_words
from planner.report.units import gibibytes, plural, seconds
from planner.survey import Survey
from ui.figures.axes import GIB, log_axis
from ui.figures.degrees import columns_of, titled, values_of, worded
from ui.palette import GREY, VERMILION, shades, styled

FAINT_POINT = 0.2
"""How much of a layout's colour is left where it does not fit."""

HEADROOM = 3.0
"""Times the device's memory up to which the picture opens; a double click shows all."""

SLOWEST = 4.0
"""The same of the fastest step."""


def space(survey: Survey, plan: Plan, colour_by: str) -> go.Figure:
    """Step time and GiB of the fullest device, both logarithmic: those that fit solid, the others faint; the Pareto
    front as a line, what was simulated ringed, the plan as a star at what it takes with its layers placed one by one.

    ``colour_by``: a name that ``columns_of`` has. Points carry their row of the survey as ``customdata``.
    """
    column = np.array(columns_of(survey)[colour_by], object)
    values = values_of(column.tolist())
    texts = _texts(survey)
    figure = go.Figure()
    for value, colour in zip(values, shades(len(values), ordered=not isinstance(values[0], str)), strict=True):
        for fits in (False, True):
            rows = np.flatnonzero((column == value) & (survey.fits == fits))
            if len(rows):
                own = fits or not survey.fits[column == value].any()
                figure.add_trace(_points(survey, rows, texts, worded(value), colour, fits).update(showlegend=own))
    _mark(figure, survey, plan)
    time_s, size = survey.step_time_s, survey.peak_bytes / GIB
    there = plan.prediction.memory.capacity_bytes / GIB
    fastest = min(float(time_s.min()), plan.prediction.step_time_s.mean)
    return styled(
        figure, height=540, clickmode="event+select", dragmode="zoom", margin={"l": 8, "r": 8, "t": 14, "b": 8},
        xaxis=log_axis("Step, s", 0.95 * fastest, min(1.05 * float(time_s.max()), SLOWEST * fastest)),
        yaxis=log_axis("Memory of the fullest device, GiB", 0.8 * float(size.min()),
                        max(1.1 * there, min(1.2 * float(size.max()), HEADROOM * there))),
        legend={"orientation": "v", "x": 1.01, "y": 1, "yanchor": "top", "xanchor": "left",
                "title": {"text": titled(colour_by)}, "traceorder": "normal"},
    )  # fmt: skip


def _points(survey: Survey, rows: NDArray[np.intp], texts: list[str], name: str, colour: str, fits: bool) -> go.Scatter:
    opacity = 0.9 if fits else FAINT_POINT
    return go.Scatter(
        name=name, legendgroup=name, mode="markers", x=survey.step_time_s[rows], y=survey.peak_bytes[rows] / GIB,
        customdata=[[int(row), texts[row]] for row in rows], marker={"color": colour, "size": 7, "opacity": opacity},
        hovertemplate="<b>%{x:.4g} s, %{y:.4g} GiB</b><br>%{customdata[1]}<extra></extra>",
        unselected={"marker": {"opacity": opacity}}, selected={"marker": {"size": 14, "opacity": 1.0}},
    )  # fmt: skip


def _mark(figure: go.Figure, survey: Survey, plan: Plan) -> None:
    """The capacity, the front, the simulated, the chosen."""
    front = np.flatnonzero(survey.front)
    front = front[np.argsort(survey.step_time_s[front], kind="stable")]
    simulated = np.flatnonzero(np.isfinite(survey.simulated_s))
    capacity = plan.prediction.memory.capacity_bytes
    figure.add_scatter(
        name=f"{gibibytes(capacity)} GiB there", mode="lines", hoverinfo="skip", y=[capacity / GIB] * 2,
        x=[float(survey.step_time_s.min()) / 2, float(survey.step_time_s.max()) * 2],
        line={"color": VERMILION, "width": 1.5, "dash": "dash"},
    )  # fmt: skip
    figure.add_scatter(
        name=f"Pareto front ({len(front)})", mode="lines", x=survey.step_time_s[front],
        y=survey.peak_bytes[front] / GIB, line={"color": GREY, "width": 1.5, "shape": "hv"}, hoverinfo="skip",
    )  # fmt: skip
    figure.add_scatter(
        name=f"simulated ({len(simulated)})", mode="markers", x=survey.step_time_s[simulated],
        y=survey.peak_bytes[simulated] / GIB, hoverinfo="skip",
        marker={"symbol": "circle-open", "color": "rgba(140, 140, 140, 0.8)", "size": 12, "line": {"width": 1.2}},
    )  # fmt: skip
    figure.add_scatter(
        name="the plan", mode="markers", x=[plan.prediction.step_time_s.mean],
        y=[plan.prediction.memory.peak_bytes_per_device / GIB], text=[layout_words(plan.layout)],
        marker={"symbol": "star", "color": VERMILION, "size": 17, "line": {"width": 1, "color": "white"}},
        hovertemplate="<b>the plan: %{x:.4g} s, %{y:.4g} GiB</b><br>%{text}<extra></extra>",
    )  # fmt: skip


def _texts(survey: Survey) -> list[str]:
    """What a layout is, in a hover label."""
    layouts = survey.layouts
    shown = {"tp": layouts.tp, "pp": layouts.pp, "vpp": layouts.vpp, "cp": layouts.cp, "ep": layouts.ep,
             "dp_shard": layouts.dp_shard, "dp_replicate": layouts.dp_replicate}  # fmt: skip
    degrees = list(zip(*(column.tolist() for column in shown.values()), strict=True))
    texts = []
    for row, values in enumerate(degrees):
        split = " · ".join(f"{name} {value}" for name, value in zip(shown, values, strict=True) if value > 1)
        micro = plural(int(layouts.micro_batch_size[row]), "sequence")
        order = f", {layouts.schedule_name(row)}" if layouts.pp[row] > 1 else ""
        lines = [
            split or "one device",
            f"ZeRO-{layouts.zero_stage[row]}, {micro} a micro-batch{order}",
            f"every layer: {worded(survey.policy_name(row))}",
        ]
        if np.isfinite(survey.simulated_s[row]):
            lines.append(f"simulated, each layer with its own policy: {seconds(survey.simulated_s[row])}")
        if not survey.fits[row]:
            lines.append("does not fit like this")
        texts.append("<br>".join(lines))
    return texts
