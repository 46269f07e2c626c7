"""What a fit moved: each factor with its 90% interval before and after anything was measured."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from math import exp, log

import plotly.graph_objects as go

from costmodel.schema.calibration import Calibration
from costmodel.schema.fit import Fit
from planner.prediction import Z_90
from planner.report.calibration import MOVED
from ui.palette import BLUE, FAINT, GREY, SKY, styled

MOST = 28
"""Factors in one picture, those that moved farthest."""


def fitted_factors(fit: Fit) -> go.Figure:
    """Factors on the catalog's figures: the wide band is what the catalog was sure of, the point what runs ask for.

    Those that hardly moved are left out.
    """
    moved = [
        one
        for one in sorted(fit.parameters, key=lambda one: -abs(log(one.factor)) / one.log_std)
        if abs(log(one.factor)) >= MOVED * one.log_std
    ][:MOST]
    rows = [(one.name, one.factor, one.fitted_log_std, 1.0, one.log_std) for one in moved]
    return _intervals(rows, "factor on the catalog's figure")


def calibrated_parameters(calibration: Calibration) -> go.Figure:
    """Fitted figures over the catalog's own, with both intervals."""
    rows = [(one.name, one.value / one.prior, one.log_std, 1.0, one.prior_log_std) for one in calibration.parameters]
    return _intervals(rows, "measured over the catalog's figure")


def residuals(calibration: Calibration) -> go.Figure:
    """Predicted / measured - 1 of every measured operation under the calibration, a box for each kind."""
    found: dict[str, list[float]] = defaultdict(list)
    for one in calibration.measurements:
        if one.predicted_seconds is not None:
            found[one.op].append(100 * (one.predicted_seconds / one.seconds - 1))
    figure = go.Figure(
        [
            go.Box(x=errors, name=f"{name} ({len(errors)})", marker={"color": SKY, "size": 3}, line={"width": 1.2})
            for name, errors in found.items()
        ]
    )
    return styled(
        figure, height=90 + 30 * max(len(found), 2), showlegend=False, yaxis={"autorange": "reversed"},
        xaxis={"title": "predicted / measured − 1, percent", "zeroline": True, "zerolinecolor": GREY},
    )  # fmt: skip


def _intervals(rows: Sequence[tuple[str, float, float, float, float]], title: str) -> go.Figure:
    """(name, value, spread, prior, prior's spread) as a point in a band; values on a logarithmic axis."""
    names = [name for name, *_ in rows]
    figure = go.Figure(
        go.Bar(
            y=names, base=[prior * exp(-Z_90 * std) for *_, prior, std in rows], orientation="h",
            x=[prior * (exp(Z_90 * std) - exp(-Z_90 * std)) for *_, prior, std in rows],
            marker={"color": FAINT, "line": {"color": GREY, "width": 0.5}}, name="before any measurement, 90%",
            hoverinfo="skip",
        )
    )  # fmt: skip
    figure.add_scatter(
        y=names, x=[value for _, value, *_ in rows], name="fitted, 90%",
        mode="markers", marker={"color": BLUE, "size": 8},
        error_x={
            "type": "data", "symmetric": False, "color": BLUE, "thickness": 1.5, "width": 3,
            "array": [value * (exp(Z_90 * std) - 1) for _, value, std, *_ in rows],
            "arrayminus": [value * (1 - exp(-Z_90 * std)) for _, value, std, *_ in rows],
        },
        hovertemplate="%{y}: %{x:.3f}<extra></extra>",
    )  # fmt: skip
    figure.add_vline(x=1, line={"color": GREY, "width": 1, "dash": "dot"})
    return styled(
        figure, height=100 + 22 * max(len(rows), 3), yaxis={"autorange": "reversed"},
        xaxis={"title": title}, legend={"y": 1.0, "yanchor": "bottom"}, margin={"l": 8, "r": 8, "t": 36, "b": 8},
    )  # fmt: skip
