"""Memory of every pipeline rank at its worst moment, part by part, against what its device has."""

from __future__ import annotations

import plotly.graph_objects as go

from costmodel.schema.plan import Plan
from planner.report.terms import label
from planner.report.units import gibibytes
from ui.palette import GREY, PARTS, VERMILION, colours_of, styled

GIB = 2.0**30


def memory(plan: Plan) -> go.Figure:
    """GiB a rank: the parts of what is allocated, what the allocator and the driver hold beside, and the capacity."""
    ranks = plan.prediction.memory.per_stage
    names = [name for name in ranks[0].parts if any(rank.parts.get(name, 0.0) > 0 for rank in ranks)]
    colours = colours_of(names, PARTS)
    rows = [f"rank {rank.rank}" for rank in ranks]
    beside = {
        "fragmentation": [rank.reserved_bytes - rank.allocated_bytes for rank in ranks],
        "context": [rank.device_bytes - rank.reserved_bytes for rank in ranks],
    }
    bars = [
        _bar(label(name), rows, [rank.parts.get(name, 0.0) for rank in ranks], {"color": colours[name]})
        for name in names
    ]
    bars += [
        _bar(name, rows, sizes, {"color": "rgba(0,0,0,0)", "line": {"color": GREY, "width": 1},
                                 "pattern": {"shape": shape, "fgcolor": GREY, "size": 6}})
        for (name, sizes), shape in zip(beside.items(), ("/", "."), strict=True)
    ]  # fmt: skip
    figure = go.Figure(bars)
    whole = plan.prediction.memory.capacity_bytes
    for capacity in {rank.capacity_bytes or whole for rank in ranks}:
        figure.add_vline(
            x=capacity / GIB, line={"color": VERMILION, "width": 2, "dash": "dash"},
            annotation={"text": f"{gibibytes(capacity)} GiB there", "yref": "paper", "y": 1, "yanchor": "bottom"},
        )  # fmt: skip
    return styled(
        figure, height=130 + max(26 * len(ranks), 60), barmode="stack", yaxis={"autorange": "reversed"},
        xaxis={"title": "GiB a device", "rangemode": "tozero"}, margin={"l": 8, "r": 8, "t": 28, "b": 8},
    )  # fmt: skip


def _bar(name: str, rows: list[str], sizes: list[float], marker: dict[str, object]) -> go.Bar:
    return go.Bar(
        name=name, y=rows, x=[size / GIB for size in sizes], orientation="h", marker=marker,
        hovertemplate="%{y}<br><b>" + name + "</b>: %{x:.2f} GiB<extra></extra>",
    )  # fmt: skip
