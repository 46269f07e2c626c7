"""Strategies over schedules, generated ones and random ones, with times of their own for everything."""

from __future__ import annotations

from random import Random

from hypothesis import strategies as st
from random_schedules import random_schedule, random_times

from costmodel.schema.schedule import Schedule
from planner.schedules import SCHEDULES, build_schedule
from planner.simulator import StageTimes

SIZES = {
    name: [(pp, m, vpp) for pp in range(1, 6) for m in range(1, 11) for vpp in range(1, 5) if kind.allows(pp, m, vpp)]
    for name, kind in SCHEDULES.items()
}


@st.composite
def cases(draw: st.DrawFn, wires: bool = False) -> tuple[Schedule, StageTimes]:
    """A schedule with its times."""
    random = Random(draw(st.integers(0, 2**32)))
    if draw(st.booleans()):
        schedule = random_schedule(random)
    else:
        name = draw(st.sampled_from(sorted(SCHEDULES)))
        schedule = build_schedule(name, *draw(st.sampled_from(SIZES[name])))
    return schedule, random_times(random, schedule, wires)
