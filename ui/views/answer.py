"""Answer: the layout in a line, the figures that decide with their intervals, and the plan to take away."""

from __future__ import annotations

import json

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from costmodel.schema.plan import Plan
from planner.evaluate import evaluate
from planner.placement import Placement
from planner.problem import Problem
from planner.report.command import plan_command
from planner.report.line import devices_words, layout_words
from planner.report.units import count, digits, gibibytes, percent, plural, seconds
from ui import charts
from ui.answers import Answer
from ui.parts import chart


def show(answer: Answer) -> None:
    """Draw the page."""
    plan = answer.plan
    _layout(plan)
    _figures(plan)
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("Where a step's time goes")
        chart(charts.step_time(plan), "step_time")
    with right:
        st.subheader("Memory of each pipeline rank")
        chart(charts.memory(plan), "memory")
    _proof(plan)
    _take(plan)


def _layout(plan: Plan) -> None:
    layout, workload = plan.layout, plan.workload
    st.caption(
        f"**{plan.model.name}** on **{devices_words(plan.cluster)}** ({plan.cluster.spec.name}) with {plan.runtime}:"
        f" {workload.seq_len:,} tokens × {plural(workload.global_batch_size, 'sequence')} a step, {workload.precision}"
    )
    st.header(layout_words(layout), anchor=False)
    st.markdown(
        f"{plural(layout.num_microbatches, 'micro-batch')} of {plural(layout.micro_batch_size, 'sequence')} a rank,"
        f" schedule **{plan.pipeline.schedule}**"
    )
    st.code(plan_command(plan), language="bash", wrap_lines=True)


def _figures(plan: Plan) -> None:
    """A tile for each figure, its interval below: rates move against the step's time, costs with it."""
    prediction, step = plan.prediction, plan.prediction.step_time_s
    memory, training = prediction.memory, plan.training
    tiles = [
        ("Step", seconds, step.mean, +1),
        ("Tokens/s a GPU", digits, prediction.tokens_per_s_per_device, -1),
        ("MFU", percent, prediction.mfu, -1),
    ]
    if training is not None:
        tiles.append((f"{count(training.tokens)} tokens", seconds, training.time_s.mean, +1))
        tiles.append(
            ("GPU-hours", count, training.device_hours, +1)
            if training.cost is None
            else ("Cost", count, training.cost, +1)
        )
    columns = st.columns(len(tiles) + 1)
    for column, (name, words, figure, sign) in zip(columns, tiles, strict=False):
        low, high = sorted(figure * (bound / step.mean) ** sign for bound in (step.low, step.high))
        _tile(column, name, words(figure), f"{words(low)} – {words(high)}")
    _tile(
        columns[-1],
        "P(fits)",
        percent(memory.fits_probability),
        f"{gibibytes(memory.peak_bytes_per_device)} of {gibibytes(memory.capacity_bytes)} GiB",
    )


def _tile(column: DeltaGenerator, name: str, value: str, below: str) -> None:
    """An interval below a figure is no change of it: neither arrow nor colour."""
    column.metric(name, value, below, delta_color="off", delta_arrow="off", border=True)


def _proof(plan: Plan) -> None:
    proof = plan.certificate
    gap = "" if proof.gap is None else f", at most {percent(proof.gap)} from the best there can be"
    st.caption(
        f"{proof.status.capitalize()}{gap}: {proof.considered:,} layouts considered, {proof.evaluated:,} simulated,"
        f" in {seconds(proof.wall_s)}."
    )


def _take(plan: Plan) -> None:
    st.subheader("Take it", divider="gray")
    name = f"{plan.model.name}-{plan.cluster.num_devices}"
    left, right, _ = st.columns([1, 1, 3])
    left.download_button(
        "Plan", plan.model_dump_json(indent=1) + "\n", f"{name}.plan.json", "application/json",
        icon=":material/download:", width="stretch", on_click="ignore",
    )  # fmt: skip
    right.download_button(
        "Trace", lambda: _trace(plan), f"{name}.trace.json", "application/json",
        icon=":material/timeline:", width="stretch", on_click="ignore", help="The simulated step; Perfetto opens it.",
    )  # fmt: skip


def _trace(plan: Plan) -> str:
    evaluated = evaluate(Problem.from_plan(plan), Placement.from_plan(plan), plan.schedule())
    return json.dumps(evaluated.simulation.trace().to_chrome())
