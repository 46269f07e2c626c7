"""Vocabulary parallelism: what it keeps alive, and that its passes cost their time and no more bubble."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel.passes import check_schedule
from planner.schedules import build_schedule
from planner.schedules.report import rank_times, schedule_summary
from planner.simulator import StageTimes, simulate

BARRIERS = {"1f1b-vocab-1": 2, "1f1b-vocab-2": 1}


@pytest.mark.parametrize(("name", "barriers"), BARRIERS.items())
@given(pp=st.integers(2, 9), num_microbatches=st.integers(1, 30))
def test_each_barrier_keeps_one_more_microbatch_alive(name: str, barriers: int, pp: int, num_microbatches: int) -> None:
    schedule = build_schedule(name, pp, num_microbatches)
    assert check_schedule(schedule) == []
    simulation = simulate(schedule, rank_times(schedule, 1, 1, 1, 0, vocab=1))
    expected = [min(pp - rank + barriers, num_microbatches) for rank in range(pp)]
    assert simulation.peak_activations(1.0).tolist() == expected


@pytest.mark.parametrize(("name", "barriers"), BARRIERS.items())
@pytest.mark.parametrize("vocab", [0.5, 2.0, 6.0])
def test_the_bubble_is_that_of_filling_and_draining(name: str, barriers: int, vocab: float) -> None:
    """Every further micro-batch costs a rank its own work: 3 for its layers, 3 vocab / p for its part."""
    pp, work = 4, 3 + 3 * vocab / 4
    spans = [
        schedule_summary(build_schedule(name, pp, m), 1, 1, 1, 0, vocab=vocab)["makespan"] for m in (4 * pp, 8 * pp)
    ]
    assert spans[0] is not None
    assert spans[1] is not None
    assert spans[1] - spans[0] == pytest.approx(4 * pp * work)
    assert spans[0] - 4 * pp * work < 1.25 * (pp - 1) * work + barriers * work


def test_it_beats_an_output_layer_on_the_last_rank() -> None:
    """One and the same work, 2 layers' worth of logits: the last rank's in one case, everybody's in the other."""
    pp, m, vocab = 8, 64, 2.0
    plain = build_schedule("1f1b", pp, m)
    column = np.ones(pp)
    column[-1] += vocab
    split_s = schedule_summary(build_schedule("1f1b-vocab-2", pp, m), 1, 1, 1, 0, vocab=vocab)["makespan"]
    assert split_s is not None
    assert split_s < 0.5 * simulate(plain, StageTimes(column, column, column)).makespan_s
