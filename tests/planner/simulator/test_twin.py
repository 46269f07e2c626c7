"""The simulator against its slow twin, on generated schedules and on random ones with every kind of pass."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from generated import cases
from hypothesis import given, settings
from hypothesis import strategies as st
from random_schedules import random_schedule
from twin import run

from costmodel.schema.schedule import PassKind, Schedule
from planner.simulator import StageTimes, simulate, simulate_many

unhurried = settings(deadline=None, max_examples=120)

Case = tuple[Schedule, StageTimes]


@unhurried
@given(st.one_of(cases(), cases(wires=True)))
def test_equals_the_twin(case: Case) -> None:
    schedule, times = case
    simulation, when = simulate(schedule, times), run(schedule, times)
    spans = [when[rank, place] for rank, order in enumerate(schedule.orders) for place in range(len(order))]
    np.testing.assert_allclose(simulation.start_s, [start for start, _ in spans], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(simulation.finish_s, [end for _, end in spans], rtol=1e-12, atol=1e-12)
    assert simulation.makespan_s == pytest.approx(max(end for _, end in spans), rel=1e-12)
    assert simulate_many(schedule, times) == pytest.approx(simulation.makespan_s, rel=1e-12, abs=1e-12)


def test_random_schedules_have_every_kind() -> None:
    kinds = frozenset().union(*(random_schedule(Random(seed)).kinds for seed in range(60)))
    assert kinds == frozenset(PassKind)
