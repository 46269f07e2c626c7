"""Other layouts: all of them as points, one of them held against the plan, and all of their choices side by side."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import streamlit as st

from costmodel.schema.errors import ParlayError
from costmodel.schema.plan import Plan
from planner.constraints.words import pins_of
from planner.report.compare import choices_that_differ, parts_that_differ, terms_that_differ
from planner.report.line import layout_words
from planner.report.terms import label
from planner.report.units import percent, seconds, size
from planner.survey import Survey
from ui import charts
from ui.answers import Answer
from ui.figures.axes import GIB
from ui.figures.degrees import CODED, DEGREES, columns_of, titled
from ui.parts import TOOLS, chart, runners_up
from ui.rivals import Rival, find_rival, survey_of
from ui.words import plain, said

SPACE, AGAINST, COLOUR = "alternatives_space", "alternatives_against", "alternatives_colour"

MOST_LINES = 600
"""Layouts that are drawn in parallel coordinates."""

NAMES = {
    "cp_ring": "Ring context parallel",
    "cp_ulysses": "All-to-all context parallel",
    "num_microbatches": "Micro-batches",
    "layers_per_stage": "Layers of each stage",
    "recompute": "Layers recomputed",
}
"""What choices are called that no layout's column is."""


def show(answer: Answer) -> None:
    """The scatter, the comparison below it, then the runners-up."""
    _explore(answer)
    runners_up(answer, "What came next")


@st.fragment
def _explore(answer: Answer) -> None:
    """Points and the one that was picked: only this much is drawn anew when another is."""
    survey = _survey(answer)
    if survey is not None:
        _points(answer, survey)
    _against(answer)


def _survey(answer: Answer) -> Survey | None:
    """The space, or a sentence in its place where there is none to draw."""
    try:
        return survey_of(answer)
    except ParlayError as error:
        st.info(f"The layouts are not drawn here: {error.message}.", icon=":material/info:")
        return None


def _points(answer: Answer, survey: Survey) -> None:
    drawn = survey.thinned()
    names = list(columns_of(drawn))
    left, right = st.columns([3, 1], vertical_alignment="bottom")
    left.markdown(_counted(survey, drawn))
    if not names:
        st.caption("The space has one layout.")
        return
    usual = "pp" if "pp" in names else names[0]
    colour = right.selectbox(
        "Colour by", names, index=names.index(usual), format_func=titled, key=COLOUR, bind="query-params"
    )
    figure = charts.space(drawn, answer.plan, colour if colour in names else usual)
    st.plotly_chart(
        figure, key=SPACE, selection_mode="points", on_select=lambda: _pick(answer, drawn),
        config=TOOLS,
    )  # fmt: skip


def _counted(survey: Survey, drawn: Survey) -> str:
    """What is drawn, and of how many."""
    whole = len(survey) == survey.considered
    priced = "All of them" if whole else f"{len(survey):,} of them, in regular distances,"
    return (
        f"**{survey.considered:,} layouts** are possible. {priced} are priced here by formula, with the same"
        f" recomputation in all layers, and {int(survey.fits.sum()):,} fit. Drawn are {len(drawn):,}: the Pareto front"
        " (nothing is both faster and smaller), what the search simulated, the fastest that fit, and a regular sample"
        " of the rest, faint where it does not fit. **Click a point** to hold it against the plan."
    )


def _pick(answer: Answer, drawn: Survey) -> None:
    """What was clicked becomes the layout to compare with."""
    points: list[dict[str, Any]] = st.session_state[SPACE]["selection"]["points"]
    rows = [point["customdata"][0] for point in points if point.get("customdata")]
    if rows:
        layouts, row = drawn.layouts, int(rows[0])
        words = pins_of(answer.request, layouts.row(row), layouts.schedule_name(row))
        st.session_state[AGAINST] = ", ".join(words)


