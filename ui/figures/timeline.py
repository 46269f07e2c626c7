"""The pipeline on a timeline: every pass of every rank, gathers and sends on lanes of their own below."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go

from planner.report.units import seconds
from ui.figures.boxes import Column, boxes, labels
from ui.figures.passes import COMPUTE, Passes
from ui.palette import BLUE, FAINT, GREEN, GREY, ORANGE, PINK, SKY, VERMILION, lighter, styled

MOST, MOST_A_RANK = 5000, 300
"""Passes and transfers drawn one by one; what runs beyond them is drawn as stretches in which a rank is busy."""

LOOKS: dict[str, tuple[str, str]] = {
    "F": ("forward", BLUE),
    "B": ("backward", ORANGE),
    "I": ("input gradient", SKY),
    "W": ("weight gradient", GREEN),
    "OVERLAP_F_B": ("forward and backward at once", VERMILION),
    "VOCAB_IN_F": ("embedding", PINK),
    "VOCAB_IN_B": ("embedding's gradient", PINK),
    "VOCAB_F": ("output layer", "#8C510A"),
    "VOCAB_B": ("output layer's gradients", "#8C510A"),
    "VOCAB_W": ("output layer's weight gradient", "#8C510A"),
    "FROZEN_F": ("frozen forward", "#BDBDBD"),
    "UNSHARD": ("gather parameters", "#8C6BB1"),
    "REDUCE_GRAD": ("reduce gradients", "#B2182B"),
    "send": ("send", GREY),
    "collective": ("collective", "#5AB4AC"),
    "optimizer": ("optimizer", "#01665E"),
}
"""Kind of pass or transfer -> its words and colour."""

DARK = (BLUE, GREEN, VERMILION, "#8C510A", "#01665E", "#B2182B", "#8C6BB1")
"""Colours on which a white number is read."""

_LANES = {"compute": (0.0, 0.66), "communication": (0.7, 0.82), "send": (0.84, 0.94)}
"""From the top of a rank's row, as shares of it."""

NUMBERED = 0.012
"""Least width of a pass, as a share of the view, to carry its micro-batch's number."""


class Window(NamedTuple):
    """The stretch of a step that is drawn pass by pass, in seconds."""

    start_s: float
    end_s: float


def drawn_at_once(passes: Passes) -> int:
    """How many of the passes and transfers are drawn one by one."""
    return min(len(passes), MOST, MOST_A_RANK * passes.num_ranks)


def window_at(passes: Passes, share: float) -> Window:
    """As long a stretch as can be drawn pass by pass, ``share``, 0 to 1, of the way through the step."""
    drawn = drawn_at_once(passes)
    last = len(passes) - drawn
    first = round(share * last)
    starts = np.append(np.sort(passes.start_s), passes.end_s)
    return Window(float(starts[first]) if first else 0.0, float(starts[first + drawn]))


def timeline(traces: Mapping[str, Passes], window: Window | None = None) -> go.Figure:
    """A row a rank for each of the named traces, the first on top, all on one axis of seconds."""
    figure = go.Figure()
    view = window or Window(0.0, max(passes.end_s for passes in traces.values()))
    ticks: list[tuple[float, str]] = []
    top, known = 0.0, set[str]()
    for name, passes in traces.items():
        if len(traces) > 1:
            figure.add_annotation(
                x=0, xref="paper", xanchor="left", y=top + 0.4, text=f"<b>{name}</b>", showarrow=False
            )
            top += 0.8
        _draw(figure, passes, view, top, known)
        ticks += [(top + rank + 0.33, f"rank {rank}") for rank in range(passes.num_ranks)]
        top += passes.num_ranks
    every = max(1, -(-len(ticks) // 16)) if len(traces) == 1 else 1
    ticks = ticks[::every]
    beyond = 0.01 * (view.end_s - view.start_s)
    return styled(
        figure,
        height=int(110 + np.clip(44 * top, 60, 560)),
        yaxis={"range": [top, 0], "tickvals": [at for at, _ in ticks], "ticktext": [text for _, text in ticks],
               "showgrid": False, "fixedrange": True},
        xaxis={"title": "seconds from the step's first pass", "range": [view.start_s - beyond, view.end_s + beyond]},
        hovermode="closest", dragmode="zoom", uirevision=f"{view.start_s:.9g}", hoverdistance=40,
    )  # fmt: skip


def _draw(figure: go.Figure, passes: Passes, view: Window, top: float, known: set[str]) -> None:
    """One trace's rows from ``top`` down; ``known``: kinds that the legend has already."""
    inside = (passes.finish_s >= view.start_s) & (passes.start_s <= view.end_s)
    if not inside.all():
        start_s, finish_s, rank = passes.busy_outside(view.start_s, view.end_s)
        high = top + rank + _LANES["compute"][0]
        figure.add_trace(boxes(start_s, finish_s, high, high + _LANES["compute"][1], fillcolor=FAINT, showlegend=False))
    shown = passes.take(inside)
    lanes = np.array([_LANES[lane] for lane in _LANES])[shown.lane]
    above, below = top + shown.rank + lanes[:, 0], top + shown.rank + lanes[:, 1]
    for kind, (words, colour) in LOOKS.items():
        for later in (False, True):
            mine = (shown.kind == kind) & (shown.later == later)
            if not mine.any():
                continue
            figure.add_trace(
                boxes(
                    shown.start_s[mine], shown.finish_s[mine], above[mine], below[mine], name=words,
                    fillcolor=lighter(colour) if later else colour, legendgroup=words, showlegend=words not in known,
                    line={"width": 0.5, "color": "rgba(255, 255, 255, 0.6)"},
                )
            )  # fmt: skip
            known.add(words)
    said = [
        f"<b>{name}</b> on rank {rank}<br>{LOOKS[kind][0]}{lot}<br>{seconds(finish - start)}, from {seconds(start)}"
        for name, rank, kind, lot, start, finish in zip(
            shown.name, shown.rank.tolist(), shown.kind.tolist(), _of_microbatch(shown), shown.start_s.tolist(),
            shown.finish_s.tolist(), strict=True,
        )
    ]  # fmt: skip
    # A pass is wide enough to be pointed at off its middle; a send is not.
    points = np.where(shown.lane == COMPUTE, 3, 1)
    figure.add_trace(labels(shown.start_s, shown.finish_s, above, below, said, points))
    _number(figure, shown, view, above, below)


def _number(figure: go.Figure, shown: Passes, view: Window, above: Column, below: Column) -> None:
    """The micro-batch on every pass that is wide enough for it."""
    wide = (shown.finish_s - shown.start_s > NUMBERED * (view.end_s - view.start_s)) & (shown.lane == COMPUTE)
    wide &= shown.microbatch >= 0
    if not wide.any() or np.ptp(below) > 20:
        return
    colours = [
        "white" if LOOKS[kind][1] in DARK and not later else "black"
        for kind, later in zip(shown.kind[wide].tolist(), shown.later[wide].tolist(), strict=True)
    ]
    figure.add_scatter(
        x=(shown.start_s + shown.finish_s)[wide] / 2, y=(above + below)[wide] / 2, mode="text",
        text=shown.microbatch[wide].astype(str), textfont={"size": 10, "color": colours}, hoverinfo="skip",
        showlegend=False,
    )  # fmt: skip


def _of_microbatch(shown: Passes) -> list[str]:
    return [f" of micro-batch {number}" if number >= 0 else "" for number in shown.microbatch.tolist()]
