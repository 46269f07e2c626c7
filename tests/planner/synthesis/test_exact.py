"""The integer program against all orders there are; the bound and the search against the integer program."""

from __future__ import annotations

from itertools import permutations, product
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from order_problems import order_problems

from costmodel.placement import looped, zigzag
from planner.simulator import StageTimes
from planner.synthesis import OrderProblem, synthesize
from planner.synthesis.bounds import lower_bound
from planner.synthesis.exact import solve_exactly
from planner.synthesis.lines import lines_of, to_orders
from planner.synthesis.timing import Timing, obeys_cap, time_orders


def serial(problem: OrderProblem) -> Timing:
    """Micro-batch by micro-batch: some order, and not a good one."""
    lines = lines_of(problem)
    turn = sorted(range(len(lines.kind)), key=lambda line: (line >= problem.num_stages, line % problem.num_stages))
    forward = [line for line in turn if line < problem.num_stages]
    rest = sorted((line for line in turn if line >= problem.num_stages), key=lambda line: (lines.kind[line], -line))
    orders = [
        [line for line in (*forward, *rest) if lines.rank[line] == rank] * problem.num_microbatches
        for rank in range(problem.num_ranks)
    ]
    timing = time_orders(lines, orders)
    assert timing is not None
    return timing


def fastest_of_all(problem: OrderProblem) -> float:
    lines = lines_of(problem)
    each = [
        sorted(set(permutations([line for line in mine for _ in range(problem.num_microbatches)])))
        for mine in lines.of_rank
    ]
    least = inf
    for orders in product(*each):
        as_lists = [list(order) for order in orders]
        if obeys_cap(lines, as_lists):
            timing = time_orders(lines, as_lists)
            least = min(least, timing.makespan if timing else inf)
    return least


@settings(deadline=None, max_examples=12)
@given(st.data())
def test_program_equals_enumeration(data: st.DataObject) -> None:
    splits = data.draw(st.booleans())
    column = st.lists(st.integers(1, 9).map(float), min_size=2, max_size=2)
    times = StageTimes(data.draw(column), data.draw(column), data.draw(column), edge_s=data.draw(st.integers(0, 2)))
    cap = data.draw(st.sampled_from((1.0, 2.0)))
    problem = OrderProblem((0, 1), 2, times, cap, splits_backward=splits)
    exact = solve_exactly(problem, serial(problem))
    assert exact.optimal
    assert exact.timing is not None
    assert obeys_cap(exact.timing.lines, exact.timing.orders)
    assert exact.timing.makespan == pytest.approx(fastest_of_all(problem), rel=1e-6)


@settings(deadline=None, max_examples=8)
@given(order_problems(max_passes=20, max_pp=3))
def test_bound_program_and_search_agree(problem: OrderProblem) -> None:
    """bound <= exact = found, on any tiny problem."""
    exact = solve_exactly(problem, serial(problem), seconds=3.0)
    found = synthesize(problem, effort=0.5)
    assert lower_bound(problem) <= found.makespan * (1 + 1e-9)
    if exact.optimal and exact.timing is not None:
        assert lower_bound(problem) <= exact.timing.makespan * (1 + 1e-6)
        assert found.makespan == pytest.approx(exact.timing.makespan, rel=1e-6)


@pytest.mark.parametrize(
    ("placement", "m", "cap", "edge"),
    [
        (looped(3, 1), 4, 2.0, 0.5),
        (looped(3, 1), 3, 3.0, 0.0),
        (zigzag(2, 2), 3, 1.5, 0.25),
        (looped(2, 2), 3, 2.0, 0.5),
    ],
)
def test_search_equals_the_program(placement: tuple[int, ...], m: int, cap: float, edge: float) -> None:
    stages = len(placement)
    times = StageTimes([1.0 + s % 2 for s in range(stages)], [2.0] * stages, [1.0] * stages, edge_s=edge)
    problem = OrderProblem(placement, m, times, cap)
    found = synthesize(problem)
    incumbent = time_orders(lines_of(problem), to_orders(found.schedule, splits_backward=True) or [])
    assert incumbent is not None
    exact = solve_exactly(problem, incumbent, seconds=20.0)
    assert exact.optimal
    assert exact.timing is not None
    assert found.makespan == pytest.approx(exact.timing.makespan, rel=1e-6)
