"""What synthesis promises: valid, under the cap, never slower than a published schedule, never below the bound."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from order_problems import order_problems, uniform

from costmodel.placement import looped
from costmodel.schema.errors import Infeasible, InvalidSpec
from planner.cli.main import status_of
from planner.schedules import SCHEDULES, PassTimes, build_schedule, check_schedule
from planner.schedules.block_search import v_schedule
from planner.schedules.report import rank_shares, rank_times
from planner.simulator import StageTimes, simulate
from planner.synthesis import OrderProblem, synthesize
from planner.synthesis.bounds import lower_bound
from planner.synthesis.lines import lines_of
from planner.synthesis.list_scheduling import list_schedule
from planner.synthesis.rules import rules
from planner.synthesis.steady_state import speed_up, stretch
from planner.synthesis.timing import obeys_cap
from planner.synthesis.uniform import synthesize_uniform

UPSTREAM = (29850.0, 29767.0, 18868.0, 466.0)
SLOW_LINKS = (1.0, 1.25, 0.75, 0.1)

VOCABULARY = ("1f1b-vocab-1", "1f1b-vocab-2")
"""Not orders of the same passes."""


def published(problem: OrderProblem) -> dict[str, float]:
    """Makespan of every registered schedule of the problem's placement that obeys its cap, by the simulator."""
    pp, vpp, m = problem.num_ranks, problem.num_stages // problem.num_ranks, problem.num_microbatches
    found = {}
    for name, kind in SCHEDULES.items():
        if name in VOCABULARY:
            continue
        if kind.copies > 1 or not kind.allows(pp, m, vpp) or kind.stage_to_rank(pp, vpp) != problem.stage_to_rank:
            continue
        schedule = build_schedule(name, pp, m, vpp)
        if schedule.splits_backward and not problem.splits_backward:
            continue
        simulation = simulate(schedule, problem.times)
        if np.all(simulation.peak_activations(problem.weights) <= np.array(problem.caps) * (1 + 1e-9)):
            found[name] = simulation.makespan_s
    return found


@settings(deadline=None, max_examples=25)
@given(order_problems(max_passes=150))
def test_promises_hold_for_uneven_stages(problem: OrderProblem) -> None:
    found = synthesize(problem, effort=0.1)
    assert check_schedule(found.schedule) == []
    simulation = simulate(found.schedule, problem.times)
    alive = simulation.peak_activations(problem.weights)
    assert np.all(alive <= np.array(problem.caps) * (1 + 1e-8))
    assert found.peak_activations == tuple(alive.tolist())
    assert found.makespan == simulation.makespan_s
    assert found.lower_bound <= found.makespan * (1 + 1e-9)
    assert found.makespan <= min(found.candidates.values()) * (1 + 1e-9)
    assert found.makespan <= min(published(problem).values(), default=inf) * (1 + 1e-9)


@settings(deadline=None, max_examples=8)
@given(order_problems())
def test_same_seed_gives_the_same_order(problem: OrderProblem) -> None:
    assert synthesize(problem, 0.05, seed=3).schedule == synthesize(problem, 0.05, seed=3).schedule


@pytest.mark.parametrize("spent", [{"seconds": 0.0}, {"effort": 0.0}])
def test_nothing_to_spend_still_gives_an_order(spent: dict[str, float]) -> None:
    problem = uniform(4, 6, 2, 1.0, SLOW_LINKS)
    found = synthesize(problem, **spent)
    assert check_schedule(found.schedule) == []
    assert max(found.peak_activations) <= 1.0


@pytest.mark.parametrize(
    ("times", "cap", "bubble"),
    [(UPSTREAM, 4, 0.331), (SLOW_LINKS, 4, 0.432), (SLOW_LINKS, 5, 0.263)],
)
def test_low_memory_beats_published_bubbles(times: tuple[float, float, float, float], cap: int, bubble: float) -> None:
    """V-Min (peak 4) and V-Half (peak 5) at 8 ranks and 16 micro-batches, as independently simulated."""
    found = synthesize(uniform(8, 16, 2, cap, times))
    assert max(found.peak_activations) <= cap
    assert 1 - 16 * sum(times[:3]) / found.makespan < bubble


