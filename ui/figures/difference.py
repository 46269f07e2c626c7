"""What one plan has more or less of than another, term by term, as bars to either side."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import plotly.graph_objects as go

from planner.report.compare import Difference
from planner.report.terms import label
from ui.palette import GREEN, VERMILION, styled

MOST_BARS = 8
"""Bars of their own; what is left is one more."""

THE_REST = "all the rest"


def difference(pairs: Sequence[Difference], unit: float, title: str, worded: Callable[[float], str]) -> go.Figure:
    """``second - first`` in units of ``unit``, the largest on top: to the right what the second plan has more of.

    ``pairs``: largest first. ``worded``: a figure with its unit, as the labels say it.
    """
    shown = list(pairs[:MOST_BARS])
    if pairs[MOST_BARS:]:
        shown.append(
            Difference(
                THE_REST, *(sum(getattr(one, side) for one in pairs[MOST_BARS:]) for side in ("first", "second"))
            )
        )
    changes = [-pair.change for pair in shown]
    figure = go.Figure(
        go.Bar(
            x=[change / unit for change in changes], y=[label(pair.name) for pair in shown], orientation="h",
            marker={"color": [VERMILION if change > 0 else GREEN for change in changes]},
            text=[f"{'+' if change > 0 else '-'}{worded(abs(change))}" for change in changes],
            textposition="outside", cliponaxis=False,
            customdata=[(worded(pair.first), worded(pair.second)) for pair in shown],
            hovertemplate="<b>%{y}</b>: %{customdata[0]} in the plan, %{customdata[1]} in the other<extra></extra>",
        )
    )  # fmt: skip
    low, high = min([0.0, *changes]) / unit, max([0.0, *changes]) / unit
    room = 0.28 * (high - low)
    return styled(
        figure, height=80 + 28 * len(shown), yaxis={"autorange": "reversed", "showgrid": False},
        xaxis={"title": title, "range": [low - room, high + room], "zeroline": True,
               "zerolinecolor": "rgba(128, 128, 128, 0.6)"},
    )  # fmt: skip
