"""Why."""

from __future__ import annotations

import streamlit as st

from ui.answers import Answer


def show(answer: Answer) -> None:
    """Draw the page."""
    st.header("Why")
