"""The simulator against a slow reference, hand-worked cases and properties."""

from __future__ import annotations

import gc
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodel.schema.errors import InvalidSpec
from costmodel.schema.schedule import Pass, PassKind, Schedule
from planner.schedules import SCHEDULES, build_schedule
from planner.schedules.report import rank_times
from planner.simulator import Simulation, StageTimes, simulate, simulate_many
from planner.simulator.graph import _GRAPHS, graph_of, passes_of

unhurried = settings(deadline=None)
KINDS = (PassKind.FORWARD, PassKind.BACKWARD, PassKind.INPUT_GRAD, PassKind.WEIGHT_GRAD)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Schedule, StageTimes]:
    """A schedule with times of its own for every stage and edge."""
    name = draw(st.sampled_from(("gpipe", "1f1b", "interleaved-1f1b", "zb-h1")))
    pp = draw(st.integers(2, 5))
    vpp = draw(st.integers(2, 3)) if SCHEDULES[name].needs_vpp else 1
    m = pp * draw(st.integers(1, 3)) if SCHEDULES[name].needs_vpp else draw(st.integers(1, 9))
    schedule = build_schedule(name, pp, m, vpp)
    time_s = st.floats(0, 10, allow_subnormal=False)
    stages = [np.array(draw(st.lists(time_s, min_size=pp * vpp, max_size=pp * vpp))) for _ in range(4)]
    edge_s = np.array(draw(st.lists(time_s, min_size=pp * vpp - 1, max_size=pp * vpp - 1)))
    return schedule, StageTimes(*stages, edge_s=edge_s)


def reference(schedule: Schedule, times: StageTimes) -> dict[Pass, tuple[float, float]]:
    """Start and end of each pass by the definition, without arrays: recursion over what each pass waits for."""
    rank_of = schedule.stage_to_rank
    before = {step: earlier for order in schedule.orders for earlier, step in pairwise(order)}
    everything = {step for order in schedule.orders for step in order}

    def duration(step: Pass) -> float:
        forward, recompute = times.forward_s[step.stage], times.recompute_s[step.stage]
        input_grad, weight_grad = times.input_grad_s[step.stage], times.weight_grad_s[step.stage]
        by_kind = (forward, input_grad + weight_grad + recompute, input_grad + recompute, weight_grad)
        return float(by_kind[KINDS.index(step.kind)])

    def inputs(step: Pass) -> list[tuple[Pass, float]]:
        kind, stage, microbatch = step[:3]
        if kind is PassKind.WEIGHT_GRAD:
            return [(Pass(PassKind.INPUT_GRAD, stage, microbatch), 0.0)]
        neighbour = stage - 1 if kind is PassKind.FORWARD else stage + 1
        kinds = [PassKind.FORWARD] if kind is PassKind.FORWARD else [PassKind.BACKWARD, PassKind.INPUT_GRAD]
        found = [Pass(each, neighbour, microbatch) for each in kinds if Pass(each, neighbour, microbatch) in everything]
        if not found:
            return [] if kind is PassKind.FORWARD else [(Pass(PassKind.FORWARD, stage, microbatch), 0.0)]
        apart = rank_of[neighbour] != rank_of[stage]
        return [(found[0], float(times.edge_s[min(stage, neighbour)]) if apart else 0.0)]

    @cache
    def end(step: Pass) -> float:
        return start(step) + duration(step)

    def start(step: Pass) -> float:
        ready = [end(source) + delay for source, delay in inputs(step)]
        return max([0.0, *ready, *([end(before[step])] if step in before else [])])

    return {step: (start(step), end(step)) for step in everything}


