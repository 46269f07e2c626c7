"""Ranks that share cores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from generated import cases
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodel.schema.schedule import Schedule
from planner.schedules import build_schedule
from planner.schedules.report import rank_times
from planner.simulator import StageTimes, simulate

unhurried = settings(deadline=None, max_examples=60)

Case = tuple[Schedule, StageTimes]


def _total_work_s(schedule: Schedule, times: StageTimes) -> float:
    return float(simulate(schedule, times).busy_s.sum())


def test_shared_cores_by_hand() -> None:
    """GPipe, two ranks, two micro-batches, F 1 and B 2, one core: whenever both are busy each runs at half speed."""
    schedule = build_schedule("gpipe", 2, 2)
    simulation = simulate(schedule, rank_times(schedule, 1, 1, 1, 0), shared_cores=1)
    assert simulation.start_s.tolist() == [0, 1, 6, 10, 1, 3, 4, 6]
    assert simulation.finish_s.tolist() == [1, 3, 10, 12, 3, 4, 6, 10]


def test_shared_cores_leave_sends_alone() -> None:
    """One micro-batch: never two ranks busy, so cores don't matter and the edge delays stay."""
    schedule = build_schedule("1f1b", 3, 1)
    for delays in ({"edge_s": 5.0}, {"edge_s": 2.0, "wire_s": 3.0}):
        times = StageTimes.uniform(3, 1.0, 1.0, 1.0, **delays)
        assert simulate(schedule, times, shared_cores=1).makespan_s == simulate(schedule, times).makespan_s == 29
        assert simulate(schedule, times, shared_cores=0.5).makespan_s == 9 / 0.5 + 20


@unhurried
@given(st.one_of(cases(), cases(wires=True)), st.sampled_from([0.5, 1.0, 2.0, 3.0]))
def test_shared_cores_are_bounded_by_work_and_by_own_devices(case: Case, cores: float) -> None:
    schedule, times = case
    shared = simulate(schedule, times, shared_cores=cores).makespan_s
    assert shared >= _total_work_s(schedule, times) / cores * (1 - 1e-12)
    assert shared >= simulate(schedule, times).makespan_s * (1 - 1e-12)


@unhurried
@given(cases())
def test_one_core_without_delays_is_never_idle(case: Case) -> None:
    schedule, times = case
    vocab = times.vocab and replace(times.vocab, embedded_s=0, statistics_s=0, vocab_gradient_s=0, broadcast_s=0)
    frozen = times.frozen and replace(times.frozen, edge_s=0)
    times = replace(times, edge_s=0, gather_s=0, reduce_s=0, vocab=vocab, frozen=frozen)
    shared = simulate(schedule, times, shared_cores=1)
    assert shared.makespan_s == pytest.approx(_total_work_s(schedule, times), rel=1e-9, abs=1e-9)


@unhurried
@given(st.one_of(cases(), cases(wires=True)))
def test_a_core_for_every_rank_shares_nothing(case: Case) -> None:
    schedule, times = case
    shared, own = simulate(schedule, times, shared_cores=schedule.num_ranks), simulate(schedule, times)
    np.testing.assert_allclose(shared.finish_s, own.finish_s, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(shared.start_s, own.start_s, rtol=1e-9, atol=1e-9)


def test_two_cores_reach_their_bound_on_a_deep_pipeline() -> None:
    """Many micro-batches on four ranks keep two cores busy but for the first and the last few passes."""
    schedule = build_schedule("1f1b", 4, 64)
    times = rank_times(schedule, 1, 1, 1, 0)
    bound = _total_work_s(schedule, times) / 2
    assert bound <= simulate(schedule, times, shared_cores=2).makespan_s <= bound + 4
