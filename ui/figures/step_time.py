"""Where a step's time goes: a bar for every term, what lengthens the step apart from what hides behind compute."""

from __future__ import annotations

import textwrap

import plotly.graph_objects as go

from costmodel.schema.plan import Plan
from planner.report.terms import MEANING, Term, label, terms_of
from planner.report.units import percent, seconds
from ui.palette import TERMS, colours_of, styled

NEGLIGIBLE = 0.0005
"""Share of a step below which a term is left out of the picture."""


def shown_terms(plan: Plan) -> list[Term]:
    """The terms that the picture has, longest first."""
    step_s = plan.prediction.step_time_s.mean
    return [term for term in terms_of(plan.prediction.breakdown) if term.total_s > NEGLIGIBLE * step_s]


def step_time(plan: Plan) -> go.Figure:
    """Exposed time solid, hidden time hatched behind it, in seconds, the longest term on top."""
    step_s, terms = plan.prediction.step_time_s.mean, shown_terms(plan)
    names = [label(term.name) for term in terms]
    colours = list(colours_of((term.name for term in terms), TERMS).values())
    meaning = [(seconds(term.exposed_s), wrapped(MEANING.get(term.name, ""))) for term in terms]
    figure = go.Figure(
        [
            go.Bar(
                name="lengthens the step", x=[term.exposed_s for term in terms], y=names, orientation="h",
                marker={"color": colours}, customdata=meaning,
                hovertemplate="<b>%{y}</b>: %{customdata[0]}<br>%{customdata[1]}<extra></extra>",
            ),
            go.Bar(
                name="hidden behind compute", x=[term.hidden_s for term in terms], y=names, orientation="h",
                marker={"color": "rgba(0,0,0,0)", "line": {"color": colours, "width": 1},
                        "pattern": {"shape": "/", "fgcolor": colours, "size": 6}},
                customdata=[seconds(term.hidden_s) for term in terms],
                hovertemplate="<b>%{y}</b>: %{customdata} hidden<extra></extra>",
                showlegend=any(term.hidden_s for term in terms),
            ),
            go.Scatter(
                x=[term.total_s for term in terms], y=names, mode="text", textposition="middle right",
                text=[f" {percent(term.exposed_s / step_s)}" for term in terms], showlegend=False, hoverinfo="skip",
                cliponaxis=False,
            ),
        ]
    )  # fmt: skip
    longest_s = max((term.total_s for term in terms), default=1.0)
    return styled(
        figure, height=100 + 28 * len(terms), barmode="stack", bargap=0.3,
        yaxis={"autorange": "reversed", "showgrid": False},
        xaxis={"title": "seconds of a step; beside each bar its share of it", "range": [0, 1.1 * longest_s]},
        margin={"l": 8, "r": 8, "t": 40, "b": 8},
    )  # fmt: skip


def wrapped(text: str, width: int = 60) -> str:
    """Lines of a hover label."""
    return "<br>".join(textwrap.wrap(text, width))