@unhurried
@given(cases())
def test_equals_the_slow_reference(case: tuple[Schedule, StageTimes]) -> None:
    schedule, times = case
    simulation, expected = simulate(schedule, times), reference(schedule, times)
    passes = passes_of(schedule)
    np.testing.assert_allclose(simulation.start_s, [expected[step][0] for step in passes], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(simulation.finish_s, [expected[step][1] for step in passes], rtol=1e-12, atol=1e-12)
    assert simulation.makespan_s == pytest.approx(max(finish for _, finish in expected.values()))


@unhurried
@given(cases(), st.integers(1, 4))
def test_many_rows_equal_one_by_one(case: tuple[Schedule, StageTimes], rows: int) -> None:
    schedule, times = case

    def scaled(by: np.ndarray | float) -> StageTimes:
        return StageTimes(
            times.forward_s * by, times.input_grad_s / by, times.weight_grad_s, times.recompute_s, times.edge_s * by
        )

    factors = np.linspace(1, 2, rows)
    batch = scaled(factors[:, None])
    one_by_one = [simulate(schedule, scaled(factor)).makespan_s for factor in factors.tolist()]
    np.testing.assert_allclose(simulate_many(schedule, batch), one_by_one, rtol=1e-12)
    assert simulate_many(schedule, times).shape == ()


def test_many_rows_in_several_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = build_schedule("zb-h1", 3, 5)
    times = StageTimes(np.linspace(1, 2, 21).reshape(7, 3), 1.0, 1.0, edge_s=np.arange(14.0).reshape(7, 2))
    whole = simulate_many(schedule, times)
    monkeypatch.setattr("planner.simulator.longest_path._BATCH_BYTES", 2 * 8 * 48)
    np.testing.assert_array_equal(simulate_many(schedule, times), whole)
    assert simulate_many(schedule, StageTimes(np.ones((0, 3)), 1.0, 1.0)).shape == (0,)


@unhurried
@given(cases())
def test_slower_is_never_faster(case: tuple[Schedule, StageTimes]) -> None:
    schedule, times = case
    slower = StageTimes(
        times.forward_s + 0.5, times.input_grad_s, times.weight_grad_s * 1.5, times.recompute_s, times.edge_s + 1
    )
    assert simulate(schedule, slower).makespan_s >= simulate(schedule, times).makespan_s


@unhurried
@given(cases())
def test_shares_and_spans_fit_together(case: tuple[Schedule, StageTimes]) -> None:
    simulation = simulate(*case)
    assert (simulation.busy_s <= simulation.span_s + 1e-9).all()
    assert (simulation.span_s <= simulation.makespan_s + 1e-9).all()
    assert -1e-9 <= simulation.span_bubble_fraction <= simulation.bubble_fraction + 1e-9 <= 1 + 1e-9


@unhurried
@given(cases())
def test_critical_path_accounts_for_the_makespan(case: tuple[Schedule, StageTimes]) -> None:
    schedule, times = case
    simulation = simulate(schedule, times)
    when = dict(zip(passes_of(schedule), zip(simulation.start_s, simulation.finish_s, strict=True), strict=True))
    path = simulation.critical_path()
    assert when[path[-1]][1] == pytest.approx(simulation.makespan_s)
    assert when[path[0]][0] == pytest.approx(0, abs=1e-9)
    for earlier, later in pairwise(path):
        same_rank = schedule.stage_to_rank[earlier.stage] == schedule.stage_to_rank[later.stage]
        delay = 0.0 if same_rank else float(times.edge_s[min(earlier.stage, later.stage)])
        assert when[earlier][1] + delay == pytest.approx(when[later][0], abs=1e-9)


def test_critical_path_of_one_microbatch_is_everything() -> None:
    schedule = build_schedule("1f1b", 3, 1)
    path = simulate(schedule, rank_times(schedule, 1, 1, 1, 1)).critical_path()
    assert [str(step) for step in path] == ["0F0", "1F0", "2F0", "2B0", "1B0", "0B0"]


def test_recompute_goes_to_b_or_to_i() -> None:
    """One micro-batch over two ranks: F 1, I 2, W 4, recompute 8, edge 16."""
    times = StageTimes(np.full(2, 1.0), np.full(2, 2.0), np.full(2, 4.0), 8.0, 16.0)
    assert simulate(build_schedule("1f1b", 2, 1), times).makespan_s == 2 * (1 + 14) + 2 * 16
    split = simulate(build_schedule("zb-h1", 2, 1), times)
    assert split.makespan_s == 2 * (1 + 10) + 4 + 2 * 16
    assert split.busy_s.tolist() == [15, 15]


def test_no_delay_inside_a_rank() -> None:
    """Stages 0 and 1 share rank 0: only the edge from 1 to 2 takes time."""
    schedule = Schedule.from_text("two on one", 1, (0, 0, 1), {"0": "0F0 1F0 1B0 0B0", "1": "2F0 2B0"})
    times = StageTimes(np.ones(3), np.ones(3), np.ones(3), edge_s=np.array([100.0, 10.0]))
    assert simulate(schedule, times).makespan_s == 9 + 20


def test_memory_over_time_and_its_peak() -> None:
    schedule = build_schedule("1f1b", 2, 3)
    simulation = simulate(schedule, rank_times(schedule, 1, 1, 1, 0))
    when_s, alive = simulation.memory_over_time(0, [5.0, 7.0])
    assert when_s.tolist() == [0, 1, 6, 6, 9, 12]
    assert alive.tolist() == [5, 10, 5, 10, 5, 0]
    assert simulation.peak_activations([5.0, 7.0]).tolist() == [10, 7]


@unhurried
@given(cases())
def test_memory_starts_and_ends_empty(case: tuple[Schedule, StageTimes]) -> None:
    schedule, times = case
    simulation, weights = simulate(schedule, times), np.arange(1.0, schedule.num_stages + 1)
    for rank, peak in enumerate(simulation.peak_activations(weights)):
        when_s, alive = simulation.memory_over_time(rank, weights)
        assert (np.diff(when_s) >= -1e-9).all()
        assert (alive >= 0).all()
        assert alive[-1] == 0
        assert alive.max() == peak


def test_shared_cores_by_hand() -> None:
    """GPipe, two ranks, two micro-batches, F 1 and B 2, one core: whenever both are busy each runs at half speed."""
    schedule = build_schedule("gpipe", 2, 2)
    simulation = simulate(schedule, rank_times(schedule, 1, 1, 1, 0), shared_cores=1)
    assert simulation.start_s.tolist() == [0, 1, 6, 10, 1, 3, 4, 6]
    assert simulation.finish_s.tolist() == [1, 3, 10, 12, 3, 4, 6, 10]


def test_shared_cores_leave_sends_alone() -> None:
    """One micro-batch: never two ranks busy, so cores don't matter and the edge delays stay."""
    schedule = build_schedule("1f1b", 3, 1)
    times = rank_times(schedule, 1, 1, 1, 5)
    assert simulate(schedule, times, shared_cores=1).makespan_s == simulate(schedule, times).makespan_s == 29
    assert simulate(schedule, times, shared_cores=0.5).makespan_s == 9 / 0.5 + 20


def _total_work_s(schedule: Schedule, times: StageTimes) -> float:
    return float(simulate(schedule, times).busy_s.sum())


@unhurried
@given(cases(), st.sampled_from([0.5, 1.0, 2.0, 3.0]))
def test_shared_cores_are_bounded_by_work_and_by_own_devices(case: tuple[Schedule, StageTimes], cores: float) -> None:
    schedule, times = case
    shared = simulate(schedule, times, shared_cores=cores).makespan_s
    assert shared >= _total_work_s(schedule, times) / cores * (1 - 1e-12)
    assert shared >= simulate(schedule, times).makespan_s * (1 - 1e-12)


@unhurried
@given(cases())
def test_one_core_without_delays_is_never_idle(case: tuple[Schedule, StageTimes]) -> None:
    schedule, times = case
    times = StageTimes(times.forward_s, times.input_grad_s, times.weight_grad_s, times.recompute_s)
    shared = simulate(schedule, times, shared_cores=1)
    assert shared.makespan_s == pytest.approx(_total_work_s(schedule, times), rel=1e-9, abs=1e-9)


@unhurried
@given(cases())
def test_a_core_for_every_rank_shares_nothing(case: tuple[Schedule, StageTimes]) -> None:
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


def test_nothing_takes_time() -> None:
    schedule = build_schedule("zb-h1", 2, 2)
    for cores in (None, 1):
        simulation = simulate(schedule, rank_times(schedule, 0, 0, 0, 0), shared_cores=cores)
        assert (simulation.makespan_s, simulation.bubble_fraction, simulation.span_bubble_fraction) == (0, 0, 0)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: StageTimes(np.array([1.0, -2.0]), 1.0, 1.0), "forward_s has the value -2"),
        (lambda: StageTimes(1.0, np.array([1.0, np.nan]), 1.0), "input_grad_s has the value nan"),
        (lambda: StageTimes(np.ones(2), np.ones(3), 1.0), r"don't fit together: forward_s \(2,\), input_grad_s \(3,\)"),
        (lambda: StageTimes(np.ones(3), 1.0, 1.0, edge_s=np.ones(3)), "don't fit together"),
        (lambda: simulate(build_schedule("1f1b", 2, 2), StageTimes(np.ones(3), 1.0, 1.0)), "times are of 3 stages"),
        (lambda: simulate(build_schedule("1f1b", 2, 2), StageTimes(np.ones((4, 2)), 1.0, 1.0)), "takes one row"),
        (lambda: simulate(build_schedule("1f1b", 2, 2), StageTimes(np.ones(2), 1.0, 1.0), 0), "shared_cores = 0"),
    ],
)
def test_bad_times_are_refused(act: object, message: str) -> None:
    with pytest.raises(InvalidSpec, match=message):
        act()  # type: ignore[operator]


