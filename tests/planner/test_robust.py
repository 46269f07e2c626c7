"""The robust choice: the same draws for all candidates, a score that is what it says, and a reason to differ."""

from __future__ import annotations

from math import exp
from typing import Any

import numpy as np
import pytest

from costmodel.calibration.parameters import prior_calibration
from costmodel.catalog.fit import NO_FIT
from costmodel.schema.fit import Fit
from costmodel.schema.layout import Layout
from planner.assemble import reprice
from planner.evaluate import Evaluated, evaluate
from planner.placement import Placement
from planner.problem import Problem
from planner.request import Request, build_request
from planner.robust import DRAWS, QUANTILE, choose_robust, score
from planner.search import find_plan
from planner.search.run import Outcome
from planner.search.space import enumerate_space
from planner.spread import corner_of, corner_spread


@pytest.fixture(scope="module")
def request_() -> Request:
    return build_request("llama-3.2-1b", 8, global_batch_size=64, seq_len=4096, calibration="none")


def placed(request: Request, recompute: int = 0, **degrees: Any) -> Evaluated:
    layout = Layout(**{"zero_stage": 1 if degrees.get("dp_shard", 1) > 1 else 0, **degrees})
    layout = layout.model_copy(update={"num_microbatches": 64 // layout.dp // layout.micro_batch_size})
    return evaluate(Problem.from_request(request), Placement(layout, "1f1b", (16,), (recompute,) * 16))


def fit_of(figure: str, log_std: float, quantity: str = "time") -> Fit:
    """A fit that leaves one figure open by so much."""
    parameter = {
        "name": "open", "figures": [figure], "quantity": quantity, "log_std": max(log_std, 1e-3), "source": "a test",
        "factor": 1.0, "fitted_log_std": log_std,
    }  # fmt: skip
    return Fit.load({"date": "2026-11-01", "parameters": [parameter], "covariance": [[log_std**2]]}, "a test's fit")


def test_with_nothing_open_but_the_corner_the_score_is_its_quantile(request_: Request) -> None:
    problem, one = Problem.from_request(request_), placed(request_, tp=8)
    found = score(problem, [one], NO_FIT, None)
    half = np.random.default_rng(0).standard_normal((DRAWS // 2, 1))
    noise = np.concatenate([half, -half])[:, 0]
    spread = corner_spread(NO_FIT, corner_of(problem, one.placement.layout), problem.setting.runtime.spread)
    assert found.quantile_s[0] == pytest.approx(one.step_time_s * exp(spread * np.quantile(noise, QUANTILE)), rel=1e-3)
    assert found.fits_probability[0] == pytest.approx(one.fits_probability, abs=1e-9)


def test_draws_are_the_same_for_all_and_every_time(request_: Request) -> None:
    problem, one, other = Problem.from_request(request_), placed(request_, tp=8), placed(request_, dp_shard=8)
    alone = score(problem, [one], request_.fit, None)
    twice = score(problem, [one, other, one], request_.fit, None)
    assert twice.quantile_s[0] == twice.quantile_s[2] == pytest.approx(alone.quantile_s[0], rel=1e-12)
    assert twice.fits_probability[0] == pytest.approx(alone.fits_probability[0], rel=1e-12)


def test_a_layout_that_leans_on_an_uncertain_figure_scores_worse(request_: Request) -> None:
    problem = Problem.from_request(request_)
    both = [placed(request_, tp=8), placed(request_, dp_shard=8)]
    sure, open_ = (score(problem, both, fit_of("cluster.*.nvlink.bytes_per_s", std), None) for std in (0.01, 1.0))
    assert open_.quantile_s[0] > sure.quantile_s[0] * 1.1
    assert open_.quantile_s[1] < sure.quantile_s[1] * 1.02


def test_a_measured_device_adds_its_own_draws(request_: Request) -> None:
    problem, one = Problem.from_request(request_), placed(request_, tp=8)
    prior = prior_calibration(request_.device, request_.cluster)
    assert score(problem, [one], NO_FIT, prior).quantile_s[0] > score(problem, [one], NO_FIT, None).quantile_s[0] * 1.01


def choose(monkeypatch: pytest.MonkeyPatch, request: Request, fit: Fit, first: Evaluated, other: Evaluated) -> Any:
    monkeypatch.setattr("planner.robust.near_optimal", lambda *_: [other])
    asked = Request(**{**vars(request), "fit": fit, "robust": True})
    return choose_robust(asked, Problem.from_request(request), Outcome(enumerate_space(request)), first)


def test_a_slower_plan_is_chosen_where_the_fastest_leans_on_what_is_uncertain(
    request_: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made equally fast but for one percent, so that the spread alone decides."""
    fast, slow = placed(request_, tp=8), placed(request_, dp_shard=8)
    fast.__dict__["step_time_s"] = slow.step_time_s * 0.99
    sure = choose(monkeypatch, request_, fit_of("cluster.*.nvlink.bytes_per_s", 0.001), fast, slow)
    assert sure[0] is fast
    chosen, said = choose(monkeypatch, request_, fit_of("cluster.*.nvlink.bytes_per_s", 1.0), fast, slow)
    assert chosen is slow
    assert said.quantile_s < said.fastest_quantile_s
    assert said.fastest_step_time_s == fast.step_time_s


def test_a_leaner_plan_is_chosen_where_memory_is_uncertain(request_: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    full, lean = placed(request_, dp_shard=8, micro_batch_size=8), placed(request_, recompute=2, dp_shard=8)
    held = float(full.priced.peak_device_bytes[0]) * 1.2
    small = Request(**{**vars(request_), "device": request_.device.model_copy(update={"memory_bytes": held})})
    full, lean = placed(small, dp_shard=8, micro_batch_size=8), placed(small, recompute=2, dp_shard=8)
    assert full.fits_probability > 0.95
    full.__dict__["step_time_s"] = lean.step_time_s * 0.9
    chosen, said = choose(
        monkeypatch, small, fit_of("runtime.*.memory.fragmentation_excess", 1.5, "memory"), full, lean
    )
    assert chosen is lean
    assert said.fastest_fits_probability < 0.95 <= said.fits_probability


def test_a_search_for_the_robust_plan() -> None:
    """Its gap is its own, and the fastest by mean stays among what is told."""
    ask = {"global_batch_size": 32, "fix": ["tp=1,schedule=1f1b,micro_batch_size=1"], "top": 1}
    fastest, robust = (find_plan(build_request("llama-8b", 8, robust=one, **ask)) for one in (False, True))
    said = robust.robust
    assert fastest.robust is None
    assert said is not None
    assert said.fastest_step_time_s == pytest.approx(fastest.prediction.step_time_s.mean, rel=1e-9)
    assert said.fits_probability >= 0.95 or said.fits_probability >= said.fastest_fits_probability
    step_s = robust.prediction.step_time_s.mean
    assert step_s >= said.fastest_step_time_s * (1 - 1e-9)
    assert robust.certificate.gap == pytest.approx((step_s - robust.certificate.lower_bound_s) / step_s)
    assert reprice(robust) == robust.prediction
