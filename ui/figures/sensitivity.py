"""Which of the machine's figures the plan's step hangs on."""

from __future__ import annotations

from collections.abc import Mapping

import plotly.graph_objects as go

from planner.sensitivity import FIGURES
from ui.palette import BLUE, ORANGE, styled


def sensitivity(elasticities: Mapping[str, float]) -> go.Figure:
    """Percent that the step gets shorter when a figure gets one percent better, the largest on top.

    Better is more, but for times, of which less is.
    """
    gains = {name: -value if FIGURES[name].better else value for name, value in elasticities.items()}
    names = sorted(gains, key=lambda name: -abs(gains[name]))
    low, high = min([0.0, *gains.values()]), max([0.0, *gains.values()])
    room = 0.2 * (high - low)
    figure = go.Figure(
        go.Bar(
            x=[gains[name] for name in names], y=[name.replace("_", " ") for name in names], orientation="h",
            marker={"color": [BLUE if gains[name] >= 0 else ORANGE for name in names]},
            text=[f"{gains[name]:.2f}%" if abs(gains[name]) >= 0.005 else "0" for name in names],
            textposition="outside", cliponaxis=False,
            customdata=[FIGURES[name].says for name in names],
            hovertemplate="<b>%{y}</b>: %{customdata}<br>1% better saves %{x:.3f}% of the step<extra></extra>",
        )
    )  # fmt: skip
    return styled(
        figure, height=70 + 30 * len(names), yaxis={"autorange": "reversed", "showgrid": False},
        xaxis={"title": "% of the step saved by 1% better", "zeroline": True, "range": [low - room, high + room]},
    )  # fmt: skip
