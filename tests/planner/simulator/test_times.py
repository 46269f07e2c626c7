"""What each kind of pass takes, by hand, and the times that are refused."""

from __future__ import annotations

import numpy as np
import pytest

from costmodel.schema.errors import InvalidSpec
from costmodel.schema.schedule import Schedule
from planner.schedules import build_schedule
from planner.simulator import FrozenTimes, StageMemory, StageTimes, StepEnd, VocabTimes, simulate


def test_recompute_goes_to_b_or_to_i() -> None:
    """One micro-batch over two ranks: F 1, I 2, W 4, recompute 8, edge 16."""
    times = StageTimes(np.full(2, 1.0), np.full(2, 2.0), np.full(2, 4.0), 8.0, 16.0)
    assert simulate(build_schedule("1f1b", 2, 1), times).makespan_s == 2 * (1 + 14) + 2 * 16
    split = simulate(build_schedule("zb-h1", 2, 1), times)
    assert split.makespan_s == 2 * (1 + 10) + 4 + 2 * 16
    assert split.busy_s.tolist() == [15, 15]


def test_full_backward_of_its_own() -> None:
    """B is 5 and not 2 + 4; the split one stays as it is."""
    times = StageTimes(np.full(2, 1.0), 2.0, 4.0, 8.0, backward_s=5.0)
    assert simulate(build_schedule("1f1b", 2, 1), times).makespan_s == 2 * (1 + 13)
    assert simulate(build_schedule("zb-h1", 2, 1), times).makespan_s == 2 * (1 + 10) + 4


def test_no_delay_inside_a_rank() -> None:
    """Stages 0 and 1 share rank 0: only the edge from 1 to 2 takes time."""
    schedule = Schedule.from_text("two on one", 1, (0, 0, 1), {"0": "0F0 1F0 1B0 0B0", "1": "2F0 2B0"})
    times = StageTimes(np.ones(3), np.ones(3), np.ones(3), edge_s=np.array([100.0, 10.0]))
    assert simulate(schedule, times).makespan_s == 9 + 20


@pytest.mark.parametrize(("overlap_s", "pair_s"), [(None, 7.0), (4.0, 4.0)])
def test_pair_of_f_and_b(overlap_s: float | None, pair_s: float) -> None:
    schedule = Schedule.from_text("pair", 2, (0,), {"0": "0F0 (0F1;0B0)OVERLAP_F_B 0B1"})
    times = StageTimes(np.array([2.0]), 2.0, 3.0, overlap_s=overlap_s)
    simulation = simulate(schedule, times)
    assert simulation.makespan_s == 2 + pair_s + 5
    assert [str(step) for step in simulation.critical_path()] == ["0F0", "(0F1;0B0)OVERLAP_F_B", "0B1"]


def test_pair_with_an_i_takes_what_b_takes_more_less() -> None:
    schedule = Schedule.from_text("pair", 2, (0,), {"0": "0F0 (0F1;0I0)OVERLAP_F_B 0W0 0I1 0W1"})
    times = StageTimes(np.array([2.0]), 2.0, 3.0, overlap_s=4.5)
    assert simulate(schedule, times).makespan_s == 2 + (4.5 - 3) + 3 + 2 + 3


def test_both_parts_of_a_pair_are_waited_for() -> None:
    """Rank 0 pairs its second F with the first B, which comes back at 2 + 9 = 11."""
    order = {"0": "0F0 (0F1;0B0)OVERLAP_F_B 0B1", "1": "1F0 1B0 1F1 1B1"}
    schedule = Schedule.from_text("waits", 2, (0, 1), order)
    times = StageTimes(np.array([2.0, 4.0]), 2.0, 3.0)
    assert simulate(schedule, times).start_s[1] == 2 + 4 + 5


def test_two_copies_know_their_own_ends() -> None:
    """Stage 2 is the second copy's first: it waits for nothing, and stage 1's B for nobody."""
    order = {"0": "0F0 3F1 3B1 0B0", "1": "2F1 1F0 1B0 2B1"}
    schedule = Schedule.from_text("both ways", 2, (0, 1, 1, 0), order, copies=2)
    simulation = simulate(schedule, StageTimes.uniform(4, 1.0, 1.0, 1.0))
    assert simulation.start_s.tolist() == [0, 1, 2, 4, 0, 1, 2, 4]


def test_gathers_run_ahead_and_are_waited_for() -> None:
    """Stage 1 is gathered after stage 0's F and reduced beside stage 0's B; the last reduction ends the step."""
    order = "0UNSHARD 0F0 1UNSHARD 1F0 1B0 1RESHARD 1REDUCE_GRAD 0B0 0REDUCE_GRAD"
    schedule = Schedule.from_text("gathers", 1, (0, 0), {"0": order})
    times = StageTimes.uniform(2, 2.0, 2.0, 2.0, gather_s=3.0, reduce_s=5.0)
    simulation = simulate(schedule, times)
    when = dict(zip(order.split(), zip(simulation.start_s, simulation.finish_s, strict=True), strict=True))
    assert when["0UNSHARD"] == (0, 3)
    assert when["0F0"] == (3, 5)
    assert when["1UNSHARD"] == (5, 8)
    assert when["1F0"] == (8, 10)
    assert when["1REDUCE_GRAD"] == (14, 19)
    assert when["0B0"] == (14, 18)
    assert when["0REDUCE_GRAD"] == (19, 24)
    assert simulation.makespan_s == 24
    assert simulation.busy_s.tolist() == [12]