def test_one_micro_batch_of_memory_is_enough() -> None:
    """Below the peak of every published schedule there is still an order; with one stage a rank, the serial one."""
    problem = OrderProblem(looped(4, 1), 5, StageTimes.uniform(4, 1.0, 1.0, 1.0, 0.5), 1.0)
    assert published(problem) == {}
    found = synthesize(problem)
    assert found.peak_activations == (1.0,) * 4
    assert found.makespan == pytest.approx(lower_bound(problem))


def test_less_is_infeasible() -> None:
    with pytest.raises(Infeasible, match=r"rank 1 may keep 1\.5 alive, but one micro-batch of its stages takes 2"):
        OrderProblem((0, 1), 4, StageTimes.uniform(2, 1.0, 1.0, 1.0), (1.5, 1.5), (1.0, 2.0))


def test_uneven_stages_gain_on_every_published_schedule() -> None:
    """One stage of twice the others' time, at 1F1B's memory: the bound is met where no published schedule meets it."""
    forward = np.array([1.0, 2.0, 1.0, 1.0, 1.0, 1.0])
    problem = OrderProblem(looped(6, 1), 12, StageTimes(forward, forward, forward / 2, edge_s=0.1), 6.0)
    found = synthesize(problem, effort=0.3)
    assert found.makespan < min(published(problem).values()) * (1 - 1e-6)
    assert found.makespan == pytest.approx(found.lower_bound)


@pytest.mark.parametrize(("pp", "m", "cap"), [(4, 12, 4.0), (8, 24, 8.0)])
def test_bound_is_tight_where_zb_h1_is_optimal(pp: int, m: int, cap: float) -> None:
    problem = OrderProblem(looped(pp, 1), m, StageTimes.uniform(pp, 1.0, 1.0, 1.0), cap)
    assert lower_bound(problem) == pytest.approx(3 * m + pp - 1)
    assert simulate(build_schedule("zb-h1", pp, m), problem.times).makespan_s == pytest.approx(3 * m + pp - 1)


@settings(deadline=None, max_examples=40)
@given(order_problems())
def test_stretched_schedules_run_under_the_same_cap(problem: OrderProblem) -> None:
    lines = lines_of(problem)
    timing = list_schedule(lines, next(iter(rules(lines))).rule(lines))
    more = lines.with_microbatches(problem.num_microbatches + 4)
    longer = stretch(timing, more)
    if longer is not None:
        assert sum(map(len, longer.orders)) == more.num_passes
        assert obeys_cap(more, longer.orders)
    for other in speed_up(timing):
        assert sum(map(len, other.orders)) == lines.num_passes
        assert obeys_cap(lines, other.orders)


def test_stretching_keeps_a_full_steady_state_full() -> None:
    few, many = uniform(4, 10, 2, 4.0), uniform(4, 50, 2, 4.0)
    found = synthesize(few)
    timing = list_schedule(lines_of(few), next(iter(rules(lines_of(few)))).rule(lines_of(few)))
    longer = stretch(timing, lines_of(many))
    assert longer is not None
    assert longer.makespan - timing.makespan == pytest.approx(3 * 40)
    assert found.makespan <= timing.makespan


def test_any_placement_is_at_least_as_fast_as_each() -> None:
    times = PassTimes(1.0, 1.25, 0.75, 0.1)
    free = synthesize_uniform(4, 8, times, None, 1.0)
    assert free.makespan <= synthesize_uniform(4, 8, times, 1, 1.0).makespan * (1 + 1e-9)
    assert max(free.peak_activations) <= 4 * (1 + 1e-9)
    for name, kind in SCHEDULES.items():
        if name in VOCABULARY:
            continue
        if kind.copies > 1 or not kind.allows(4, 8, kind.vpp):
            continue
        schedule = build_schedule(name, 4, 8, kind.vpp)
        simulation = simulate(schedule, rank_times(schedule, 1.0, 1.25, 0.75, 0.1))
        if max(simulation.peak_activations(rank_shares(schedule))) <= 4 * (1 + 1e-9):
            assert free.makespan <= simulation.makespan_s * (1 + 1e-9), name


