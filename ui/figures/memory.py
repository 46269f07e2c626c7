"""Memory of every pipeline rank at its worst moment, part by part, against what its device has."""

from __future__ import annotations

import plotly.graph_objects as go

from costmodel.schema.plan import Plan
from planner.report.terms import label
from planner.report.units import size
from ui.figures.axes import memory_unit
from ui.palette import GREY, PARTS, VERMILION, colours_of, styled

ROW, MOST_HEIGHT = 30, 520
LEGEND_ROW = 20
"""Pixels."""


def memory(plan: Plan, legend_rows: int = 2) -> go.Figure:
    """A bar a rank: the parts of what is allocated, what the allocator and the driver hold beside, and the capacity of
    its own device. In GiB, or in MiB where all tensors together are less than one. ``legend_rows``: kept free above."""
    prediction = plan.prediction.memory
    ranks, whole = prediction.per_stage, prediction.capacity_bytes
    unit, unit_bytes = memory_unit(prediction.allocated_bytes)
    rows = [rank.rank for rank in ranks]
    names = [name for name in ranks[0].parts if any(rank.parts.get(name, 0.0) > 0 for rank in ranks)]
    colours = colours_of(names, PARTS)
    bars: dict[str, tuple[list[float], dict[str, object]]]
    bars = {label(name): ([rank.parts.get(name, 0.0) for rank in ranks], {"color": colours[name]}) for name in names}
    bars["fragmentation"] = ([rank.reserved_bytes - rank.allocated_bytes for rank in ranks], _hatched("/"))
    bars["driver and libraries"] = ([rank.device_bytes - rank.reserved_bytes for rank in ranks], _hatched("."))
    figure = go.Figure(
        [
            go.Bar(
                name=name, y=rows, x=[one / unit_bytes for one in sizes], orientation="h", marker=marker,
                customdata=[size(one) for one in sizes],
                hovertemplate="rank %{y}<br><b>" + name + "</b>: %{customdata}<extra></extra>",
            )
            for name, (sizes, marker) in bars.items()
            if any(sizes)
        ]
    )  # fmt: skip
    capacities = [rank.capacity_bytes or whole for rank in ranks]
    full = max(rank.device_bytes for rank in ranks)
    # A device of which next to nothing is used would squeeze the bars into its corner.
    if max(capacities) < 4 * full:
        figure.add_scatter(
            name="what the device has", mode="lines", line={"color": VERMILION, "width": 2, "dash": "dash"},
            x=[at / unit_bytes for at in capacities for _ in range(2)],
            y=[rank.rank + side for rank in ranks for side in (-0.5, 0.5)],
            text=[f"{rank.device or plan.cluster.device}: {size(at)}"
                  for rank, at in zip(ranks, capacities, strict=True) for _ in range(2)],
            hovertemplate="%{text}<extra></extra>",
        )  # fmt: skip
        full = max(full, *capacities)
    few = len(ranks) * ROW <= MOST_HEIGHT
    above = 16 + LEGEND_ROW * legend_rows
    return styled(
        figure, height=above + 70 + max(min(ROW * len(ranks), MOST_HEIGHT), 60), barmode="stack",
        bargap=0.25 if few else 0.05, margin={"l": 8, "r": 8, "t": above, "b": 8},
        legend={"orientation": "h", "x": 0, "y": 1, "yref": "container", "yanchor": "top", "traceorder": "normal"},
        yaxis={"range": [len(ranks) - 0.5, -0.5], "tickprefix": "rank ", "dtick": 1 if few else None,
               "tickformat": "d", "showgrid": False},
        xaxis={"title": f"{unit} a GPU", "range": [0, 1.02 * full / unit_bytes]},
    )  # fmt: skip


def _hatched(shape: str) -> dict[str, object]:
    return {
        "color": "rgba(0,0,0,0)",
        "line": {"color": GREY, "width": 1},
        "pattern": {"shape": shape, "fgcolor": GREY, "size": 6},
    }