def test_vocabulary_by_hand() -> None:
    """Two ranks, one micro-batch: embeddings meet, the activation goes round, statistics and gradients meet."""
    order = {
        "0": "0VOCAB_IN_F0 0F0 0VOCAB_F0 0VOCAB_B0 0B0 0VOCAB_IN_B0",
        "1": "1VOCAB_IN_F0 1F0 1VOCAB_F0 1VOCAB_B0 1B0 1VOCAB_IN_B0",
    }
    schedule = Schedule.from_text("vocabulary", 1, (0, 1), order)
    vocab = VocabTimes(
        np.array([1.0, 2.0]), 1.0, np.array([3.0, 1.0]), 2.0, 9.0,
        embedded_s=0.5, statistics_s=0.25, vocab_gradient_s=0.125, broadcast_s=10.0,
    )  # fmt: skip
    simulation = simulate(schedule, StageTimes.uniform(2, 1.0, 1.0, 1.0, edge_s=100.0, vocab=vocab))
    activation = 2.5 + 1 + 100 + 1
    statistics = activation + 10 + 3 + 0.25
    gradient = statistics + 2 + 0.125 + 2 + 100 + 2
    assert simulation.start_s.tolist() == [
        0, 2.5, activation + 10, statistics, gradient - 2, gradient,
        0, 103.5, activation, statistics, statistics + 2.125, gradient + 10,
    ]  # fmt: skip


def test_frozen_pieces_pass_on_what_they_make() -> None:
    order = {"0": "0FROZEN_F0 0F0 0B0", "1": "1FROZEN_F0"}
    schedule = Schedule.from_text("frozen", 1, (0,), order)
    times = StageTimes.uniform(1, 1.0, 1.0, 1.0, frozen=FrozenTimes(np.array([2.0, 3.0]), 4.0))
    assert simulate(schedule, times).start_s.tolist() == [0, 2, 3, 6]


def _frozen() -> Schedule:
    return Schedule.from_text("frozen", 1, (0,), {"0": "0FROZEN_F0 0F0 0B0"})


def _vocabulary() -> Schedule:
    return Schedule.from_text("vocabulary", 1, (0,), {"0": "0F0 0VOCAB_F0 0VOCAB_B0 0B0"})


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: StageTimes(np.array([1.0, -2.0]), 1.0, 1.0), "forward_s has the value -2"),
        (lambda: StageTimes(1.0, np.array([1.0, np.nan]), 1.0), "input_grad_s has the value nan"),
        (lambda: StageTimes(np.ones(2), 1.0, 1.0, wire_s=-1.0), "wire_s has the value -1"),
        (lambda: StageTimes(np.ones(2), np.ones(3), 1.0), r"don't fit together: forward_s \(2,\), input_grad_s \(3,\)"),
        (lambda: StageTimes(np.ones(3), 1.0, 1.0, edge_s=np.ones(3)), "don't fit together"),
        (lambda: StageTimes(np.ones(3), 1.0, 1.0, edge_level=np.zeros(3)), "don't fit together"),
        (lambda: VocabTimes(np.ones(2), np.ones(3)), "times of vocabulary passes don't fit together"),
        (lambda: FrozenTimes(np.ones(2), np.ones(2)), r"frozen pieces don't fit together: forward_s \(2,\), edge_s"),
        (lambda: StepEnd(-1.0), "optimizer_s has the value -1"),
        (lambda: StageMemory(residual=1.5), r"residual has the value 1.5; it is a share, 0 to 1"),
        (lambda: StageMemory(weight_bytes=-1.0), "weight_bytes has the value -1"),
        (lambda: simulate(build_schedule("1f1b", 2, 2), StageTimes(np.ones(3), 1.0, 1.0)), "times are of 3 stages"),
        (lambda: simulate(build_schedule("1f1b", 2, 2), StageTimes(np.ones((4, 2)), 1.0, 1.0)), "takes one row"),
        (lambda: simulate(build_schedule("1f1b", 2, 2), StageTimes(np.ones(2), 1.0, 1.0), 0), "shared_cores = 0"),
        (lambda: simulate(_vocabulary(), StageTimes(np.ones(1), 1.0, 1.0)), "has vocabulary passes, but the times"),
        (
            lambda: simulate(_vocabulary(), StageTimes(np.ones(1), 1.0, 1.0, vocab=VocabTimes(np.ones(2)))),
            "vocabulary passes are of 2 ranks, but schedule 'vocabulary' has 1",
        ),
        (lambda: simulate(_frozen(), StageTimes(np.ones(1), 1.0, 1.0)), "has 1 frozen pieces, but times of 0"),
    ],
)
def test_bad_times_are_refused(act: object, message: str) -> None:
    with pytest.raises(InvalidSpec, match=message):
        act()  # type: ignore[operator]
