"""What one GPU sends over each level of the network in a step, and how long that alone would take."""

from __future__ import annotations

import plotly.graph_objects as go

from costmodel.collectives import Network
from costmodel.schema.plan import Plan
from planner.report.units import rate, seconds, size
from ui.palette import COMMUNICATION, styled


def wire_times_s(plan: Plan) -> dict[str, tuple[float, float]]:
    """{level: (bytes/s, seconds)}: what a GPU reaches there, and its bytes over that. Levels inside a node
    are those of the busiest rank's kind of node, or of the first kind that names them so.
    """
    cluster, found = plan.cluster.spec, {}
    for group in cluster.unlike_groups:
        network = Network.from_levels(group.levels + cluster.network)
        if network.names == tuple(plan.prediction.network):
            for name, bytes_per_s in zip(network.names, network.bytes_per_s.tolist(), strict=True):
                found[name] = (bytes_per_s, plan.prediction.network[name] / bytes_per_s)
            break
    return found


def traffic(plan: Plan) -> go.Figure:
    """A bar a level, innermost on top: seconds at the level's own rate, the bytes beside it."""
    network, times = plan.prediction.network, wire_times_s(plan)
    names = list(network)
    text = [f" {size(network[name])} at {rate(times[name][0])}: {seconds(times[name][1])}" for name in names]
    longest_s = max((times[name][1] for name in names), default=0.0) or 1.0
    figure = go.Figure(
        [
            go.Bar(
                y=names, x=[times[name][1] for name in names], orientation="h", showlegend=False,
                marker={"color": COMMUNICATION[0]}, hoverinfo="skip",
            ),
            go.Scatter(
                y=names, x=[times[name][1] for name in names], mode="text", text=text, textposition="middle right",
                hoverinfo="skip", showlegend=False, cliponaxis=False,
            ),
        ]
    )  # fmt: skip
    return styled(
        figure, height=90 + 34 * len(names), yaxis={"autorange": "reversed", "showgrid": False}, bargap=0.35,
        xaxis={"title": "seconds of a step if nothing else ran", "range": [0, 1.7 * longest_s]},
    )  # fmt: skip
