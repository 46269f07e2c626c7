"""The optimizer behind a barrier and without one."""

from __future__ import annotations

import numpy as np
import pytest
from generated import cases
from hypothesis import given, settings

from costmodel.schema.schedule import Schedule
from planner.schedules import build_schedule
from planner.schedules.report import rank_times
from planner.simulator import StageTimes, StepEnd, simulate

unhurried = settings(deadline=None, max_examples=60)

Case = tuple[Schedule, StageTimes]


def test_barrier_waits_for_the_last_rank_and_the_norm() -> None:
    """1F1B's last rank ends before the first, at 13 of 15; the slowest update counts."""
    schedule = build_schedule("1f1b", 3, 3)
    simulation = simulate(schedule, rank_times(schedule, 1, 1, 1, 0))
    assert simulation.last_finish_s.tolist() == [15, 13, 11]
    step = simulation.whole_step(StepEnd(np.array([1.0, 4.0, 2.0]), norm_s=0.5))
    assert step.start_s.tolist() == [15.5, 15.5, 15.5]
    assert step.finish_s.tolist() == [16.5, 19.5, 17.5]
    assert (step.step_s, simulation.makespan_s) == (19.5, 15)


def test_post_validation_hands_the_norm_on() -> None:
    """Ranks that end at 15, 13, 11 wait for the ranks before them: the norm so far reaches them at 16 and 17."""
    schedule = build_schedule("1f1b", 3, 3)
    simulation = simulate(schedule, rank_times(schedule, 1, 1, 1, 0))
    step = simulation.whole_step(StepEnd(2.0, norm_s=9.0, post_validation=True, hop_s=1.0, validation_s=0.25))
    assert step.start_s.tolist() == [15, 16, 17]
    assert step.step_s == 17 + 2 + 0.25 - 2


def test_a_parallelogram_leaves_no_bubble() -> None:
    """Ranks that start one after the other and end one after the other: without a barrier nothing is idle."""
    orders = {str(rank): "0F0 0F1 0B0 0B1".replace("0F", f"{rank}F").replace("0B", f"{rank}B") for rank in range(2)}
    schedule = Schedule.from_text("parallelogram", 2, (0, 1), orders)
    times = StageTimes(np.array([1.0, 1.0]), np.array([2.0, 0.5]), np.array([0.0, 0.0]), edge_s=0.0)
    simulation = simulate(schedule, times)
    freely = simulation.whole_step(StepEnd(1.0, post_validation=True)).step_s
    assert freely == simulation.span_s.max() + 1.0
    assert simulation.whole_step(StepEnd(1.0)).step_s == simulation.makespan_s + 1.0


@unhurried
@given(cases())
def test_no_barrier_is_never_slower(case: Case) -> None:
    simulation = simulate(*case)
    optimizer_s = np.linspace(0.5, 1.5, simulation.schedule.num_ranks)
    behind = simulation.whole_step(StepEnd(optimizer_s))
    freely = simulation.whole_step(StepEnd(optimizer_s, post_validation=True))
    assert freely.step_s <= behind.step_s + 1e-9
    assert freely.step_s >= (simulation.span_s + optimizer_s).max() - 1e-9
    assert (freely.start_s >= simulation.last_finish_s - 1e-9).all()
    assert behind.step_s == pytest.approx(simulation.makespan_s + optimizer_s.max())


def test_trace_ends_with_the_updates() -> None:
    schedule = build_schedule("zb-h1", 3, 4)
    simulation = simulate(schedule, rank_times(schedule, 1, 1, 1, 0))
    events = simulation.trace(end=StepEnd(2.0)).events
    updates = [event for event in events if event.name == "optimizer"]
    assert [(event.rank, event.lane, event.duration_s) for event in updates] == [(r, "compute", 2.0) for r in range(3)]
    assert {event.start_s for event in updates} == {simulation.makespan_s}
