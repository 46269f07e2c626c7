"""Why: where the step's time and memory go, the pipeline pass by pass, the layers, and the cluster under them."""

from __future__ import annotations

import streamlit as st

from costmodel.schema.plan import Plan
from planner.report.layers import activations_words
from planner.report.line import layout_words, recompute_counts
from planner.report.terms import MEANING, label
from planner.report.units import percent, plural, seconds, size
from ui import charts
from ui.answers import Answer
from ui.figures.layers import RECOMPUTED
from ui.figures.step_time import shown_terms
from ui.parts import chart
from ui.remembered import Remembered
from ui.views.why_cluster import show_cluster
from ui.views.why_pipeline import show_pipeline
from ui.words import plain

_bindings: Remembered[Answer, list[str]] = Remembered(64)


def show(answer: Answer) -> None:
    """Draw the page."""
    plan = answer.plan
    st.header(f"Why {layout_words(plan.layout)}", anchor=False)
    _time(plan)
    _limits(answer)
    _memory(plan)
    show_pipeline(answer)
    _layers(plan)
    show_cluster(plan)


def _time(plan: Plan) -> None:
    st.subheader("Where a step's time goes", divider="gray")
    st.caption(f"A step takes {seconds(plan.prediction.step_time_s.mean)}: the solid bars together.")
    chart(charts.step_time(plan), "why_step_time")
    with st.expander("What each term is", icon=":material/help:"):
        step_s = plan.prediction.step_time_s.mean
        rows = [
            f"| {label(term.name)} | {seconds(term.exposed_s)} | {percent(term.exposed_s / step_s)}"
            f" | {seconds(term.hidden_s) if term.hidden_s else '–'} | {MEANING.get(term.name, '')} |"
            for term in shown_terms(plan)
        ]
        st.markdown("\n".join(["| | lengthens | share | hidden | is |", "|---|--:|--:|--:|---|", *rows]))


def _limits(answer: Answer) -> None:
    st.subheader("What limits it, and what was weighed", divider="gray")
    said = [*_bindings.of(answer, lambda: _binding(answer.plan)), *answer.plan.notes]
    st.markdown("\n".join(f"- {plain(sentence)}" for sentence in said) or "No limit has been reached.")


def _binding(plan: Plan) -> list[str]:
    from planner.binding import what_binds

    return [one.says for one in what_binds(plan)]


def _memory(plan: Plan) -> None:
    memory = plan.prediction.memory
    st.subheader("Memory at the worst moment", divider="gray")
    st.caption(
        f"The fullest GPU takes {size(memory.peak_bytes_per_device)} of {size(memory.capacity_bytes)}; it fits with"
        f" probability {percent(memory.fits_probability)}. Hatched is what the allocator and the driver hold beside"
        " tensors."
    )
    chart(charts.memory(plan), "why_memory")


def _layers(plan: Plan) -> None:
    st.subheader("Layers", divider="gray")
    counts = recompute_counts(plan)
    words = [f"{plural(number, 'layer')} {RECOMPUTED[policy][0]}" for policy, number in counts.most_common()]
    more = activations_words(plan.layers)
    copies = f" Each of the {plan.pipeline.copies} copies holds the same." if plan.pipeline.copies > 1 else ""
    if more:
        words.append(more)
    if plan.pipeline.num_stages > 1:
        copies = f" Above them the numbers of the pipeline's stages.{copies}"
    st.caption(f"A cell a layer, coloured by what becomes of its activations: {', '.join(words)}.{copies}")
    chart(charts.layers(plan), "why_layers")