def _against(answer: Answer) -> None:
    """The layout that was clicked or typed, against the plan."""
    text = st.text_input(
        "Hold against the plan", key=AGAINST, bind="query-params", placeholder="tp=8, pp=4",
        help="What the other layout must have; the rest of it is chosen for the best. Clicking a point fills this in.",
    )  # fmt: skip
    if not text.strip():
        return
    try:
        rival = find_rival(answer, text.strip())
    except ParlayError as error:
        st.error(said(error).replace("against ", "", 1))
        return
    if rival.refusal is None:
        st.markdown(rival.verdict(answer.plan))
    else:
        st.warning(rival.verdict(answer.plan), icon=":material/block:")
    for sentence in rival.left_out:
        st.caption(plain(sentence))
    if rival.plan is not None:
        _compare(answer.plan, rival.plan, rival, text.strip())


def _compare(plan: Plan, other: Plan, rival: Rival, text: str) -> None:
    leanest = "" if rival.refusal is None else ", the leanest such layout, priced though it does not fit"
    st.markdown(f"**{layout_words(other.layout)}**, {other.pipeline.schedule}{leanest}:")
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("Time, against the plan", anchor=False)
        terms = terms_that_differ(plan, other)
        if terms:
            chart(charts.difference(terms, 1.0, "seconds of a step more or less than the plan", seconds), "terms")
        else:
            st.caption("Every term is the same.")
    with right:
        st.subheader("Memory of the fullest rank", anchor=False)
        parts = parts_that_differ(plan, other)
        if parts:
            chart(charts.difference(parts, GIB, "GiB more or less than the plan", size), "parts")
        else:
            st.caption("Every part is the same.")
    _choices(plan, other)
    if rival.refusal is None and st.button(
        "Plan with this layout", icon=":material/push_pin:", help="Fixes it in the constraints on the left.",
        key="alternatives_pin", on_click=lambda: st.session_state.update(fix=text),
    ):  # fmt: skip
        st.rerun(scope="app")


def _choices(plan: Plan, other: Plan) -> None:
    ours, theirs = plan.prediction, other.prediction
    rows = [
        ("Step", seconds(ours.step_time_s.mean), seconds(theirs.step_time_s.mean)),
        ("MFU", percent(ours.mfu), percent(theirs.mfu)),
        ("P(fits)", percent(ours.memory.fits_probability), percent(theirs.memory.fits_probability)),
        *(
            (_named(name), _short(name, first), _short(name, second))
            for name, first, second in choices_that_differ(plan, other)
        ),
    ]
    st.table(
        {
            "": [name for name, _, _ in rows],
            "the plan": [first for _, first, _ in rows],
            "the other": [second for _, _, second in rows],
        },
        border="horizontal",
        hide_index=True,
    )


def _named(choice: str) -> str:
    return NAMES.get(choice) or (titled(choice) if choice in DEGREES or choice in CODED else label(choice).capitalize())


def _short(choice: str, value: str) -> str:
    """A choice's value, long lists by runs: ``2, 15 × 3, 16 × 2``."""
    if choice == "layers offloaded":
        return f"{float(value):.3g}"
    if "," not in value or " " in value:
        return value
    if choice in ("order", "expert_order"):
        return value.replace(",", " · ")
    runs = [(len(list(run)), first) for first, run in groupby(value.split(","))]
    return ", ".join(f"{number} × {first}" if number > 1 else first for number, first in runs)


def show_choices(answer: Answer) -> None:
    """Parallel coordinates of the fastest that fit."""
    survey = _survey(answer)
    if survey is None:
        return
    drawn, fitting = survey.fastest(MOST_LINES), int(survey.fits.sum())
    if len(drawn) < 2 or not columns_of(drawn):
        st.caption("With one policy for all layers no two layouts fit that differ in a choice.")
        return
    st.markdown(
        f"The **{len(drawn):,} fastest** of {fitting:,} layouts that fit with one policy for all layers: a line"
        " each, coloured by its step. Drag along an axis to keep what passes there, drag a title to move its axis."
    )
    chart(charts.parallel(drawn), "parallel")
