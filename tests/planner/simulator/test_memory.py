"""What ranks keep alive, in micro-batches and in bytes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from generated import cases
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodel.schema.schedule import PassKind, Schedule
from planner.schedules import build_schedule
from planner.schedules.report import rank_shares, rank_times
from planner.simulator import Simulation, StageMemory, StageTimes, simulate

unhurried = settings(deadline=None, max_examples=60)

Case = tuple[Schedule, StageTimes]


def test_activations_over_time_and_their_peak() -> None:
    schedule = build_schedule("1f1b", 2, 3)
    simulation = simulate(schedule, rank_times(schedule, 1, 1, 1, 0))
    when_s, alive = simulation.memory_over_time(0, [5.0, 7.0])
    assert when_s.tolist() == [0, 1, 6, 6, 9, 12]
    assert alive.tolist() == [5, 10, 5, 10, 5, 0]
    assert simulation.peak_activations([5.0, 7.0]).tolist() == [10, 7]


def test_a_pair_keeps_both_alive() -> None:
    schedule = Schedule.from_text("pair", 2, (0,), {"0": "0F0 (0F1;0B0)OVERLAP_F_B 0B1"})
    assert simulate(schedule, StageTimes.uniform(1, 1.0, 1.0, 1.0)).peak_activations(1.0).tolist() == [2]


def test_shares_of_two_copies() -> None:
    """Four ranks, two copies in opposite directions: each stage has all of its rank's layers; with chunks, half."""
    both_ways = Schedule("both ways", 1, (0, 1, 1, 0), ((), ()), copies=2)
    assert rank_shares(both_ways).tolist() == [1, 1, 1, 1]
    assert rank_shares(replace(both_ways, stage_to_rank=(0, 1, 1, 0, 1, 0, 0, 1))).tolist() == [0.5] * 8
    assert rank_shares(replace(both_ways, stage_to_rank=(0, 1, 1, 0), copies=1)).tolist() == [0.5] * 4


@unhurried
@given(cases())
def test_activations_start_and_end_empty(case: Case) -> None:
    schedule, times = case
    simulation, weights = simulate(schedule, times), np.arange(1.0, schedule.num_stages + 1)
    for rank, peak in enumerate(simulation.peak_activations(weights)):
        when_s, alive = simulation.memory_over_time(rank, weights)
        assert (np.diff(when_s) >= -1e-9).all()
        assert (alive >= 0).all()
        assert not len(alive) or alive[-1] == 0
        assert max(alive, default=0.0) == peak


def _slow_bytes(simulation: Simulation, rank: int, sizes: StageMemory, at_s: float) -> tuple[float, float]:
    """(weights, activations) on ``rank`` at one moment, from each pass's own start and end."""
    schedule = simulation.schedule
    weights = sum(sizes.weight_bytes[stage] for stage, home in enumerate(schedule.stage_to_rank) if home == rank)
    starts: dict[tuple[str, int, int], float] = {}
    ends: dict[tuple[str, int, int], float] = {}
    gathered: dict[int, list[tuple[float, float]]] = {}
    arrived: dict[int, float] = {}
    offset = sum(len(order) for order in schedule.orders[:rank])
    for number, step in enumerate(schedule.orders[rank], offset):
        start, end = float(simulation.start_s[number]), float(simulation.finish_s[number])
        for part in step.work:
            starts[part.kind.value, part.stage, part.microbatch] = start
            ends[part.kind.value, part.stage, part.microbatch] = end
        if step.kind is PassKind.UNSHARD:
            gathered.setdefault(step.stage, []).append((start, np.inf))
            arrived[step.stage] = end
        elif step.kind is PassKind.RESHARD:
            gathered[step.stage][-1] = gathered[step.stage][-1][0], max(end, arrived[step.stage])
    for stage, spans in gathered.items():
        weights += sum(sizes.gathered_bytes[stage] for start, end in spans if start <= at_s < end)
    alive = 0.0
    for (kind, stage, microbatch), start in starts.items():
        key = stage, microbatch
        if kind == "F":
            whole = sizes.activation_bytes[stage] + sizes.recomputed_bytes[stage]
            if ("B", *key) in ends:
                backward, end, last = starts["B", *key], ends["B", *key], ends["B", *key]
            else:
                backward, end, last = starts["I", *key], ends["I", *key], ends["W", *key]
            alive += sizes.activation_bytes[stage] * (start <= at_s < end)
            alive += sizes.recomputed_bytes[stage] * (backward <= at_s < end)
            alive += sizes.residual[stage] * whole * (end <= at_s < last)
        elif kind == "VOCAB_F":
            end = ends.get(("VOCAB_B", *key), ends.get(("VOCAB_W", *key)))
            alive += sizes.vocab_bytes[rank] * (start <= at_s < end)
    return weights, alive


