"""The cluster as a picture: devices in their nodes, shaded by where they stand on a mesh axis, one group outlined."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from costmodel.schema.cluster import NodeGroup
from costmodel.schema.plan import Plan
from ui.figures.boxes import boxes, labels
from ui.figures.mesh import axes_of, coordinates, group_of, nodes_of
from ui.figures.packing import pack_cluster
from ui.palette import BLUE, GREY, VERMILION, styled

MOST = 2048
"""Devices drawn; of a larger cluster the first nodes."""

HUES = (BLUE, "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#8C510A", "#5AB4AC", "#A6BDD1")
"""Of an axis that has so few places. The outline's colour is not among them."""

SHADES = 64
"""Of an axis with more places, at most: neighbours then share one."""


def drawn_devices(plan: Plan) -> int:
    """How many of the cluster's devices are drawn: whole nodes."""
    return sum(group.devices_per_node for group in _drawn_nodes(plan))


def drawn_levels(plan: Plan) -> list[str]:
    """The levels of the network that have boxes, innermost first."""
    packed = pack_cluster(_drawn_nodes(plan), plan.cluster.spec.network)
    return list(dict.fromkeys(name for name, *_ in packed.boxes))[::-1]


def _drawn_nodes(plan: Plan) -> list[NodeGroup]:
    """The group of each node that is drawn, the first whatever its size."""
    nodes = nodes_of(plan.cluster, plan.layout)
    filled = np.cumsum([group.devices_per_node for group in nodes])
    return nodes[: max(int((filled <= MOST).sum()), 1)]


def cluster(plan: Plan, axis: str) -> go.Figure:
    """A square a GPU in rank order. ``axis``: what it is coloured by; the group of rank 0 is outlined. An empty
    ``axis``: a layout without any."""
    layout, shown, nodes = plan.layout, drawn_devices(plan), _drawn_nodes(plan)
    packed = pack_cluster(nodes, plan.cluster.spec.network)
    left, bottom = np.array(packed.devices).T
    left, bottom = left + 0.08, bottom + 0.08
    right, top = left + 0.84, bottom + 0.84
    places = {name: place[:shown] for name, place in coordinates(layout).items()}
    figure = go.Figure()
    if packed.boxes:
        _, x, y, width, height = (np.array(column) for column in zip(*packed.boxes, strict=True))
        figure.add_trace(boxes(x, x + width, y, y + height, fillcolor="rgba(128, 128, 128, 0.06)",
                               line={"width": 1, "color": GREY}, showlegend=False))  # fmt: skip
    at = places[axis] if axis else np.zeros(shown, np.int64)
    degree = getattr(layout, axis) if axis else 1
    shades = min(degree, SHADES)
    colours = HUES if degree <= len(HUES) else sample_colorscale("Cividis", np.linspace(0, 1, shades).tolist())
    for shade in range(shades):
        mine = at * shades // degree == shade
        if mine.any():
            figure.add_trace(boxes(
                left[mine], right[mine], bottom[mine], top[mine], name=f"{axis} {shade}" if axis else "GPU",
                fillcolor=colours[shade], showlegend=degree <= len(HUES) and bool(axis),
            ))  # fmt: skip
    if axis:
        mates = group_of(layout, axis)
        mates = mates[mates < shown]
        figure.add_trace(boxes(
            left[mates] - 0.08, right[mates] + 0.08, bottom[mates] - 0.08, top[mates] + 0.08, fill="none",
            name=f"the {axis} group of rank 0", line={"width": 2.5, "color": VERMILION},
        ))  # fmt: skip
    owners = [group.device for group in nodes for _ in range(group.devices_per_node)]
    numbers = [node for node, group in enumerate(nodes) for _ in range(group.devices_per_node)]
    axes = axes_of(layout)
    said = [
        f"<b>rank {rank}</b><br>{owners[rank]} in node {numbers[rank]}<br>"
        + " · ".join(f"{name} {places[name][rank]}" for name in axes)
        for rank in range(shown)
    ]
    figure.add_trace(labels(left, right, bottom, top, said))
    scale = min(48.0, 860.0 / packed.width)
    return styled(
        figure, height=int(60 + np.clip(packed.height * scale, 80, 420)), hovermode="closest", hoverdistance=20,
        xaxis={"visible": False, "range": [-0.3, packed.width + 0.3]},
        yaxis={"visible": False, "range": [-0.3, packed.height + 0.3], "scaleanchor": "x"},
    )  # fmt: skip
