"""Activations that pipeline ranks keep, over the step."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from planner.evaluate import Evaluated, kept_by_stage
from ui.figures.axes import memory_unit
from ui.palette import CYCLE, styled

MOST = 6
"""Ranks drawn: the first, the last and those evenly between."""


def activations(evaluated: Evaluated, start_s: float, end_s: float) -> go.Figure:
    """Saved activations on a few ranks, from the start of an F to the end of its W (of its B where it is not split),
    over a stretch of the step. In GiB, or in MiB where they are less than one.
    """
    schedule, simulation = evaluated.schedule, evaluated.simulation
    curves = {}
    for rank in np.unique(np.linspace(0, schedule.num_ranks - 1, MOST).round().astype(int)).tolist():
        kept = kept_by_stage(evaluated.of_rank(rank).layers, evaluated.placement, evaluated.problem)
        when_s, held_bytes = simulation.memory_over_time(rank, np.tile(kept.activations, schedule.copies))
        first, last = np.searchsorted(when_s, (start_s, end_s), side="right").tolist()
        held_bytes = np.insert(held_bytes, 0, 0.0)[first : last + 1]
        curves[rank] = np.concatenate([[start_s], when_s[first:last], [end_s]]), np.append(held_bytes, held_bytes[-1])
    largest = max(float(held_bytes.max()) for _, held_bytes in curves.values())
    unit, unit_bytes = memory_unit(largest)
    figure = go.Figure(
        [
            go.Scatter(
                name=f"rank {rank}", x=when_s, y=held_bytes / unit_bytes, mode="lines",
                line={"shape": "hv", "width": 1.5, "color": CYCLE[number % len(CYCLE)]},
                hovertemplate=f"rank {rank}: %{{y:.2f}} {unit} at %{{x:.4g}} s<extra></extra>",
            )
            for number, (rank, (when_s, held_bytes)) in enumerate(curves.items())
        ]
    )  # fmt: skip
    beyond = 0.01 * (end_s - start_s)
    return styled(
        figure, height=240, yaxis={"title": unit, "rangemode": "tozero"},
        xaxis={"title": "seconds from the step's first pass", "range": [start_s - beyond, end_s + beyond]},
        uirevision=f"{start_s:.9g}",
    )  # fmt: skip
