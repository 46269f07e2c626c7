"""The Trust page: published runs, one's own, and the calibration behind the figures."""

from __future__ import annotations

from math import exp
from pathlib import Path

import pytest
from opened import opened
from streamlit.testing.v1 import AppTest

from costmodel.catalog.fit import shipped_fit
from costmodel.schema.calibration import Calibration, Measurement, Parameter
from planner.validation.shipped import read_runs, shipped_runs, shipped_stamp, stamp, write_runs
from planner.validation.summary import summarise
from ui import charts

HEADER = "id,model,gpu,gpus,seq_len,global_batch,tp,pp,dp,micro_batch,framework,step_time_s"
ROWS = ("mine,llama-7b,A100-80GB-SXM,8,2048,64,1,1,8,1,Megatron-LM,3.1", "odd,no-such-model,h100,8,2048,64,1,1,8,1,,2")


@pytest.fixture(scope="module")
def trust() -> AppTest:
    return opened("trust", model="tiny", gpu="cpu", gpus="1")


def test_what_ships_is_priced_under_the_fit_that_ships() -> None:
    assert shipped_stamp() == stamp(shipped_fit())


def test_shipped_runs_read_back_as_they_were_written() -> None:
    runs = shipped_runs()
    assert read_runs(write_runs(runs, shipped_fit())) == list(runs)


def test_the_page_shows_the_summary_of_all_shipped_runs(trust: AppTest) -> None:
    summary = summarise(shipped_runs())
    shown = {metric.label: metric.value for metric in trust.metric}
    assert shown["Typical error of a step"] == f"{summary.source_median:.1%}"
    assert shown["Inside the 90% interval"] == f"{summary.covered:.1%}"
    assert len(trust.get("plotly_chart")) == 3


def test_every_group_has_its_box_and_every_run_its_point() -> None:
    runs = shipped_runs()
    measured = [one for one in runs if one.step_error is not None]
    for group in ("source", "GPU"):
        points = charts.predicted_against_measured(runs, group).data[2:]
        boxes = charts.errors_by_group(runs, group).data
        assert sum(len(trace.x) for trace in points) == sum(len(box.x) for box in boxes) == len(measured)
        assert len(points) == len(boxes)
    assert {box.name for box in charts.errors_by_group(runs, "GPU").data} == {one.row.gpu for one in measured}


def test_an_uploaded_table_is_priced_as_the_command_does(trust: AppTest) -> None:
    app = opened("trust", model="tiny", gpu="cpu", gpus="1")
    app.file_uploader(key="own_runs").upload("runs.csv", "\n".join((HEADER, *ROWS)).encode(), "text/csv").run()
    assert not app.exception
    assert any("1 of 2 rows priced" in text.value for text in app.markdown)
    assert len(app.get("plotly_chart")) == 5
    assert not app.error


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"gpu,gpus\nh100,8\n", "runs.csv: the column seq_len is missing"),
        (b"", "runs.csv"),
        ((HEADER + "\nmine,llama-7b,h100\n").encode(), "runs.csv: row 1 has 3 cells"),
        (b"\xff\xfe\x00", "runs.csv is not text in UTF-8"),
    ],
    ids=["column", "empty", "cut", "binary"],
)
def test_a_table_that_cannot_be_read_is_one_sentence(content: bytes, said: str) -> None:
    app = opened("trust", model="tiny", gpu="cpu", gpus="1")
    app.file_uploader(key="own_runs").upload("runs.csv", content, "text/csv").run()
    assert not app.exception
    assert [error.value.startswith(said) for error in app.error] == [True]


def test_the_page_needs_no_answer() -> None:
    app = opened("trust", model="tiny", gpu="cpu", gpus="1")
    app.text_input(key="fix").set_value("tp=3").run()
    assert not app.exception
    assert any("does not divide the 1 devices" in error.value for error in app.error)
    assert any(metric.label == "Inside the 90% interval" for metric in app.metric)


def test_factors_stand_where_the_fit_put_them() -> None:
    fit = shipped_fit()
    points = charts.fitted_factors(fit).data[1]
    factors = {one.name: one.factor for one in fit.parameters}
    assert [factors[name] for name in points.y] == list(points.x)


def test_a_calibration_shows_its_parameters_and_residuals() -> None:
    parameter = Parameter(
        name="device.sustained_fraction", value=0.6, prior=0.8, prior_log_std=0.2, log_std=0.01, unit=""
    )
    measured = [Measurement(op="gemm", shape={}, seconds=2.0, predicted_seconds=time) for time in (1.8, 2.2)]
    calibration = Calibration(
        device="cpu", date="2026-01-01", parameters=(parameter,), covariance=((1e-4,),), residual_log_std=0.1,
        measurements=(*measured, Measurement(op="gemm", shape={}, seconds=1.0)),
    )  # fmt: skip
    band, points = charts.calibrated_parameters(calibration).data
    assert points.x == pytest.approx((0.75,))
    assert band.base[0] == pytest.approx(exp(-1.645 * 0.2), rel=1e-3)
    (box,) = charts.residuals(calibration).data
    assert sorted(box.x) == pytest.approx([-10.0, 10.0])


def test_the_accuracy_page_says_the_same() -> None:
    summary = summarise(shipped_runs())
    page = (Path(__file__).parents[2] / "docs" / "accuracy.md").read_text(encoding="utf-8")
    assert f"inside the 90% interval: {summary.covered:.1%}" in page
    (mean,) = [line.split() for line in page.split("## ")[1].splitlines() if line.startswith("mean of the sources")]
    assert mean[-2:] == [f"{summary.source_median:.1%}", f"{summary.source_mean:.1%}"]
