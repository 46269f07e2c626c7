"""The program that divides ranks into groups, against enumeration; its bound against every way of dealing."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from planner.lengths.groups import GroupProblem, deal, divide, divide_alike, fewest_ranks


@st.composite
def problems(draw: st.DrawFn, most: int = 6) -> GroupProblem:
    """Two or three lengths on groups of 1, 2 and 4 of four ranks: longer is slower, larger groups are faster; the
    longest may fit the larger alone.
    """
    counts = tuple(draw(st.lists(st.integers(1, most), min_size=2, max_size=3)))
    lengths = np.cumsum([draw(st.floats(0.2, 3.0)) for _ in counts])
    loss = draw(st.floats(0.0, 0.6))
    ranks = (1, 2, 4)
    seconds = np.array([[length / size * (1.0 + loss * (size - 1)) for size in ranks] for length in lengths])
    for size in range(draw(st.integers(0, 2))):
        seconds[-1, size] = np.inf
    return GroupProblem(counts, ranks, seconds, 4)


def divisions(problem: GroupProblem) -> Iterator[tuple[int, ...]]:
    """Every number of groups of each shape that takes at most the ranks there are."""
    for groups in product(*(range(problem.world // size + 1) for size in problem.ranks)):
        if 0 < sum(c * g for c, g in zip(problem.ranks, groups, strict=True)) <= problem.world:
            yield groups


def finishes(problem: GroupProblem, groups: tuple[int, ...], step_s: float) -> bool:
    """Whether some x meets (1)-(3), by another solver."""
    lengths, shapes = problem.seconds.shape
    finite = np.where(np.isfinite(problem.seconds), problem.seconds, 1e9)
    time = np.zeros((shapes, lengths * shapes))
    every = np.zeros((lengths, lengths * shapes))
    for j, s in product(range(lengths), range(shapes)):
        time[s, j * shapes + s] = finite[j, s] / step_s
        every[j, j * shapes + s] = 1.0
    upper = [
        (0.0, float(int(step_s / finite[j, s] + 1e-9) * groups[s])) for j, s in product(range(lengths), range(shapes))
    ]
    return bool(linprog(np.zeros(lengths * shapes), time, groups, every, problem.counts, upper).success)


@given(problems(), st.floats(0.7, 4.0))
@settings(deadline=None, max_examples=40)
def test_fewest_ranks_is_what_enumeration_finds(problem: GroupProblem, share: float) -> None:
    step_s = problem.floor_s * share
    slowest = np.where(np.isfinite(problem.seconds), problem.seconds, 0.0)
    # Where a sequence takes exactly a whole share of the step, the two solvers' tolerances decide.
    assume(np.all(np.abs(step_s / np.maximum(slowest, 1e-3) % 1.0 - 0.5) < 0.499))
    found = fewest_ranks(problem, step_s)
    assert found is not None
    enough = [
        sum(c * g for c, g in zip(problem.ranks, groups, strict=True))
        for groups in divisions(problem)
        if finishes(problem, groups, step_s)
    ]
    if enough:
        assert found.ranks == min(enough)
    else:
        assert found.ranks > problem.world


def best_dealing(problem: GroupProblem) -> float:
    """The least makespan over every division and every way to give whole sequences to its groups."""
    best = float("inf")
    for groups in divisions(problem):
        shapes = np.repeat(np.arange(len(groups)), groups)
        loads: set[tuple[float, ...]] = {(0.0,) * len(shapes)}
        for j, count in enumerate(problem.counts):
            for _ in range(count):
                loads = {
                    (*load[:i], round(load[i] + problem.seconds[j, shapes[i]], 9), *load[i + 1 :])
                    for load in loads
                    for i in range(len(shapes))
                    if load[i] + problem.seconds[j, shapes[i]] < best
                }
        best = min([best, *(max(load) for load in loads)])
    return best


@given(problems(most=2))
@settings(deadline=None, max_examples=25)
def test_bound_optimum_and_dealing(problem: GroupProblem) -> None:
    """Floor <= program's bound <= best of all dealings <= what is answered <= the best of groups all alike."""
    alike = divide_alike(problem)
    assert alike is not None
    division = divide(problem, alike, gap=0.01)
    optimum = best_dealing(problem)
    assert problem.floor_s <= division.bound_s * (1 + 1e-9)
    assert division.bound_s <= optimum * (1 + 1e-6)
    assert optimum <= division.dealt.makespan_s * (1 + 1e-6)
    assert division.dealt.makespan_s <= alike.dealt.makespan_s


def test_every_sequence_is_dealt_once_and_loads_add_up() -> None:
    problem = GroupProblem((1000, 3), (1, 8), np.array([[0.01, 0.002], [np.inf, 4.0]]), 32)
    dealt = deal(problem, (24, 1))
    assert dealt is not None
    assert np.array(dealt.sequences).sum(axis=0).tolist() == [1000, 3]
    for shape, given_, load in zip(dealt.shapes, dealt.sequences, dealt.loads_s, strict=True):
        assert load == pytest.approx(sum(problem.seconds[j, shape] * n for j, n in enumerate(given_) if n))
    assert sum(problem.ranks[shape] for shape in dealt.shapes) == 32


def test_ranks_left_over_become_groups_and_what_fits_nowhere_is_refused() -> None:
    problem = GroupProblem((8, 1), (1, 2), np.array([[1.0, 0.6], [np.inf, 3.0]]), 5)
    dealt = deal(problem, (0, 1))
    assert dealt is not None
    assert dealt.shapes == (0, 1, 1)
    assert deal(problem, (5, 0)) is None