def test_graph_is_built_once_and_let_go() -> None:
    schedule = Schedule.from_text("own", 1, (0,), {"0": "0F0 0B0"})
    graph = graph_of(schedule)
    assert graph_of(schedule) is graph
    key = id(schedule)
    assert key in _GRAPHS
    del schedule
    gc.collect()
    assert key not in _GRAPHS


def test_levels_hold_passes_that_do_not_wait_for_each_other() -> None:
    graph = graph_of(build_schedule("interleaved-1f1b", 4, 8, 2))
    bounds = enumerate(pairwise(graph.levels.tolist()))
    level = {slot: at for at, (start, end) in bounds for slot in graph.order[start:end].tolist()}
    assert sorted(level) == sorted(graph.slot.tolist())
    for slot, own in level.items():
        assert level.get(slot - 1, -1) < own
        assert level.get(int(graph.awaited[slot]), -1) < own


def test_simulation_is_linear_in_time() -> None:
    schedule = build_schedule("zb-h1", 4, 8)
    one, ten = (simulate(schedule, rank_times(schedule, 1 * k, 2 * k, 3 * k, 0.5 * k)) for k in (1, 10))
    assert isinstance(one, Simulation)
    assert ten.makespan_s == pytest.approx(10 * one.makespan_s)
    assert ten.bubble_fraction == pytest.approx(one.bubble_fraction)
