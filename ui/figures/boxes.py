"""Many rectangles as one Plotly trace: a filled outline with gaps, drawn as one path however many there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike, NDArray

Column = NDArray[np.float64]


def boxes(left: ArrayLike, right: ArrayLike, bottom: ArrayLike, top: ArrayLike, **look: Any) -> go.Scatter:
    """One trace of rectangles [n], edges [n] each. It says nothing when pointed at; ``labels`` does."""
    edges = np.broadcast_arrays(*(np.asarray(edge, np.float64) for edge in (left, right, bottom, top)))
    x0, x1, y0, y1 = (np.atleast_1d(edge) for edge in edges)
    gap = np.full_like(x0, np.nan)
    look = {"mode": "lines", "line": {"width": 0}, "fill": "toself", "hoverinfo": "skip"} | look
    return go.Scatter(
        x=np.stack([x0, x1, x1, x0, x0, gap], axis=-1).ravel(),
        y=np.stack([y0, y0, y1, y1, y0, gap], axis=-1).ravel(),
        **look,
    )


def labels(
    left: Column, right: Column, bottom: Column, top: Column, text: Sequence[str], points: ArrayLike = 1
) -> go.Scatter:
    """An invisible trace that says what each rectangle is; ``points`` along its middle answer to the pointer."""
    number = np.broadcast_to(np.asarray(points, np.int64), left.shape)
    owner = np.repeat(np.arange(len(left)), number)
    nth = np.arange(len(owner)) - np.repeat(np.cumsum(number) - number, number)
    share = (nth + 0.5) / number[owner]
    return go.Scatter(
        x=left[owner] + (right - left)[owner] * share, y=((bottom + top) / 2)[owner],
        text=[text[at] for at in owner.tolist()], mode="none", hoveron="points",
        hovertemplate="%{text}<extra></extra>", showlegend=False,
    )  # fmt: skip
