"""Of Why, the pipeline: its timeline, simulated and measured, and the schedules that it was chosen from."""

from __future__ import annotations

import streamlit as st

from costmodel.schema.errors import ParlayError
from planner.report.line import layout_words
from planner.report.units import gibibytes, percent, plural, seconds
from ui import charts
from ui.answers import Answer
from ui.figures.passes import Passes, read_passes
from ui.figures.timeline import Window, drawn_at_once, window_at
from ui.parts import chart
from ui.remembered import Remembered
from ui.runs import MeasuredRun, choose_run, find_run, read_runs
from ui.schedules import Tried, say_instead, try_schedules
from ui.words import MEANINGS, said

PARTS = {"start": 0.0, "middle": 0.5, "end": 1.0}
"""Parts of a long step that are drawn pass by pass -> how far through it they are."""


_tried: Remembered[Answer, list[Tried]] = Remembered(16)
_passes: Remembered[tuple[Answer, str], Passes] = Remembered(16)


@st.fragment
def show_pipeline(answer: Answer) -> None:
    """Draw the section; its own controls redraw nothing else."""
    plan = answer.plan
    every = _tried.of(answer, lambda: try_schedules(plan))
    st.subheader("The pipeline, pass by pass", divider="gray")
    left, middle, right = st.columns([2, 3, 2])
    chosen, run = every[0], None
    if plan.layout.pp > 1:
        with left:
            chosen = _schedule(every)
        with middle:
            run = _measured(answer)
    passes = _passes.of((answer, chosen.name), lambda: read_passes(chosen.evaluated.simulation.trace()))
    with right:
        window = _window(passes)
    own, shown = every[0], chosen.evaluated
    if plan.layout.pp == 1:
        st.caption("There is no pipeline: every GPU runs all layers, one micro-batch after the other.")
    else:
        st.markdown(
            f"**{chosen.name}** on {plural(plan.layout.pp, 'pipeline rank')}: {seconds(shown.simulation.makespan_s)}"
            f" from first pass to last, of which ranks idle {percent(shown.simulation.bubble_fraction)}."
            + (f" {say_instead(own.evaluated, chosen)}" if chosen is not own else "")
        )
    traces = {f"simulated, {chosen.name}": passes}
    if run is not None and run.trace is not None:
        traces = {f"measured {run.date[:16].replace('T', ' ')}, {run.schedule}": read_passes(run.trace), **traces}
        st.markdown(
            f"The run's steps took {seconds(run.measured.step_time_s)}, against"
            f" {seconds(plan.prediction.step_time_s.mean)} predicted for the plan."
        )
    chart(charts.timeline(traces, window), "why_timeline")
    st.caption(" ".join(_notes(passes, window)))
    if plan.layout.pp > 1:
        st.markdown("**Activations that ranks keep from forward to backward**")
        chart(charts.activations(shown, *(window or Window(0.0, passes.end_s))), "why_activations")
        _compare(every)


def _schedule(every: list[Tried]) -> Tried:
    by_name = {one.name: one for one in every}
    name = st.selectbox(
        "Schedule", list(by_name), key="why_schedule", bind="query-params",
        help="The plan's own first; the same layout under any other that its runtime and sizes allow.",
    )  # fmt: skip
    return by_name[name]


def _window(passes: Passes) -> Window | None:
    """The part of the step that the user asks for; None where all of it can be drawn pass by pass."""
    if drawn_at_once(passes) == len(passes):
        return None
    part = st.segmented_control(
        "Part of the step", list(PARTS), default="start", key="why_part", bind="query-params", required=True
    )
    return window_at(passes, PARTS[part or "start"])


def _notes(passes: Passes, window: Window | None) -> list[str]:
    """How to read the timeline."""
    said = ["Drag to zoom in, double-click to zoom out."]
    if passes.later.any():
        said.append("Pale: stages of a rank beyond its first.")
    if window is not None:
        between = f"{seconds(window.start_s)} and {seconds(window.end_s)}"
        said.append(
            f"Of {len(passes):,} passes and sends those between {between} are drawn one by one; grey is where ranks are"
            " busy outside."
        )
    return said


def _measured(answer: Answer) -> MeasuredRun | None:
    """The run that the user names, or what is wrong with it, beside its field."""
    place, upload = st.columns([3, 1], vertical_alignment="bottom")
    with place:
        folder = st.text_input(
            "Folder of a plan run", key="why_run", bind="query-params", placeholder="of NAME.runs.json",
            help="What the run's last step measured is drawn above what is simulated.",
        ).strip()  # fmt: skip
    with upload, st.popover("Upload", width="stretch"):
        file = st.file_uploader("A NAME.runs.json", type="json", key="why_record")
    if not folder and file is None:
        return None
    try:
        if file is not None:
            run = choose_run(read_runs(file.getvalue().decode(errors="replace"), file.name), file.name, answer.plan)
        else:
            run = find_run(folder, answer.plan)
        assert run.trace is not None
        read_passes(run.trace)
    except ParlayError as error:
        st.error(said(error))
        return None
    if not run.is_of(answer.plan):
        st.warning(f"That run was of another layout: {layout_words(run.layout)}, {run.schedule}.")
    return run


def _compare(every: list[Tried]) -> None:
    if len(every) == 1:
        st.caption("The runtime has no other schedule for this layout.")
        return
    with st.expander(
        f"This layout under all {len(every)} schedules that it could run", icon=":material/compare_arrows:"
    ):
        st.dataframe(
            [
                {
                    "Schedule": one.name,
                    "Stages a rank": one.evaluated.placement.layout.vpp,
                    "Step": seconds(one.evaluated.step_time_s),
                    "Bubble": percent(one.evaluated.simulation.bubble_fraction),
                    "Fullest GPU, GiB": gibibytes(float(one.evaluated.priced.memory.device[0].max())),
                    "P(fits)": percent(one.evaluated.fits_probability),
                }
                for one in every
            ],
            hide_index=True,
            column_config={name: st.column_config.Column(help=meaning) for name, meaning in MEANINGS.items()},
        )  # fmt: skip
        st.caption(
            "The plan's own first. Of the others, layers keep their recomputation and, where a rank has as many stages,"
            " their stages; the search places each schedule's layers anew, so that another may come closer than here."
        )