def test_of_equally_fast_orders_the_leanest_is_taken() -> None:
    """Several schedules take no longer than any order can; ZB-V keeps least."""
    found = synthesize_uniform(4, 8, PassTimes(1.0, 1.0, 1.0))
    assert found.makespan == pytest.approx(found.lower_bound)
    assert found.family == "zb-v"
    assert max(found.peak_activations) == pytest.approx(4)


@pytest.mark.parametrize("cap", [1.0, 1.5, 2.0, 2.5, 3.5])
def test_never_slower_than_a_building_block_made_for_the_cap(cap: float) -> None:
    """Blocks between V-Min and ZB-V, which have no name of their own."""
    times = PassTimes(1.15, 1.15, 0.7, 0.02)
    schedule = v_schedule(4, 6, cap, times)
    simulation = simulate(schedule, rank_times(schedule, 1.15, 1.15, 0.7, 0.02))
    found = synthesize_uniform(4, 6, times, 2, cap / 4, effort=0.01)
    assert found.makespan <= simulation.makespan_s * (1 + 1e-9)
    assert found.lower_bound <= found.makespan * (1 + 1e-9)
    assert max(found.peak_activations) <= cap * (1 + 1e-9)


def test_command_prints_what_it_found(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = "schedule auto --pp 3 --microbatches 4 --vpp 2 --memory-cap 0.5 --b 1.5 --comm 0.1 --json"
    assert status_of(arguments.split()) == 0
    printed: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert printed["valid"]
    assert max(printed["peak_activations"]) <= 1.5 * (1 + 1e-9)
    assert printed["lower_bound"] <= printed["makespan"]
    assert printed["makespan"] <= min(printed["candidates"].values())
    assert printed["family"].removesuffix(", improved") in printed["candidates"]
    assert printed["vpp"] == 2


def test_command_says_where_the_order_comes_from(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(["schedule", "auto", "--pp", "2", "--microbatches", "2", "--vpp", "1"]) == 0
    assert "no order is faster (bound 7)" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        ("1f1b --memory-cap 1", 2, "--memory-cap 1 bounds the schedule 'auto' alone, not '1f1b'"),
        ("auto --memory-cap 0.2", 1, "memory cap 0.2 is 0.8 of a micro-batch, and a rank needs room for one"),
        ("auto --memory-cap 0", 2, "memory cap 0 must be a finite number above 0"),
        ("auto --vpp 4096", 2, "is too much to build here"),
    ],
)
def test_command_refuses(arguments: str, status: int, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    name, *rest = arguments.split()
    assert status_of(["schedule", name, "--pp", "4", "--microbatches", "8", *rest]) == status
    assert sentence in " ".join(capsys.readouterr().err.split())


def test_problem_refuses_what_cannot_be() -> None:
    times = StageTimes.uniform(2, 1.0, 1.0, 1.0)
    build: Callable[..., OrderProblem] = OrderProblem
    for wrong in (
        {"stage_to_rank": (0, 2)},
        {"num_microbatches": 0},
        {"times": StageTimes.uniform(3, 1.0, 1.0, 1.0)},
        {"stage_weights": (1.0, 0.0)},
        {"memory_cap": -1.0},
    ):
        with pytest.raises(InvalidSpec):
            build(**{"stage_to_rank": (0, 1), "num_microbatches": 2, "times": times, "memory_cap": 3.0} | wrong)


@pytest.mark.parametrize("case", ["1:1:1:0", "llama-8b"])
def test_benchmark_poses_every_placement(case: str) -> None:
    """One stage a rank, two round and round, two there and back, in the same unit of memory."""
    benchmark = runpy.run_path(str(Path(__file__).parents[3] / "benchmarks" / "synthesis.py"))
    posed = benchmark["problems"](benchmark["Cell"](case, 4, 4, 4.0))
    assert sorted(problem.num_stages for problem in posed) == [4, 8, 8]
    assert len({problem.stage_to_rank for problem in posed}) == 3
    for problem in posed:
        assert sum(problem.weights) == pytest.approx(4)
        assert problem.times.num_stages == problem.num_stages
