"""The integer program over pipeline stages: its optimum by trying all choices, its bound by simulation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise, product
from random import Random

import numpy as np
import pytest

from planner.kept import count_ahead
from planner.schedules import build_schedule
from planner.search.balance import Floors, balance_stages, with_least_end
from planner.search.options import Option
from planner.search.stage_problem import StageChoice, StageProblem, path_bound_s
from planner.search.stages import solve_stages
from planner.simulator import StageTimes, simulate

SCHEDULES = ("1f1b", "gpipe", "zb-h1", "zb-h2", "zeropp")


def random_option(draw: Random, layers: int) -> Option:
    """Times about in proportion to the layers, now and then far off; up to all of the backward may be delayed."""
    scale = layers * draw.choice((1.0, 1.0, 1.0, 0.01, 10.0))
    backward_s = scale * draw.uniform(0.5, 3.0)
    return Option(
        mix=np.zeros((1, 4)),
        forward_s=scale * draw.uniform(0.3, 1.5),
        backward_s=backward_s,
        weight_grad_s=backward_s * draw.choice((0.0, 0.4, 1.0)),
        extras_s=draw.choice((0.0, draw.uniform(0.0, 5.0))),
    )


def random_problem(seed: int, schedule: str) -> StageProblem:
    """2 to 4 stages over 4 to 7 layers, with every range that leaves each stage one."""
    draw = Random(seed)
    pp = draw.randint(2, 4)
    total = draw.randint(max(4, pp), 7)
    choices = []
    for s in range(pp):
        starts = [0] if s == 0 else range(s, total)
        stops = [total] if s == pp - 1 else range(s + 1, total - pp + s + 2)
        spans = [(start, stop) for start in starts for stop in stops if start < stop]
        choices.append(tuple(StageChoice(*span, random_option(draw, span[1] - span[0])) for span in spans))
    m = draw.choice((1, 2, 3, 5, 8, 17))
    order = build_schedule(schedule, pp, m)
    return StageProblem(
        choices=tuple(choices),
        num_microbatches=m,
        ahead=count_ahead(order),
        edges_s=tuple(draw.choice((0.0, 0.1, 20.0)) for _ in range(pp - 1)),
        one_f_one_b=schedule == "1f1b",
        split_backward=order.splits_backward,
        replicas_per_core=0.0,
    )


def joined(problem: StageProblem) -> Iterator[tuple[StageChoice, ...]]:
    for chosen in product(*problem.choices):
        if all(left.stop == right.start for left, right in pairwise(chosen)):
            yield chosen


def options_of(chosen: tuple[StageChoice, ...]) -> list[Option]:
    return [choice.option for choice in chosen]


def simulated_s(schedule: str, problem: StageProblem, options: list[Option]) -> float:
    columns = np.array([[one.forward_s, one.backward_s - one.weight_grad_s, one.weight_grad_s] for one in options]).T
    order = build_schedule(schedule, len(options), problem.num_microbatches)
    makespan_s = simulate(order, StageTimes(*columns, edge_s=np.array(problem.edges_s))).makespan_s
    return makespan_s + max(one.extras_s for one in options)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("seed", range(25))
def test_solution_is_the_best_of_all_choices(seed: int, schedule: str) -> None:
    problem = random_problem(seed, schedule)
    solution = solve_stages(problem)
    best_s = min(path_bound_s(problem, options_of(chosen)) for chosen in joined(problem))
    assert solution.status == "optimal"
    assert path_bound_s(problem, options_of(solution.chosen)) == pytest.approx(best_s, rel=2e-4)
    assert best_s * (1.0 - 2e-4) <= solution.bound_s <= best_s * (1.0 + 1e-6)
    fastest_s = min(simulated_s(schedule, problem, options_of(chosen)) for chosen in joined(problem))
    assert solution.bound_s <= fastest_s * (1.0 + 1e-6)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("seed", range(300, 340))
def test_no_path_is_longer_than_the_simulated_step(seed: int, schedule: str) -> None:
    """Every joined choice of a problem, about 20 each, for 40 problems a schedule."""
    problem = random_problem(seed, schedule)
    for chosen in joined(problem):
        options = options_of(chosen)
        step_s = simulated_s(schedule, problem, options)
        assert path_bound_s(problem, options) <= step_s * (1.0 + 1e-9), chosen


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("seed", range(25))
def test_what_comes_before_the_program_keeps_its_optimum(seed: int, schedule: str) -> None:
    """No floor lies above a solution that it is of, and what is useful below a limit keeps all solutions below it."""
    problem = random_problem(seed, schedule)
    costs = [(chosen, path_bound_s(problem, options_of(chosen))) for chosen in joined(problem)]
    floors = Floors(problem)
    assert floors.bottleneck_s() <= min(cost_s for _, cost_s in costs) * (1.0 + 1e-9)
    limit_s = float(np.median([cost_s for _, cost_s in costs])) * (1.0 + 1e-9)
    kept = [{(choice.start, choice.stop) for choice in choices} for choices in floors.useful(limit_s)]
    for chosen, cost_s in costs:
        assert all(floors.alone_s(s, choice) <= cost_s * (1.0 + 1e-9) for s, choice in enumerate(chosen))
        if cost_s <= limit_s:
            assert all((choice.start, choice.stop) in stage for choice, stage in zip(chosen, kept, strict=True))
    balanced = balance_stages(problem.choices)
    slowest = [max(one.forward_s + one.backward_s for one in options_of(chosen)) for chosen, _ in costs]
    assert balanced is not None
    assert max(choice.option.forward_s + choice.option.backward_s for choice in balanced) == pytest.approx(min(slowest))


def test_shared_cores_are_a_path() -> None:
    """Two stages of 3 s a micro-batch on half a core: eight micro-batches take 4 x 8 x 3 s at least."""
    option = Option(np.zeros((1, 4)), 1.0, 2.0, 0.5, 0.0)
    choices = ((StageChoice(0, 1, option),), (StageChoice(1, 2, option),))
    problem = StageProblem(choices, 8, (0.0,), (2, 1), one_f_one_b=True, split_backward=False, replicas_per_core=2.0)
    assert solve_stages(problem).bound_s == pytest.approx(2 * 8 * 6)
    order = build_schedule("1f1b", 2, 8)
    times = StageTimes(np.ones(2), np.full(2, 1.5), np.full(2, 0.5))
    assert simulate(order, times, shared_cores=0.5).makespan_s >= 2 * 8 * 6 * (1.0 - 1e-9)


def test_ranges_that_do_not_join_are_infeasible() -> None:
    option = Option(np.zeros((1, 4)), 1.0, 2.0, 0.5, 0.0)
    frame = {"num_microbatches": 4, "edges_s": (0.0,), "ahead": (2, 1), "one_f_one_b": True}
    frame |= {"split_backward": False, "replicas_per_core": 0}
    apart = StageProblem(((StageChoice(0, 2, option),), (StageChoice(3, 4, option),)), **frame)
    assert solve_stages(apart).status == "infeasible"
    several = (StageChoice(0, 2, option), StageChoice(0, 1, option))
    assert solve_stages(StageProblem((several, (StageChoice(3, 4, option),) * 2), **frame)).chosen == ()
    assert solve_stages(StageProblem((several, ()), **frame)).status == "infeasible"
    assert balance_stages(apart.choices) is None


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("seed", range(25, 45))
def test_the_least_end_changes_no_solution(seed: int, schedule: str) -> None:
    """Ends of 0 to 3 s differ between options; raised to what every solution comes to, all solutions cost the same."""
    problem = random_problem(seed, schedule)
    draw = np.random.default_rng(seed)
    ends = [[replace(c, option=replace(c.option, extras_s=draw.uniform(0, 3))) for c in of] for of in problem.choices]
    problem = replace(problem, choices=tuple(map(tuple, ends)))
    raised = with_least_end(problem)
    before = [path_bound_s(problem, options_of(chosen)) for chosen in joined(problem)]
    assert [path_bound_s(raised, options_of(chosen)) for chosen in joined(raised)] == before
    assert Floors(problem).bottleneck_s() <= Floors(raised).bottleneck_s() <= min(before) * (1.0 + 1e-9)
