"""Colours and the look of every figure: told apart with any colour vision, on a light and on a dark page.

Source: Okabe and Ito 2008, "Color Universal Design", without its yellow and black, which one of the two pages hides.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import plotly.graph_objects as go
from plotly.colors import sample_colorscale

BLUE, ORANGE, GREEN, VERMILION, PINK, SKY, GREY = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#8C8C8C",
)  # fmt: skip

CYCLE = (BLUE, ORANGE, GREEN, VERMILION, PINK, SKY, GREY)
"""In order, for groups that have no colour of their own."""

GRID = "rgba(128, 128, 128, 0.22)"
FAINT = "rgba(128, 128, 128, 0.14)"
"""Seen on both pages without being looked at."""

COMPUTE, COMMUNICATION, WAITING, STATE = (BLUE, SKY), (VERMILION, ORANGE, PINK), GREY, GREEN

TERMS: dict[str, str] = {
    "gemm": BLUE, "attention": SKY, "elementwise": "#4B6A88", "host": "#A6BDD1", "recompute": PINK,
    "tp": VERMILION, "cp": "#B2182B", "ep": "#8C510A", "dp": ORANGE, "pp": "#F0C05A", "bubble": GREY,
    "optimizer": GREEN, "activation_offload": "#5AB4AC", "activation_casts": "#80CDC1",
    "optimizer_offload": "#01665E", "jitter": "#BDBDBD", "shared_cores": "#636363",
}  # fmt: skip
"""Each term of a step's time: computing blue, communication red to yellow, state green, waiting grey."""

PARTS: dict[str, str] = {
    "params": BLUE, "grads": SKY, "optimizer": GREEN, "activations": ORANGE, "logits": PINK, "gathered": VERMILION,
    "working": "#8C510A", "pending": "#5AB4AC", "buffers": "#BDBDBD", "workspace": "#636363",
}  # fmt: skip
"""Each part of a device's memory."""


def colours_of(names: Iterable[str], known: dict[str, str]) -> dict[str, str]:
    """A colour for every name: its own where it has one, the next of ``CYCLE`` otherwise."""
    names = list(names)
    others = iter(range(len(names)))
    return {name: known.get(name) or CYCLE[next(others) % len(CYCLE)] for name in names}


SCALE = [
    [place / 6, f"rgb({red}, {green}, {blue})"]
    for place, (red, green, blue) in enumerate(
        ((0, 114, 178), (86, 180, 233), (0, 158, 115), (154, 168, 46), (230, 159, 0), (213, 94, 0), (204, 121, 167))
    )
]
"""From little to much, dark enough on a light page and light enough on a dark one."""


def shades(number: int, *, ordered: bool) -> list[str]:
    """So many colours: along ``SCALE`` for values that rise, of ``CYCLE`` for names."""
    if not ordered:
        return [CYCLE[place % len(CYCLE)] for place in range(number)]
    places = [place / max(number - 1, 1) for place in range(number)]
    return [str(colour) for colour in sample_colorscale(SCALE, places)]


def lighter(colour: str) -> str:
    """Half way from ``#RRGGBB`` to white: black is read on it on either page."""
    return "#" + "".join(f"{(int(colour[at : at + 2], 16) + 255) // 2:02X}" for at in (1, 3, 5))


def styled(figure: go.Figure, *, height: int, **layout: Any) -> go.Figure:
    """The figure with the house's look: its legend above the plot, where no axis is in the way. Text colours are left
    to the page, light or dark.
    """
    figure.update_layout(
        height=height,
        margin={"l": 8, "r": 8, "t": 8, "b": 8},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "traceorder": "normal"},
        hoverlabel={"align": "left"},
        uirevision="keep",
    )
    figure.update_xaxes(gridcolor=GRID, zeroline=False, automargin=True)
    figure.update_yaxes(gridcolor=GRID, zeroline=False, automargin=True)
    figure.update_layout(**layout)
    return figure
