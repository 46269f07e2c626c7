"""ZB-H2, ZB-V, V-Half and V-Min: valid over their whole domain, their memory, their closed forms, their times."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.schedules import SCHEDULES, PassTimes, build_schedule, check_schedule
from planner.schedules.report import ScheduleSummary, rank_times, schedule_summary
from planner.schedules.zb_h2 import least_span
from planner.simulator import simulate

unhurried = settings(deadline=None, max_examples=60)
NAMES = ("zb-h2", "zb-v", "v-half", "v-min")

PEAK = {
    "zb-h2": lambda p: 2 * p - 1,
    "zb-v": lambda p: p,
    "v-half": lambda p: p / 2 + 1,
    "v-min": lambda p: (p + 4) // 3,
}
"""Micro-batches of all of a rank's layers alive at most, with F = I = W."""

BUBBLE = {
    "zb-h2": lambda p: p - 1,
    "zb-v": lambda p: (p - 1) / 2,
    "v-half": lambda p: (3 * p - 6) / 2 if p % 2 else (3 * p - 7) / 2,
    "v-min": lambda p: (4 * p - (7, 5, 9)[p % 3]) / 2,
}
"""Makespan beyond a rank's work with F = I = W = 1, no delay, p > 2 and m >= p."""

ratio = st.sampled_from([0.25, 0.6, 0.75, 1.0, 1.25, 1.6, 2.0])
pass_times = st.builds(PassTimes, st.just(1.0), ratio, ratio, st.sampled_from([0.0, 0.02, 0.1, 0.4]))


def summary(name: str, pp: int, m: int, times: PassTimes) -> ScheduleSummary:
    schedule = build_schedule(name, pp, m, SCHEDULES[name].vpp, times)
    return schedule_summary(schedule, times.forward, times.input_grad, times.weight_grad, times.comm)


@unhurried
@given(st.sampled_from(NAMES), st.integers(2, 12), st.integers(1, 30), pass_times)
def test_valid_and_within_memory_for_any_size_and_times(name: str, pp: int, m: int, times: PassTimes) -> None:
    figures = summary(name, pp, m, times)
    assert figures["problems"] == []
    limit = 2 * pp if name == "zb-h2" and not times.are_equal else PEAK[name](pp)
    assert max(figures["peak_activations"] or []) <= min(limit, m)


@unhurried
@given(st.sampled_from(NAMES), st.integers(2, 12), st.integers(0, 20))
def test_peaks_and_bubbles_at_equal_times(name: str, pp: int, more: int) -> None:
    figures = summary(name, pp, pp + more, PassTimes())
    assert max(figures["peak_activations"] or []) <= PEAK[name](pp)
    if pp > 2:
        assert figures["makespan"] == pytest.approx(3 * (pp + more) + BUBBLE[name](pp), abs=1e-9)


@unhurried
@given(st.sampled_from(NAMES[:2]), st.integers(2, 10), st.integers(0, 12))
def test_zero_bubble_means_zero(name: str, pp: int, more: int) -> None:
    """No rank idles inside its own span from m = 2p - 1 on."""
    assert summary(name, pp, 2 * pp - 1 + more, PassTimes())["span_bubble_fraction"] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("pp", "peak"), [(8, 4), (16, 6), (32, 12)])
def test_v_min_holds_what_is_published(pp: int, peak: int) -> None:
    assert max(summary("v-min", pp, 2 * pp, PassTimes())["peak_activations"] or []) == peak


def test_zb_v_is_the_published_order() -> None:
    """Qi et al. 2023, section 6, on the first of 4 ranks: 2p - 1 forwards, p times F and I of the second chunk, then F
    and I of the chunks in turn. W's, which may trade places with neighbours, left out.
    """
    order = [step for step in build_schedule("zb-v", 4, 12, 2).to_text()["0"].split() if "W" not in step]
    assert order[:7] == [f"0F{microbatch}" for microbatch in range(7)]
    assert order[7:15] == [f"7{kind}{microbatch}" for microbatch in range(4) for kind in "FI"]
    assert sorted(order[15:19]) == sorted(["0F7", "0I0", "7F4", "7I4"])


def test_zb_h2_forwards_2p_minus_1_ahead() -> None:
    orders = build_schedule("zb-h2", 4, 12).to_text()
    ahead = [text.split().index(f"{rank}I0") for rank, text in enumerate(orders.values())]
    assert ahead == [7, 5, 3, 1]


@pytest.mark.parametrize("name", ["zb-h2", "zb-v"])
def test_heeding_times_pays(name: str) -> None:
    """The order made for the times against the one made for equal times, both at those times."""
    times = PassTimes(1, 1.25, 1.2, 0.3)
    heeding, plain = (build_schedule(name, 8, 16, SCHEDULES[name].vpp, made_for) for made_for in (times, PassTimes()))
    spans = [simulate(schedule, rank_times(schedule, 1, 1.25, 1.2, 0.3)).makespan_s for schedule in (heeding, plain)]
    assert spans[0] < spans[1] if name == "zb-v" else spans[0] <= spans[1]


def test_times_that_are_not_heeded_change_nothing() -> None:
    times = PassTimes(1, 2, 3, 0.5)
    for name, kind in SCHEDULES.items():
        sizes = (name, 4, 8, kind.vpp)
        if not kind.heeds_times:
            assert build_schedule(*sizes, times) is build_schedule(*sizes)
    assert build_schedule("zb-v", 4, 8, 2, PassTimes(1, 1, 1)) is build_schedule("zb-v", 4, 8, 2)


@unhurried
@given(st.integers(2, 9), st.integers(1, 24), pass_times)
def test_no_order_has_a_shorter_span_than_the_bound(pp: int, m: int, times: PassTimes) -> None:
    for name in ("zb-h1", "zb-h2", "1f1b"):
        schedule = build_schedule(name, pp, m, 1, times)
        simulation = simulate(
            schedule, rank_times(schedule, times.forward, times.input_grad, times.weight_grad, times.comm)
        )
        memory = int(max(simulation.peak_activations(1.0)))
        if schedule.splits_backward:
            assert float(simulation.span_s.max()) >= least_span(pp, m, times, memory) * (1 - 1e-9)
        assert check_schedule(schedule) == []
