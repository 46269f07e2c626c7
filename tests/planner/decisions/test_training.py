"""A plan's run: its interval, the chance of being in time, its cost, and when it is told unasked."""

from __future__ import annotations

from typing import Any

import pytest

from costmodel.schema.errors import Infeasible
from costmodel.schema.prediction import Interval
from planner.decisions.failures import WORTH_SAYING
from planner.decisions.question import Question
from planner.decisions.training import (
    check_in_time,
    count_steps,
    estimate_training,
    on_time_probability,
    without_unasked,
)


def test_chances_follow_from_the_interval() -> None:
    time_s = Interval(mean=100.0, low=80.0, high=125.0)
    assert on_time_probability(time_s, 100.0) == pytest.approx(0.5)
    assert on_time_probability(time_s, 125.0) == pytest.approx(0.95, abs=1e-4)
    assert on_time_probability(time_s, 80.0) == pytest.approx(0.05, abs=1e-4)
    sure = Interval(mean=100.0, low=100.0, high=100.0)
    assert [on_time_probability(sure, at) for at in (99.0, 100.0, 101.0)] == [0.0, 1.0, 1.0]


def test_steps_are_whole_and_no_token_is_left_out() -> None:
    assert count_steps(Question(tokens=1e6), 65536, 65536) == (1e6, 16)
    assert count_steps(Question(tokens=65536 * 16.0), 65536, 65536)[1] == 16
    assert count_steps(Question(tokens=1e6, critical_batch_tokens=65536.0), 131072, 65536) == (1.5e6, 12)


def test_time_and_cost(make_plan: Any) -> None:
    plan = make_plan()
    training = estimate_training(plan, Question(tokens=1e9, price_per_device_hour=2.0))
    assert training.time_s.mean * training.goodput.share == pytest.approx(15259 * 0.5)
    assert training.time_s.high / training.time_s.mean == pytest.approx(0.56 / 0.5)
    assert training.cost == pytest.approx(8 * training.time_s.mean / 3600 * 2.0)
    twice = estimate_training(plan, Question(tokens=2e9, price_per_device_hour=2.0))
    assert twice.cost == pytest.approx(2 * training.cost, rel=1e-4)


def test_the_catalogs_price_is_the_default(make_plan: Any) -> None:
    priced = make_plan(cluster={"device_spec": {"price_per_hour": 3.0}})
    assert estimate_training(priced, Question()).price_per_device_hour == 3.0
    assert estimate_training(priced, Question(price_per_device_hour=2.0)).price_per_device_hour == 2.0


def test_a_late_run_is_infeasible(make_plan: Any) -> None:
    def plan(deadline_s: float) -> Any:
        training = estimate_training(make_plan(), Question(tokens=1e9, deadline_s=deadline_s))
        return make_plan().model_copy(update={"training": training})

    check_in_time(plan(8000.0))
    with pytest.raises(Infeasible, match=r"8 h100 take 2\.1\d hours for 1B tokens, 117 minutes are given"):
        check_in_time(plan(7000.0))


def test_a_run_is_told_unasked_where_failures_matter(make_plan: Any) -> None:
    plan = make_plan()
    plan = plan.model_copy(update={"training": estimate_training(plan, Question())})
    assert without_unasked(plan, Question()).training is None
    assert without_unasked(plan, Question(tokens=1e9)).training is not None
    large = plan.model_copy(update={"cluster": plan.cluster.model_copy(update={"num_devices": WORTH_SAYING})})
    assert without_unasked(large, Question()).training is not None
