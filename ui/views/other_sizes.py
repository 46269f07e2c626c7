"""More or fewer GPUs: the best plan on each number of them, searched when asked for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import streamlit as st

from costmodel.schema.errors import Infeasible, InvalidSpec, SolverTimeout
from planner.decisions.curve import Point
from planner.decisions.training import estimate_training
from planner.report.line import layout_words
from planner.report.units import count, digits, percent, seconds
from planner.search.find import find_plan
from ui import charts
from ui.answers import Answer
from ui.parts import chart
from ui.question import Question
from ui.remembered import Remembered

FEWER, MORE = 8, 16
"""How many times fewer and more GPUs than asked are looked at, by doubling."""

_points: Remembered[tuple[Question, int], Point] = Remembered(512)


def counts_around(answer: Answer) -> tuple[int, ...]:
    """Numbers of GPUs by doubling around the asked one: whole nodes, and of a pasted cluster no more than it has.

    Raises InvalidSpec for a cluster that is planned whole.
    """
    cluster, pasted = answer.request.cluster, bool(answer.question.cluster)
    if len(cluster.groups) > 1:
        raise InvalidSpec("a cluster of several kinds of node is planned whole, not in parts")
    asked = cluster.num_devices
    found = {asked}
    number = asked
    while number % 2 == 0 and number // 2 * FEWER >= asked:
        number //= 2
        found.add(number)
    if not pasted:
        found.update(asked << place for place in range(1, MORE.bit_length()))
    return tuple(sorted(found))


def find_point(answer: Answer, devices: int) -> Point:
    """The best plan on so many GPUs, or why there is none; the asked number's is the answer itself."""
    if devices == answer.request.cluster.num_devices:
        return Point(devices, answer.plan)
    return _points.of((answer.question, devices), lambda: _search(answer, devices))


def _search(answer: Answer, devices: int) -> Point:
    try:
        plan = find_plan(answer.question.request(devices))
    except (Infeasible, InvalidSpec, SolverTimeout) as error:
        return Point(devices, why_not=error.message)
    return Point(devices, plan.model_copy(update={"training": estimate_training(plan, answer.run)}))


@st.fragment
def show(answer: Answer) -> None:
    """A button, then the curve as it grows."""
    try:
        counts = counts_around(answer)
    except InvalidSpec as error:
        st.info(f"There is no curve here: {error.message}.", icon=":material/info:")
        return
    known = [_known(answer, number) for number in counts]
    st.markdown(
        "The best layout on each number of GPUs, with the same sequences a step on all of them (strong scaling)."
        " Each number is a search of its own."
    )
    if any(point is None for point in known):
        place = st.empty()
        if not place.button(
            f"Search {counts[0]:,} to {counts[-1]:,} GPUs", icon=":material/play_arrow:", key="alternatives_search"
        ):
            return
        for done, number in enumerate(counts):
            points = [point for point in map(partial(_known, answer), counts) if point is not None]
            with place.container():
                st.progress(done / len(counts), f"Searching {number:,} GPUs: {done} of {len(counts)} numbers are done.")
                _draw(points, f"_{done}")
            find_point(answer, number)
        place.empty()
    _draw([find_point(answer, number) for number in counts])


def _known(answer: Answer, devices: int) -> Point | None:
    if devices == answer.request.cluster.num_devices:
        return Point(devices, answer.plan)
    return _points.get((answer.question, devices))


def _draw(points: Sequence[Point], suffix: str = "") -> None:
    """``suffix``: of the figures' keys, which a run of the page may use once."""
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("What they give together", anchor=False)
        chart(charts.scaling(points), f"scaling{suffix}")
    with right:
        st.subheader("What the run takes", anchor=False)
        chart(charts.run_cost(points), f"run_cost{suffix}")
    found = [point for point in points if point.plan is not None]
    answers = [point.answer for point in found]
    table = {
        "GPUs": [f"{point.devices:,}" for point in found],
        "step": [seconds(plan.prediction.step_time_s.mean) for plan, _ in answers],
        "tokens/s a GPU": [digits(plan.prediction.tokens_per_s_per_device) for plan, _ in answers],
        "MFU": [percent(plan.prediction.mfu) for plan, _ in answers],
        f"{count(answers[0][1].tokens)} tokens": [seconds(training.time_s.mean) for _, training in answers],
        "GPU-hours": [count(training.device_hours) for _, training in answers],
    }
    if all(training.cost is not None for _, training in answers):
        table["cost"] = [count(training.cost or 0.0) for _, training in answers]
    table["layout"] = [layout_words(plan.layout) for plan, _ in answers]
    st.table(table, border="horizontal", hide_index=True)
    for point in points:
        if point.why_not is not None:
            st.caption(f"{point.devices:,} GPUs: {point.why_not}.")
