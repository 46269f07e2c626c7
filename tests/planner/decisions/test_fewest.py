"""The fewest GPUs for a deadline: against all numbers in turn, where time rises and falls, and where nothing helps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from costmodel.schema.errors import Infeasible
from planner.decisions.curve import find_point
from planner.decisions.failures import Reliability
from planner.decisions.fewest import find_fewest
from planner.decisions.question import Question
from planner.request import build_request
from planner.search import find_plan

CALM = Reliability(device_mtbf_s=1e15)


def days(number: float) -> Question:
    return Question(tokens=1e12, deadline_s=number * 86400, reliability=CALM)


def test_on_every_number_in_turn_none_smaller_is_in_time(searching: Any, ask: Any) -> None:
    def step_s(devices: int, batch: int) -> float:
        return 120.0 / devices + 0.08

    for deadline in (30, 90, 200):
        question = days(deadline)
        chosen = find_fewest(searching(step_s), ask, 8, None, question).chosen
        find = searching(step_s)
        every = [*range(1, 9), *range(16, 129, 8)]
        times = {devices: find_point(find, ask, devices, question).figures[0] for devices in every}
        assert chosen is not None
        assert chosen.devices == min(devices for devices, time_s in times.items() if time_s <= deadline * 86400)


def test_numbers_in_between_are_not_told_apart_where_none_is_in_time(searching: Any, ask: Any) -> None:
    """The search is told which step would do; a plan within it is the one that it finds without."""
    seen: dict[int, float] = {}
    slow = searching(lambda devices, batch: 120.0 / devices)

    def find(request: Any, on_progress: Any = None) -> Any:
        seen[request.cluster.num_devices] = request.within_s
        return slow(request)

    find_fewest(find, ask, 8, None, days(90))
    assert seen.pop(32) == seen.pop(64) == float("inf")
    steps = -(-(10**12) // (3360 * 128))
    assert all(within_s in (float("inf"), pytest.approx(90 * 86400 / steps)) for within_s in seen.values())
    assert seen[40] < float("inf")


def test_the_search_with_a_step_to_beat() -> None:
    request = build_request("tiny", 2, gpu="h100", calibration="none", fix=["pp=1"], gap=0.0)
    best = find_plan(request)
    step_s = best.prediction.step_time_s.mean
    again = find_plan(replace(request, within_s=step_s * 1.001))
    assert again.prediction == best.prediction
    assert again.certificate.evaluated <= best.certificate.evaluated
    with pytest.raises(Infeasible, match="in less than"):
        find_plan(replace(request, within_s=step_s * 0.999))


def test_a_slow_number_in_between_does_not_hide_a_smaller_one(searching: Any, ask: Any) -> None:
    bad = {32: 36.0, 48: 36.0}

    def step_s(devices: int, batch: int) -> float | None:
        return None if devices == 56 else bad.get(devices, 120.0 / devices)

    curve = find_fewest(searching(step_s), ask, 8, None, days(100))
    assert curve.chosen is not None
    assert curve.chosen.devices == 40
    assert [point.devices for point in curve.points] == sorted(point.devices for point in curve.points)


def test_it_starts_where_the_peak_would_do(searching: Any, ask: Any) -> None:
    find = searching(lambda devices, batch: 120.0 / devices)
    find_fewest(find, ask, 8, None, days(0.5))
    model_flops_s = 1e12 * 6 * 1e6 / 989e12
    assert min(devices for devices, _ in find.asked) >= model_flops_s / 43200


def test_out_of_reach_names_the_fastest(searching: Any, ask: Any) -> None:
    find = searching(lambda devices, batch: 120.0 / devices + 0.04 * devices)
    with pytest.raises(Infeasible, match=r"in 24 hours are out of reach: the fastest found takes .* days, on 64 GPUs"):
        find_fewest(find, ask, 8, None, days(1))
    assert max(devices for devices, _ in find.asked) == 256


def test_no_more_than_there_are(searching: Any, ask: Any) -> None:
    find = searching(lambda devices, batch: 120.0 / devices)
    with pytest.raises(Infeasible, match="on 24 GPUs"):
        find_fewest(find, ask, 8, 24, days(3))
    with pytest.raises(Infeasible, match="at their peak, and 8 are the most"):
        find_fewest(find, ask, 8, 8, days(1e-4))


def test_nothing_fits_anywhere(searching: Any, ask: Any) -> None:
    with pytest.raises(Infeasible, match="no plan was found") as caught:
        find_fewest(searching(lambda devices, batch: None), ask, 8, 16, days(1))
    assert "16 GPUs: nothing on 16" in caught.value.reasons


def test_an_interruption_keeps_the_fewest_so_far(searching: Any, ask: Any) -> None:
    def step_s(devices: int, batch: int) -> float:
        if devices in (40, 48):
            raise KeyboardInterrupt
        return 120.0 / devices

    curve = find_fewest(searching(step_s), ask, 8, None, days(90))
    assert curve.interrupted
    assert curve.chosen is not None
    assert curve.chosen.devices == 64
