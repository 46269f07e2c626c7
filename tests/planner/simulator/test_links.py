"""Messages that occupy links."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from generated import cases
from hypothesis import given, settings

from costmodel.schema.schedule import Schedule
from planner.schedules import build_schedule
from planner.simulator import StageTimes, simulate

unhurried = settings(deadline=None, max_examples=60)

Case = tuple[Schedule, StageTimes]


def test_one_message_takes_its_wire_time_and_its_delay() -> None:
    """One micro-batch: no two messages at once."""
    schedule = build_schedule("1f1b", 3, 1)
    assert simulate(schedule, StageTimes.uniform(3, 1.0, 1.0, 1.0, 5.0, wire_s=2.0)).makespan_s == 9 + 4 * (5 + 2)


def test_sends_of_one_rank_queue() -> None:
    """GPipe's forwards leave rank 0 at 1, 2, 3; on a link that each occupies for 4 they get off at 1, 5, 9."""
    schedule = build_schedule("gpipe", 2, 3)
    simulation = simulate(schedule, StageTimes.uniform(2, 1.0, 1.0, 1.0, 0.5, wire_s=4.0))
    assert simulation.start_s[6:9].tolist() == [5.5, 9.5, 13.5]


def test_receives_of_one_rank_queue() -> None:
    """Rank 1 receives F1's input from 16 to 19; B0's leaves rank 2 at 18 and waits a moment for the link."""
    order = {"0": "0F0 0F1 0B0 0B1", "1": "1F0 1F1 1B0 1B1", "2": "2F0 2B0 2F1 2B1"}
    schedule = Schedule.from_text("crossing", 2, (0, 1, 2), order)
    times = StageTimes(np.array([8.0, 1.0, 2.0]), 0.5, 0.5, wire_s=3.0)
    assert simulate(schedule, times).start_s[4:8].tolist() == [11, 19, 22, 29]


def test_levels_have_links_of_their_own() -> None:
    """Rank 1 sends an activation on while its gradient still leaves: on one link it waits, on two it does not."""
    order = {"0": "0F0 0F1 0B0 0B1", "1": "1F0 1B0 1F1 1B1", "2": "2F0 2B0 2F1 2B1"}
    schedule = Schedule.from_text("levels", 2, (0, 1, 2), order)
    times = StageTimes(np.array([1.0, 0.5, 1.0]), 0.5, 0.5, wire_s=2.0)
    same = simulate(schedule, times).makespan_s
    apart = simulate(schedule, replace(times, edge_level=np.array([0, 1]))).makespan_s
    assert apart == same - 1.5


@unhurried
@given(cases(wires=True))
def test_links_only_delay(case: Case) -> None:
    """Not earlier than with the same delays and no queues; and apart on every level at least as early as on one."""
    schedule, times = case
    queued = simulate(schedule, times).makespan_s
    free = replace(times, wire_s=0.0, edge_s=times.edge_s + times.wire_s)
    assert simulate(schedule, free).makespan_s <= queued + 1e-9


@unhurried
@given(cases())
def test_links_that_nothing_occupies_change_nothing(case: Case) -> None:
    schedule, times = case
    barely = replace(times, wire_s=1e-300)
    np.testing.assert_allclose(
        simulate(schedule, barely).finish_s, simulate(schedule, times).finish_s, rtol=1e-12, atol=1e-12
    )


def test_trace_shows_what_links_carry() -> None:
    schedule = build_schedule("zb-h1", 3, 4)
    times = StageTimes.uniform(3, 1.0, 1.0, 1.0, 0.5, wire_s=2.0, edge_level=np.array([0, 1]))
    events = simulate(schedule, times).trace().events
    lanes = {event.lane for event in events}
    assert lanes == {"compute", "send", "send level 1", "receive", "receive level 1"}
    beside = [event for event in events if event.lane != "compute"]
    assert len(beside) == 2 * 2 * 2 * 4
    assert [event.duration_s for event in beside] == pytest.approx([2.0] * len(beside))
