"""The chain of passes that sets the makespan."""

from __future__ import annotations

from itertools import pairwise

import pytest
from generated import cases
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodel.schema.schedule import STAGE_KINDS, Pass, Schedule
from planner.schedules import SCHEDULES, build_schedule
from planner.schedules.report import rank_times
from planner.simulator import Simulation, StageTimes, VocabTimes, simulate
from planner.simulator.columns import passes_of

unhurried = settings(deadline=None, max_examples=60)

Case = tuple[Schedule, StageTimes]


Spans = dict[Pass, tuple[float, float]]


def _spans(simulation: Simulation) -> Spans:
    """Start and end of every pass; of a gather or reduction that stands several times, the last one's."""
    spans = zip(simulation.start_s.tolist(), simulation.finish_s.tolist(), strict=True)
    return dict(zip(passes_of(simulation.schedule), spans, strict=True))


@unhurried
@given(st.one_of(cases(), cases(wires=True)))
def test_path_ends_last_and_never_overlaps(case: Case) -> None:
    """Each pass starts when the one before it has ended, or later where a send or a collective lies between."""
    simulation = simulate(*case)
    spans, path = _spans(simulation), simulation.critical_path()
    assert spans[path[-1]][1] == pytest.approx(simulation.makespan_s)
    once = [step for step in path if step.kind not in STAGE_KINDS]
    assert all(spans[earlier][1] <= spans[later][0] + 1e-9 for earlier, later in pairwise(once))


@unhurried
@given(st.sampled_from(sorted(SCHEDULES)), st.sampled_from([0.0, 0.75]))
def test_path_accounts_for_the_makespan(name: str, comm: float) -> None:
    """Passes of the path and the edges between them make up the whole makespan; gathers and reductions take no time."""
    schedule = build_schedule(name, 4, 8, SCHEDULES[name].vpp)
    simulation = simulate(schedule, rank_times(schedule, 1, 1.5, 0.5, comm))
    spans = _spans(simulation)
    path = [step for step in simulation.critical_path() if step.kind not in STAGE_KINDS]
    assert spans[path[0]][0] == 0
    total = sum(spans[step][1] - spans[step][0] for step in path)
    crossings = sum(spans[later][0] - spans[earlier][1] > 1e-9 for earlier, later in pairwise(path))
    assert total + crossings * comm == pytest.approx(simulation.makespan_s)


def test_path_of_one_microbatch_is_everything() -> None:
    schedule = build_schedule("1f1b", 3, 1)
    for delays in ({"edge_s": 1.0}, {"edge_s": 0.0, "wire_s": 1.0}):
        path = simulate(schedule, StageTimes.uniform(3, 1.0, 1.0, 1.0, **delays)).critical_path()
        assert [str(step) for step in path] == ["0F0", "1F0", "2F0", "2B0", "1B0", "0B0"]


def test_path_goes_through_gathers_and_collectives() -> None:
    order = {
        "0": "0UNSHARD 0F0 0VOCAB_F0 0VOCAB_B0 0B0 0REDUCE_GRAD",
        "1": "1F0 1VOCAB_F0 1VOCAB_B0 1B0",
    }
    schedule = Schedule.from_text("all", 1, (0, 1), order)
    vocab = VocabTimes(forward_s=1.0, backward_s=1.0, statistics_s=3.0, vocab_gradient_s=2.0)
    times = StageTimes.uniform(2, 1.0, 1.0, 1.0, 5.0, gather_s=2.0, reduce_s=2.0, vocab=vocab)
    path = [str(step) for step in simulate(schedule, times).critical_path()]
    assert path[:3] == ["0UNSHARD", "0F0", "1F0"]
    assert path[-3:] == ["1B0", "0B0", "0REDUCE_GRAD"]
