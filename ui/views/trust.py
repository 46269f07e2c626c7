"""Trust: the model against runs that were measured - published ones, and one's own - and what it was calibrated to."""

from __future__ import annotations

from collections.abc import Sequence
from math import expm1

import streamlit as st

from costmodel.schema.calibration import Calibration
from costmodel.schema.errors import ParlayError
from costmodel.schema.fit import Fit
from planner.report.units import percent
from planner.request import Request
from planner.validation.result import PricedRow
from planner.validation.shipped import shipped_runs
from planner.validation.summary import Errors, Summary, summarise
from ui import charts
from ui.answers import Answer
from ui.figures.measured import GROUPS, grouped
from ui.parts import chart, tile
from ui.pasted import as_file, naming
from ui.remembered import Remembered
from ui.words import said

COLUMNS = {
    "median": "Half of the runs are nearer to their prediction than this.",
    "mean": "Mean distance of a run from its prediction, either way.",
    "bias": "Median of predicted / measured − 1: above 0 where the model says longer steps than were measured.",
}
"""Columns of the table of errors -> what they are."""

_priced: Remembered[tuple[bytes, str], list[PricedRow]] = Remembered(8)


def show(answer: Answer) -> None:
    """Draw the page."""
    _draw(answer.request)


def show_alone() -> None:
    """Draw what holds for any question."""
    _draw(None)


def _draw(request: Request | None) -> None:
    published, own, calibration = st.tabs(["Published runs", "Your own runs", "Calibration in use"])
    with published:
        _published()
    with own:
        _own()
    with calibration:
        if request is None:
            st.info("What is asked on the left cannot be planned yet: no device is chosen.")
        elif request.calibration is None:
            _fit(request.fit)
        else:
            _calibrated(request.calibration)


def _published() -> None:
    from costmodel.catalog.fit import shipped_fit

    fit, runs = shipped_fit(), shipped_runs()
    st.markdown(
        f"{len(runs):,} published training runs, from Megatron-LM of 2020 to JAX of 2025, V100 to GB200, beside what"
        f" the model says of them. The catalog's factors were fitted to their step times on {fit.date}: of a source"
        f" that the fit has not seen, expect a scatter of ±{expm1(fit.unseen_log_std):.0%}."
    )
    _compared(runs, "published")


def _own() -> None:
    st.markdown(
        "A table of runs that you measured, one a line: the columns **gpu**, **gpus**, **seq_len**, **global_batch**"
        " and **model** (or **layers**, **hidden**, **heads**, **ffn_hidden**), and what was measured:"
        " **step_time_s**, **mem_gib_peak**, **oom**. Degrees (**tp**, **pp**, …), **framework** and **precision**"
        " help; what is left out the framework fills in."
    )
    uploaded = st.file_uploader("Measured runs", type="csv", key="own_runs")
    if uploaded is None:
        return
    try:
        with st.spinner(f"Pricing {uploaded.name} …"):
            content, name = uploaded.getvalue(), uploaded.name
            results = _priced.of((content, name), lambda: _price(content, name))
    except ParlayError as error:
        st.error(said(error))
        return
    from planner.validation.output import to_csv

    unpriced = [one for one in results if not one.priced]
    st.markdown(f"{len(results) - len(unpriced):,} of {len(results):,} rows priced.")
    if unpriced:
        with st.expander(f"{len(unpriced):,} rows without a price", icon=":material/help:"):
            st.table(
                {"row": [one.row.id for one in unpriced], "why": [one.reason for one in unpriced]}, hide_index=True
            )
    _compared(results, "own")
    st.download_button(
        "Predictions", to_csv(results), "predicted.csv", "text/csv", icon=":material/download:", on_click="ignore"
    )


def _price(content: bytes, name: str) -> list[PricedRow]:
    from planner.validation.pricing import price_rows
    from planner.validation.table import read_table

    path = as_file(content, name)
    with naming((path, name)):
        return price_rows(read_table(path))


def _compared(results: Sequence[PricedRow], key: str) -> None:
    """Tiles, the scatter, the errors of each group. ``key``: keeps two such blocks on a page apart."""
    summary = summarise(results)
    if summary.pooled is None:
        st.info("No row has a measured step_time_s beside its price: there is nothing to compare.")
        return
    _tiles(summary, summary.pooled.count)
    group = st.segmented_control(
        "Grouped by", list(GROUPS), default="source", required=True, key=f"trust_{key}_group", bind="query-params"
    )
    chart(charts.predicted_against_measured(results, str(group)), f"{key}_scatter")
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("How far off", anchor=False)
        chart(charts.errors_by_group(results, str(group)), f"{key}_errors")
    with right:
        st.subheader("The same in figures", anchor=False)
        errors = {
            name: Errors.of([one.step_error or 0.0 for one in runs])
            for name, runs in grouped(results, str(group)).items()
        }
        st.dataframe(
            {
                str(group): list(errors),
                "runs": [one.count for one in errors.values()],
                "median": [percent(one.median) for one in errors.values()],
                "mean": [percent(one.mean) for one in errors.values()],
                "bias": [f"{one.bias:+.1%}" for one in errors.values()],
            },
            hide_index=True,
            height="content",
            column_config={name: st.column_config.Column(help=meaning) for name, meaning in COLUMNS.items()},
        )


def _tiles(summary: Summary, steps: int) -> None:
    """``steps``: how many measured step times there are."""
    tiles = [
        ("Typical error of a step", percent(summary.source_median or 0.0), "median, averaged over sources"),
        ("Mean error of a step", percent(summary.source_mean or 0.0), "averaged over sources"),
        ("Inside the 90% interval", percent(summary.covered or 0.0), f"of {steps:,} steps"),
    ]
    counted = summary.out_of_memory
    if counted is not None:
        outcomes = counted.ran + counted.ran_out
        tiles.append(("Fits or not, told right", percent(counted.accuracy), f"of {outcomes:,} runs"))
    for column, (name, value, below) in zip(st.columns(4), tiles, strict=False):
        tile(column, name, value, below)


def _calibrated(found: Calibration) -> None:
    """The device's own calibration: what it moved, and what it leaves open."""
    host = f" at {found.host}" if found.host else ""
    st.markdown(
        f"**{found.device}** as measured by `plan calibrate` on **{found.date}**{host}:"
        f" {len(found.measurements):,} operations, which scatter by ±{expm1(found.residual_log_std):.0%} about the fit."
    )
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("What measuring changed", anchor=False)
        chart(charts.calibrated_parameters(found), "calibrated")
    with right:
        st.subheader("What it leaves open", anchor=False)
        chart(charts.residuals(found), "residuals")


def _fit(fit: Fit) -> None:
    """The factors on the catalog, where the device has no calibration of its own."""
    behind = " and ".join(f"{table.rows:,} rows of {table.name}" for table in fit.tables)
    st.markdown(
        f"No calibration of this device was measured here (`plan calibrate` makes one), so the catalog's figures hold,"
        f" with {len(fit.parameters)} factors fitted on **{fit.date}** to {behind}. Runs scatter by"
        f" ±{expm1(fit.seen_log_std):.0%} about the fit, and by ±{expm1(fit.unseen_log_std):.0%} where their source was"
        " left out."
    )
    st.subheader("What the measured runs ask of the catalog", anchor=False)
    chart(charts.fitted_factors(fit), "factors")
