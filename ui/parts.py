"""What several pages draw alike."""

from __future__ import annotations

import plotly.graph_objects as go
import streamlit as st

TOOLS = {"displaylogo": False, "displayModeBar": False, "responsive": True}
"""Of every figure: no toolbar over it until it is asked for."""


def chart(figure: go.Figure, key: str) -> None:
    """A figure over the width that there is, in the page's own text colours."""
    st.plotly_chart(figure, key=key, config=TOOLS)
