"""Another machine: the same plan with the network, the memory or the devices faster or slower, answered at once."""

from __future__ import annotations

import streamlit as st

from planner.report.units import gibibytes, percent, seconds
from planner.sensitivity import FIGURES, Outcome, Repriced, Sensitivity, sweep
from ui import charts
from ui.answers import Answer
from ui.parts import chart, tile
from ui.remembered import Remembered

SLIDERS = (
    "compute", "memory_bandwidth", "memory", "network_in_node", "network_between_nodes", "latency",
)  # fmt: skip
"""Figures with a slider, most asked for first."""

FACTORS = (0.25, 0.33, 0.5, 0.67, 0.75, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.25, 1.33, 1.5, 2.0, 3.0, 4.0)

MARGIN = 0.01
"""Share of the step by which another layout must be faster before it is said to win: the default gap of a search."""

_ready: Remembered[Answer, Repriced] = Remembered(16)
_elasticities: Remembered[Answer, dict[str, float]] = Remembered(64)
_sweeps: Remembered[Answer, Sensitivity] = Remembered(64)


def repriced(answer: Answer) -> Repriced:
    """The answer's plan, ready to be priced again."""
    return _ready.of(answer, lambda: Repriced(answer.plan))


def show(answer: Answer) -> None:
    """Sliders with what they do, then what the step hangs on, then who would win."""
    left, right = st.columns(2, gap="large")
    with left:
        _sliders(answer)
    with right:
        st.subheader("What the step hangs on", anchor=False)
        found = _elasticities.of(answer, repriced(answer).elasticities)
        chart(charts.sensitivity(found), "sensitivity")
        st.caption("Of the same plan. More memory makes no step shorter by itself; it lets other plans fit.")
    _winners(answer)


@st.fragment
def _sliders(answer: Answer) -> None:
    """Only this much is drawn anew when a slider moves."""
    st.subheader("The same plan, if …", anchor=False)
    factors: dict[str, float] = {}
    columns = st.columns(2)
    for place, name in enumerate(SLIDERS):
        factors[name] = columns[place % 2].select_slider(
            f"{name.replace('_', ' ').capitalize()} ×", FACTORS, 1.0, format_func=lambda factor: f"{factor:g}",
            key=f"alternatives_{name}", bind="query-params", help=FIGURES[name].says.capitalize() + ".",
        )  # fmt: skip
    changed = repriced(answer).changed({name: factor for name, factor in factors.items() if factor != 1.0})
    base = repriced(answer).changed({})
    share = changed.step_time_s / base.step_time_s - 1.0
    left, middle, right = st.columns(3)
    left.metric(
        "Step", seconds(changed.step_time_s), _change(share) or "as it is",
        delta_color="inverse" if abs(share) >= 5e-4 else "off", border=True,
        delta_arrow="auto" if abs(share) >= 5e-4 else "off",
    )  # fmt: skip
    tile(middle, "P(fits)", percent(changed.fits_probability), f"{percent(base.fits_probability)} as it is")
    there = answer.plan.prediction.memory.capacity_bytes * factors["memory"]
    tile(right, "Fullest device", f"{gibibytes(changed.peak_bytes_per_device)} GiB", f"of {gibibytes(there)} GiB")
    asked = answer.request.fit_probability
    if changed.fits_probability < asked:
        st.warning(f"The plan no longer fits with {asked:.0%} certainty: another would have to be found.")


@st.fragment
def _winners(answer: Answer) -> None:
    st.subheader("Would another layout win?", anchor=False)
    found = _sweeps.get(answer)
    if found is None:
        st.caption("The whole space is searched again under each of a dozen changes.")
        place = st.empty()
        if not place.button("Search under each change", icon=":material/play_arrow:", key="alternatives_sweep"):
            return
        with place, st.spinner("Searching under each change …"):
            found = _sweeps.of(answer, lambda: sweep(answer.plan))
        place.empty()
    asked, base_s = answer.request.fit_probability, found.base.step_time_s
    st.table(
        {
            "if": [f"{one.figure.replace('_', ' ')} × {one.factor:g}" for one in found.outcomes],
            "step of this plan": [seconds(one.plan.step_time_s) for one in found.outcomes],
            "change": [_change(one.plan.step_time_s / base_s - 1.0) for one in found.outcomes],
            "P(fits)": [percent(one.plan.fits_probability) for one in found.outcomes],
            "best then": [_best_then(one, asked) for one in found.outcomes],
        },
        border="horizontal",
        hide_index=True,
    )  # fmt: skip


def _change(share: float) -> str:
    """``+6.3%``; empty where it rounds to nothing."""
    return f"{share:+.1%}" if abs(share) >= 5e-4 else ""


def _best_then(one: Outcome, fit_probability: float) -> str:
    if one.reason is not None:
        return one.reason
    return (
        f"{seconds(one.best_step_time_s or 0.0)}: {one.best_line}" if one.wins(MARGIN, fit_probability) else "this one"
    )
