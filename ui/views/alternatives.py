"""Alternatives: the whole space, what lost and why, other numbers of GPUs, another machine."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from ui.answers import Answer
from ui.views import machine, other_layouts, other_sizes

TABS: tuple[tuple[str, Callable[[Answer], None]], ...] = (
    ("Other layouts", other_layouts.show),
    ("All choices at once", other_layouts.show_choices),
    ("More or fewer GPUs", other_sizes.show),
    ("Another machine", machine.show),
)
"""Title, and what draws it: only the open one is worked out."""


def show(answer: Answer) -> None:
    """Draw the page."""
    titles = [title for title, _ in TABS]
    tabs = st.tabs(titles, key="alternatives_tab", on_change="rerun", bind="query-params")
    for tab, (_, draw) in zip(tabs, TABS, strict=True):
        if tab.open:
            with tab:
                draw(answer)
