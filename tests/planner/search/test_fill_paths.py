"""Reaching, draining and round trips by dynamic programming, against every joined choice."""

from __future__ import annotations

from itertools import pairwise
from math import inf

import pytest
from test_stages import SCHEDULES, joined, options_of, random_problem

from planner.search.fill import solve_fill_paths
from planner.search.options import Option
from planner.search.stage_problem import StageProblem, path_bound_s


def longest_s(problem: StageProblem, options: list[Option]) -> float:
    """The largest of (4) and (5), each with its own stage's time after the passes."""
    m, d = problem.num_microbatches, problem.edges_s
    found = []
    for s, option in enumerate(options):
        before, after = options[:s], options[s + 1 :]
        there_s = sum(one.forward_s for one in before) + sum(d[:s])
        back_s = 0.0 if problem.split_backward else sum(one.backward_s for one in before) + sum(d[:s])
        own_s = m * (option.forward_s + option.backward_s)
        found.append(there_s + back_s + own_s + option.extras_s)
        if m < problem.ahead[s]:
            continue
        beyond_s = sum(one.forward_s + one.backward_s for one in after) + 2 * sum(d[s:])
        if problem.split_backward:
            beyond_s -= sum(one.weight_grad_s for one in after)
        trip_s = there_s + option.forward_s + beyond_s + back_s
        trip_s += m * option.backward_s + (m - problem.ahead[s]) * option.forward_s
        found.append(trip_s + option.extras_s)
    return max(found)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("seed", range(500, 530))
def test_they_are_solved_to_the_optimum(seed: int, schedule: str) -> None:
    problem = random_problem(seed, schedule)
    costs = [longest_s(problem, options_of(chosen)) for chosen in joined(problem)]
    found = solve_fill_paths(problem, inf)
    assert found is not None
    chosen, cost_s = found
    assert all(left.stop == right.start for left, right in pairwise(chosen))
    assert cost_s == pytest.approx(min(costs))
    assert longest_s(problem, options_of(tuple(chosen))) == pytest.approx(cost_s)
    assert cost_s <= min(path_bound_s(problem, options_of(one)) for one in joined(problem)) * (1.0 + 1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("seed", range(530, 540))
def test_a_limit_hides_nothing_within_it(seed: int, schedule: str) -> None:
    problem = random_problem(seed, schedule)
    least_s = min(longest_s(problem, options_of(chosen)) for chosen in joined(problem))
    for factor in (1.0 + 1e-9, 1.3):
        found = solve_fill_paths(problem, least_s * factor)
        assert found is not None
        assert found[1] == pytest.approx(least_s)
    assert solve_fill_paths(problem, least_s * 0.999) is None