@unhurried
@given(cases(), st.integers(0, 2**32))
def test_bytes_are_those_of_the_passes_under_way(case: Case, seed: int) -> None:
    schedule, times = case
    simulation, random = simulate(schedule, times), np.random.default_rng(seed)
    stages = [random.uniform(0, 9, schedule.num_stages) for _ in range(4)]
    sizes = StageMemory(*stages, random.uniform(0, 1, schedule.num_stages), random.uniform(0, 9, schedule.num_ranks))
    rank = int(random.integers(schedule.num_ranks))
    memory = simulation.memory(rank, sizes)
    moments = np.unique(memory.when_s)
    between = (moments[:-1] + moments[1:]) / 2
    for at_s in between[np.diff(moments) > 1e-6]:
        now = np.searchsorted(memory.when_s, at_s) - 1
        expected = _slow_bytes(simulation, rank, sizes, float(at_s))
        assert (memory.weight_bytes[now], memory.activation_bytes[now]) == pytest.approx(expected, abs=1e-9)
    assert memory.activation_bytes[-1] == pytest.approx(0, abs=1e-9)
    assert memory.peak_bytes == memory.total_bytes.max() >= memory.weight_bytes[0]


def test_peak_says_when() -> None:
    """F at 0 and 1, recomputation in the first I at 6: 10 + 10 + 4 alive; half stays from I to W."""
    schedule = build_schedule("zb-h1", 2, 2)
    simulation = simulate(schedule, rank_times(schedule, 1, 1, 1, 0))
    sizes = StageMemory(weight_bytes=100.0, activation_bytes=10.0, recomputed_bytes=4.0, residual=0.5)
    memory = simulation.memory(0, sizes)
    first_i = simulation.start_s[2]
    assert (memory.peak_bytes, memory.peak_at_s) == (124, first_i)
    assert memory.activation_bytes.max() == 24
    assert memory.weight_bytes.tolist() == [100] * len(memory.when_s)


def test_what_ends_is_counted_before_what_starts() -> None:
    """1F1B in its steady state: B of one micro-batch ends in the moment F of the next starts."""
    schedule = build_schedule("1f1b", 4, 12)
    simulation = simulate(schedule, rank_times(schedule, 0.1, 0.3, 0.7, 0))
    for rank in range(4):
        assert simulation.memory(rank, StageMemory(activation_bytes=1.0)).peak_bytes == 4 - rank


def test_gathered_weights_come_and_go() -> None:
    order = "0UNSHARD 0F0 0RESHARD 1UNSHARD 1F0 1B0 1RESHARD 0UNSHARD 0B0"
    schedule = Schedule.from_text("gathers", 1, (0, 0), {"0": order})
    simulation = simulate(schedule, StageTimes.uniform(2, 1.0, 1.0, 1.0, gather_s=1.0))
    memory = simulation.memory(0, StageMemory(np.array([1.0, 2.0]), np.array([10.0, 20.0])))
    assert memory.weight_bytes.max() == 23
    steps = dict(zip(memory.when_s.tolist(), memory.weight_bytes.tolist(), strict=True))
    assert [steps[at] for at in (0, 2, 6)] == [13, 23, 13]
