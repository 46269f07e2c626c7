"""Answer: the layout in a line and in words, the figures that decide with their intervals, the plan to take away."""

from __future__ import annotations

import streamlit as st

from costmodel.schema.plan import Plan
from planner.report.command import plan_command
from planner.report.line import devices_words, layout_words
from planner.report.proof import LEAST_GAP
from planner.report.terms import label
from planner.report.units import count, digits, gibibytes, percent, plural, seconds
from ui import charts, downloads
from ui.answers import Answer, with_runners_up
from ui.parts import chart, runners_up, tile
from ui.words import in_sentences, spanned


def show(answer: Answer) -> None:
    """Draw the page."""
    plan = answer.plan
    _layout(plan)
    _figures(plan)
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("Where a step's time goes", anchor=False)
        chart(charts.step_time(plan), "step_time")
    with right:
        st.subheader("What fills the memory", anchor=False)
        chart(charts.memory(plan, legend_rows=5), "memory")
        _proof(plan)
    _take(answer)
    runners_up(answer, "Why not another")
    _small_print(plan)


def _layout(plan: Plan) -> None:
    workload = plan.workload
    st.caption(
        f"**{plan.model.name}** on **{devices_words(plan.cluster)}** ({plan.cluster.spec.name}) with {plan.runtime}:"
        f" {workload.seq_len:,} tokens × {plural(workload.global_batch_size, 'sequence')} a step, {workload.precision}"
    )
    st.title(layout_words(plan.layout), anchor=False)
    st.markdown(" ".join(in_sentences(plan)))
    st.code(plan_command(plan), language=None, wrap_lines=True)


def _figures(plan: Plan) -> None:
    """A tile for each figure, its 90% interval below: rates move against the step's time, costs with it."""
    prediction, step = plan.prediction, plan.prediction.step_time_s
    memory, training = prediction.memory, plan.training
    tiles = [
        ("Step", seconds, step.mean, +1),
        ("Tokens/s a GPU", digits, prediction.tokens_per_s_per_device, -1),
        ("MFU", percent, prediction.mfu, -1),
    ]
    if training is not None:
        tiles.append((f"{count(training.tokens)} tokens", seconds, training.time_s.mean, +1))
        tiles.append(("GPU-hours", count, training.device_hours, +1))
        if training.cost is not None:
            tiles.append(("Cost", count, training.cost, +1))
    columns = st.columns(len(tiles) + 1)
    for column, (name, words, figure, sign) in zip(columns, tiles, strict=False):
        low, high = sorted(figure * (bound / step.mean) ** sign for bound in (step.low, step.high))
        tile(column, name, words(figure), spanned(words(low), words(high)))
    used, there = (gibibytes(size) for size in (memory.peak_bytes_per_device, memory.capacity_bytes))
    tile(columns[-1], "P(fits)", percent(memory.fits_probability), f"{used} of {there} GiB")


def _proof(plan: Plan) -> None:
    """How far from the best the answer can be, in a sentence."""
    proof = plan.certificate
    verdict = {"proven": "Proven", "bounded": "Bounded", "stopped": "Stopped at the time limit"}[proof.status]
    if proof.gap is None:
        sure = f"{verdict}, without a bound on how much better another layout could be"
    elif proof.gap < LEAST_GAP:
        sure = f"{verdict}: no layout of the space is faster"
    else:
        sure = f"{verdict}: no layout of the space is more than {percent(proof.gap)} faster"
    st.info(
        f"{sure}. {proof.considered:,} layouts were considered and {proof.evaluated:,} simulated in"
        f" {seconds(proof.wall_s)}.",
        icon=":material/verified:",
    )


def _take(answer: Answer) -> None:
    plan = answer.plan
    st.subheader("Take it", anchor=False)
    files = downloads.files_of(f"{plan.model.name}-{plan.cluster.num_devices}", lambda: with_runners_up(answer))
    for column, file in zip(st.columns(4), files, strict=True):
        column.download_button(
            file.label, file.content, file.name, file.mime,
            icon=":material/download:", width="stretch", on_click="ignore", help=file.says, key=file.label,
        )  # fmt: skip


def _small_print(plan: Plan) -> None:
    left, right = st.columns(2, gap="large")
    with left.expander("Worth knowing", icon=":material/lightbulb:", expanded=bool(plan.notes)):
        st.markdown("\n".join(f"- {note}" for note in plan.notes) or "Nothing beyond the figures above.")
    with right.expander(f"{plural(len(plan.prediction.assumptions), 'assumption')}", icon=":material/rule:"):
        st.markdown("\n".join(f"- {sentence}" for sentence in plan.prediction.assumptions))
    ruled_out = {label(rule): number for rule, number in plan.certificate.pruned.items() if number}
    with left.expander("How the others were ruled out", icon=":material/filter_alt:"):
        st.markdown("\n".join(f"- {number:,} by {rule}" for rule, number in ruled_out.items()) or "None was.")
    with right.expander("In what the proof is loose", icon=":material/balance:"):
        found = plan.certificate.relaxations
        st.markdown("\n".join(f"- **{label(one.name)}**: {one.effect}" for one in found) or "In nothing.")
