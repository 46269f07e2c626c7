"""The layers as a strip: a cell each in model order, stage by stage, coloured by what becomes of its activations."""

from __future__ import annotations

from itertools import groupby

import numpy as np
import plotly.graph_objects as go

from costmodel.schema.plan import Plan, PlanLayer
from planner.report.units import percent
from ui.figures.boxes import boxes, labels
from ui.palette import BLUE, CYCLE, PINK, SKY, colours_of, styled

RECOMPUTED: dict[str, tuple[str, str]] = {
    "none": ("kept", BLUE),
    "selective": ("partly recomputed", SKY),
    "full": ("recomputed", PINK),
}
"""Recompute policy -> its words and colour."""

_OFFLOADED = {"host": "offloaded to the host", "nvme": "offloaded to drives"}

GAP = 0.6
"""Between stages, in cells."""


def policy_words(layer: PlanLayer) -> str:
    """``kept``, ``recomputed, in 8 bits``, ``kept, offloaded to the host``: what becomes of its activations."""
    words = [RECOMPUTED[layer.recompute][0]]
    if layer.offload:
        words.append(_OFFLOADED[layer.offload_to])
    if layer.saved_dtype != "as-computed":
        words.append("in 8 bits")
    return ", ".join(words)


def layers(plan: Plan) -> go.Figure:
    """Cells by policy; where the model has several kinds of layer, a second row by kind; stages above.

    Hatched: offloaded; dotted: in 8 bits. Of several copies of the model, which hold the same, the first.
    """
    stage_to_rank, stages = plan.pipeline.stage_to_rank, plan.pipeline.num_stages // plan.pipeline.copies
    left = np.array([layer.index + GAP * layer.stage for layer in plan.layers], np.float64)
    right = left + 0.92
    kinds = list(dict.fromkeys(layer.kind for layer in plan.layers))
    figure = go.Figure()
    words = [policy_words(layer) for layer in plan.layers]
    for policy in dict.fromkeys(words):
        mine = [at for at, word in enumerate(words) if word == policy]
        first = plan.layers[mine[0]]
        shape = "." if first.saved_dtype != "as-computed" else "/" if first.offload else ""
        colour = RECOMPUTED[first.recompute][1]
        pattern = {"shape": shape, "bgcolor": colour, "fgcolor": "white", "size": 5}
        figure.add_trace(boxes(left[mine], right[mine], 0.0, 1.0, name=policy, fillcolor=colour, fillpattern=pattern))
    if len(kinds) > 1:
        colours = colours_of(kinds, dict(zip(kinds, CYCLE[1:], strict=False)))
        for kind in kinds:
            mine = [layer.index for layer in plan.layers if layer.kind == kind]
            figure.add_trace(boxes(left[mine], right[mine], -0.55, -0.15, name=kind, fillcolor=colours[kind]))
    said = [
        f"<b>layer {layer.index}</b>, {layer.kind}<br>stage {layer.stage} on rank {stage_to_rank[layer.stage]}<br>"
        f"activations {policy}" + (f", {percent(layer.offload)} of them" if layer.offload else "")
        for layer, policy in zip(plan.layers, words, strict=True)
    ]
    figure.add_trace(labels(left, right, np.zeros(len(left)), np.ones(len(left)), said))
    every = 1 if stages <= 10 else -(-stages // 16)
    for stage, run in groupby(plan.layers, lambda layer: layer.stage):
        members = [layer.index for layer in run]
        if stages > 1 and stage % every == 0:
            text = f"stage {stage}" if stages <= 10 else f"{stage}"
            figure.add_annotation(
                x=(left[members[0]] + right[members[-1]]) / 2, y=1.0, yanchor="bottom", text=text, showarrow=False
            )
    lowest = -0.6 if len(kinds) > 1 else -0.05
    return styled(
        figure, height=170 if len(kinds) > 1 else 140, hovermode="closest", hoverdistance=40,
        xaxis={"visible": False, "range": [-0.5, right[-1] + 0.5]},
        yaxis={"visible": False, "range": [lowest, 1.45], "fixedrange": True},
    )  # fmt: skip
