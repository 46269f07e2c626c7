"""The fewest GPUs for a deadline: against all numbers in turn, where time rises and falls, and where nothing helps."""

from __future__ import annotations

from dataclasses import replace
from math import ceil, inf
from typing import Any

import pytest

from costmodel.flops import estimate_model_flops
from costmodel.gemm import peak_flops_per_s
from costmodel.schema.errors import Infeasible, SolverTimeout
from planner.decisions.curve import find_point
from planner.decisions.failures import Reliability
from planner.decisions.fewest import find_fewest
from planner.decisions.in_time import SLACK
from planner.decisions.question import Question
from planner.request import Request, build_request
from planner.search import find_plan
from planner.search.floor import estimate_step_floor_s
from planner.sizes import Sizes

NODES = Sizes(8)

CALM = Reliability(device_mtbf_s=1e15)


@pytest.fixture
def without_floors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every number of devices has layouts, whose times are the search's alone to say."""
    monkeypatch.setattr("planner.decisions.in_time.estimate_step_floor_s", lambda request: 0.0)


def days(number: float) -> Question:
    return Question(tokens=1e12, deadline_s=number * 86400, reliability=CALM)


def test_on_every_number_in_turn_none_smaller_is_in_time(searching: Any) -> None:
    def ask(devices: int | None, batch: int | None) -> Request:
        fix = ["tp=1", "pp=1", "cp_ring=1", "zero_stage=0"]
        return build_request("tiny", devices, gpu="h100", global_batch_size=3360, calibration="none", fix=fix)

    def step_s(devices: int, batch: int) -> float:
        return 120.0 / devices + 0.08

    for deadline in (90, 200):
        question = days(deadline)
        chosen = find_fewest(searching(step_s), ask, Sizes(8, 64), question).chosen
        every = [devices for devices in NODES.up_to(64) if estimate_step_floor_s(ask(devices, None)) < inf]
        times = {devices: find_point(searching(step_s), ask, devices, question).figures[0] for devices in every}
        assert chosen is not None
        assert chosen.devices == min(devices for devices, time_s in times.items() if time_s <= deadline * 86400)


