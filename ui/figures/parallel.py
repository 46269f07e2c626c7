"""Parallel coordinates: a line for every layout, through its choices to its memory and time."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from planner.survey import Survey
from ui.figures.axes import GIB
from ui.figures.degrees import columns_of, titled, values_of, worded
from ui.palette import SCALE, styled

LEFT_OUT = ("order", "etp", "dp_replicate", "optimizer_format", "shard_optim", "reshard_after_forward")
"""Choices that follow from others or change little."""

MOST_LABELS = 10
"""Values of one axis that are labelled."""

BAND = 0.4
"""Width of a value's band, the distance of two values being 1: lines through one value fan out by their time."""

SLOW = 0.9
"""Share of the layouts that are faster than where the colours end."""


def parallel(survey: Survey) -> go.Figure:
    """An axis for each choice in which the layouts differ, then GiB and seconds; coloured by time, the fastest blue.

    Values of a choice stand in equal distances, whatever their size; of layouts that share one the faster is lower.
    """
    time_s = survey.step_time_s
    fan = BAND * (np.argsort(np.argsort(time_s)) / max(len(survey) - 1, 1) - 0.5)
    axes: list[dict[str, Any]] = []
    for name, column in columns_of(survey).items():
        if name in LEFT_OUT:
            continue
        values = values_of(column)
        place = {value: index for index, value in enumerate(values)}
        labelled = values[:: -(-len(values) // MOST_LABELS)]
        axes.append({
            "label": titled(name), "values": np.array([place[value] for value in column]) + fan,
            "range": [-BAND, len(values) - 1 + BAND], "tickvals": [place[value] for value in labelled],
            "ticktext": [worded(value) for value in labelled],
        })  # fmt: skip
    axes.append({"label": "Memory, GiB", "values": survey.peak_bytes / GIB, "tickformat": ".3~g"})
    axes.append({"label": "Step, s", "values": time_s, "tickformat": ".3~g"})
    line = {"color": time_s, "colorscale": SCALE, "cmin": float(time_s.min()), "cmax": float(np.quantile(time_s, SLOW))}
    figure = go.Figure(go.Parcoords(dimensions=axes, line=line, labelangle=-14, labelside="top"))
    return styled(figure, height=540, margin={"l": 60, "r": 60, "t": 90, "b": 24})
