"""What several pages draw alike."""

from __future__ import annotations

import plotly.graph_objects as go
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from planner.report.units import gibibytes
from ui.answers import Answer, with_runners_up
from ui.words import MEANINGS

TOOLS = {"displaylogo": False, "displayModeBar": False, "responsive": True}
"""Of every figure: no toolbar over it until it is asked for."""

_STYLE = """
<style>
.block-container { padding: 3.4rem 2.2rem 3rem; max-width: 1680px; }
[data-testid="stSidebarHeader"] { height: 1.2rem; padding: 0; margin: 0; }
[data-testid="stMetricDelta"] > div { overflow: visible; }
</style>
"""
"""Less empty space than Streamlit leaves: a laptop shows the answer without scrolling."""


def chart(figure: go.Figure, key: str) -> None:
    """A figure over the width that there is, in the page's own text colours."""
    st.plotly_chart(figure, key=key, config=TOOLS)


def tile(column: DeltaGenerator, name: str, value: str, below: str) -> None:
    """A figure in a frame. What stands below it, an interval or a whole, is no change: neither arrow nor colour."""
    column.metric(name, value, below, delta_color="off", delta_arrow="off", border=True, help=MEANINGS.get(name))


def runners_up(answer: Answer, title: str) -> None:
    """The layouts that lost, each with what makes it worse. Whoever changes the question meanwhile need not wait: every
    sign of life lets Streamlit turn to what was asked last.
    """
    st.subheader(title, anchor=False)
    place = st.empty()
    plan = with_runners_up(answer, lambda: place.caption("Placing the layouts that lost …"))
    place.empty()
    if not plan.alternatives:
        st.caption("No other layout was simulated that differs in a degree.")
        return
    best_s = plan.prediction.step_time_s.mean
    st.table(
        {
            "slower": [f"{other.step_time_s / best_s - 1.0:+.1%}" for other in plan.alternatives],
            "GiB": [gibibytes(other.memory_bytes) for other in plan.alternatives],
            "layout": [f"**{other.line}**" for other in plan.alternatives],
            "what makes it worse": [other.reason for other in plan.alternatives],
        },
        border="horizontal",
        hide_index=True,
    )


def tighten() -> None:
    """The pages' spacing."""
    st.html(_STYLE)