@pytest.mark.usefixtures("without_floors")
def test_the_search_is_told_what_would_be_in_time(searching: Any, ask: Any) -> None:
    """Which step may do, and which is enough to look no further. The answer is then searched as if nobody had asked."""
    seen: list[tuple[int, float, float]] = []
    found = searching(lambda devices, batch: 120.0 / devices)

    def find(request: Any, on_progress: Any = None) -> Any:
        seen.append((request.cluster.num_devices, request.within_s, request.enough_s))
        return found(request)

    chosen = find_fewest(find, ask, Sizes(8, 128), days(90)).chosen
    assert chosen is not None
    steps_s = 90 * 86400 / -(-(10**12) // (3360 * 128))
    assert seen.pop() == (chosen.devices, inf, 0.0)
    assert all(enough_s < within_s == pytest.approx(steps_s, rel=2 * SLACK) for _, within_s, enough_s in seen)
    assert all(enough_s > 0.99 * within_s for devices, within_s, enough_s in seen if devices > chosen.devices)


def test_the_search_with_a_step_to_beat() -> None:
    request = build_request("tiny", 2, gpu="h100", calibration="none", fix=["pp=1"], gap=0.0)
    best = find_plan(request)
    step_s = best.prediction.step_time_s.mean
    again = find_plan(replace(request, within_s=step_s * 1.001))
    assert again.prediction == best.prediction
    assert again.certificate.evaluated <= best.certificate.evaluated
    with pytest.raises(Infeasible, match="in less than"):
        find_plan(replace(request, within_s=step_s * 0.999))


def test_the_search_stops_at_a_step_that_is_enough() -> None:
    request = build_request("tiny", 2, gpu="h100", calibration="none", fix=["pp=1"], gap=0.0, top=0)
    whole = find_plan(request)
    step_s = whole.prediction.step_time_s.mean
    first = find_plan(replace(request, enough_s=inf))
    assert first.certificate.evaluated == 1
    assert first.prediction.step_time_s.mean >= step_s
    assert first.certificate.lower_bound_s is not None
    assert estimate_step_floor_s(request) <= first.certificate.lower_bound_s <= step_s
    assert find_plan(replace(request, enough_s=step_s)).prediction.step_time_s.mean == step_s


@pytest.mark.usefixtures("without_floors")
def test_a_slow_number_does_not_hide_a_smaller_one(searching: Any, ask: Any) -> None:
    bad = {32: 36.0, 48: 36.0}

    def step_s(devices: int, batch: int) -> float | None:
        return None if devices == 56 else bad.get(devices, 120.0 / devices)

    curve = find_fewest(searching(step_s), ask, Sizes(8, 128), days(100))
    assert curve.chosen is not None
    assert curve.chosen.devices == 40
    assert [point.devices for point in curve.points] == [40]
    assert curve.said is not None
    assert "by a search" in curve.said


@pytest.mark.usefixtures("without_floors")
def test_it_starts_where_the_peak_would_do(searching: Any, ask: Any) -> None:
    find = searching(lambda devices, batch: 1e-4)
    chosen = find_fewest(find, ask, NODES, Question(tokens=1e15, deadline_s=5e5, reliability=CALM)).chosen
    assert chosen is not None
    one = ask(1, None)
    flops = 1e15 * estimate_model_flops(one.model, one.workload) / one.workload.tokens_per_step
    least = flops / peak_flops_per_s(one.device, one.workload.precision) / 5e5
    assert min(devices for devices, _ in find.asked) >= least
    assert chosen.devices == 8 * ceil(least / 8)


@pytest.mark.usefixtures("without_floors")
def test_out_of_reach_names_the_fastest_and_the_batch_that_would_do(searching: Any, ask: Any) -> None:
    find = searching(lambda devices, batch: 120.0 / devices + 0.04 * devices)
    with pytest.raises(
        Infeasible, match=r"in 30 days are out of reach: the fastest run found takes .*, on 56 GPUs"
    ) as caught:
        find_fewest(find, ask, Sizes(8, 112), days(30))
    assert caught.value.reasons[0].startswith("proven too slow: 1, 2, 4, 8, 16, 24, 32, 40, 48, 56,")
    assert caught.value.hint is not None
    # Here a step is as long whatever its batch: four times as many tokens in each end the run four times as soon.
    assert caught.value.hint.startswith("--global-batch-size 13440 is in time on 48 GPUs")
    at_4 = find_fewest(find, lambda devices, batch: ask(devices, batch or 4 * 3360), Sizes(8, 112), days(30))
    assert at_4.chosen is not None
    assert at_4.chosen.devices == 48


@pytest.mark.usefixtures("without_floors")
def test_what_a_time_limit_leaves_open_is_said(searching: Any, ask: Any) -> None:
    def step_s(devices: int, batch: int) -> float:
        if devices == 40:
            raise SolverTimeout("no time")
        return 120.0 / devices

    curve = find_fewest(searching(step_s), ask, Sizes(8, 128), days(100))
    assert curve.chosen is not None
    assert curve.chosen.devices == 48
    assert curve.said is not None
    assert curve.said.endswith("Not decided within --time-limit and --gap: 40.")


@pytest.mark.usefixtures("without_floors")
def test_no_more_than_there_are(searching: Any, ask: Any) -> None:
    find = searching(lambda devices, batch: 120.0 / devices)
    with pytest.raises(Infeasible, match="on 24 GPUs"):
        find_fewest(find, ask, Sizes(8, 24), days(3))
    with pytest.raises(Infeasible, match="at their peak, and 8 are the most"):
        find_fewest(find, ask, Sizes(8, 8), days(1e-4))


@pytest.mark.usefixtures("without_floors")
def test_nothing_fits_anywhere(searching: Any, ask: Any) -> None:
    with pytest.raises(Infeasible, match="no plan was found") as caught:
        find_fewest(searching(lambda devices, batch: None), ask, Sizes(8, 16), days(1))
    assert "16 GPUs: nothing on 16" in caught.value.reasons


@pytest.mark.usefixtures("without_floors")
def test_an_interruption_keeps_the_fewest_so_far(searching: Any, ask: Any) -> None:
    def step_s(devices: int, batch: int) -> float:
        if devices == 7:
            raise KeyboardInterrupt
        return 120.0 / devices

    curve = find_fewest(searching(step_s), ask, NODES, days(90))
    assert curve.interrupted
    assert curve.chosen is not None
    assert curve.chosen.devices == 40
    before = find_fewest(searching(step_s), ask, Sizes(7), days(90))
    assert before.interrupted
    assert before.chosen is None
    assert before.said is not None
    assert "3 by a search" in before.said
