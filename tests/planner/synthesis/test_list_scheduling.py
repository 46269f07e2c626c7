"""List scheduling under any rule: every pass placed, no dead end, no more memory than the cap."""

from __future__ import annotations

from random import Random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from order_problems import order_problems, uniform

from planner.schedules import build_schedule, check_schedule
from planner.simulator import simulate
from planner.synthesis import OrderProblem
from planner.synthesis.lines import lines_of, to_orders, to_schedule
from planner.synthesis.list_scheduling import Rule, list_schedule
from planner.synthesis.rules import rules
from planner.synthesis.timing import Timing, obeys_cap, peaks, time_orders

unhurried = settings(deadline=None, max_examples=120)


def random_rule(problem: OrderProblem, random: Random) -> Rule:
    lines = lines_of(problem)
    spread = random.choice((0.0, 1.0, 100.0))
    urgency = [[k + random.uniform(0, spread) for k in range(lines.num_microbatches)] for _ in lines.kind]
    limits = [float(random.randint(1, 4)) for _ in lines.kind] if random.random() < 0.5 else None
    release = [[random.uniform(0, 9) for _ in ends] for ends in urgency] if random.random() < 0.3 else None
    return Rule(urgency, random.choice((0.0, 0.5, 1.0)), random.random() < 0.5, limits, release)


def assert_sound(problem: OrderProblem, timing: Timing) -> None:
    """What the validator and the simulator say of an order in forward time."""
    schedule = to_schedule(timing.lines, timing.orders, problem)
    assert check_schedule(schedule) == []
    simulation = simulate(schedule, problem.times)
    assert simulation.makespan_s <= timing.makespan * (1 + 1e-9)
    alive = simulation.peak_activations(problem.weights)
    assert np.all(alive <= np.array(problem.caps) * (1 + 1e-8))
    assert alive.tolist() == peaks(timing.lines, timing.orders)


@unhurried
@given(order_problems(), st.integers(0, 10**6))
def test_any_rule_gives_an_order_that_runs_under_the_cap(problem: OrderProblem, seed: int) -> None:
    assert_sound(problem, list_schedule(lines_of(problem), random_rule(problem, Random(seed))))


@unhurried
@given(order_problems(), st.integers(0, 10**6))
def test_an_order_found_backwards_in_time_runs_forwards(problem: OrderProblem, seed: int) -> None:
    back = list_schedule(lines_of(problem, backwards=True), random_rule(problem, Random(seed)))
    forth = time_orders(lines_of(problem), [order[::-1] for order in back.orders])
    assert forth is not None
    assert forth.makespan <= back.makespan * (1 + 1e-9)
    assert_sound(problem, forth)


@unhurried
@given(order_problems(max_passes=60))
def test_every_shipped_rule_works(problem: OrderProblem) -> None:
    lines = lines_of(problem)
    for recipe in rules(lines):
        timing = list_schedule(lines, recipe.rule(lines))
        assert sum(map(len, timing.orders)) == lines.num_passes
        assert obeys_cap(lines, timing.orders)


@unhurried
@given(order_problems(), st.integers(0, 10**6))
def test_times_equal_the_simulators(problem: OrderProblem, seed: int) -> None:
    lines = lines_of(problem)
    orders = list_schedule(lines, random_rule(problem, Random(seed))).orders
    timing = time_orders(lines, orders)
    assert timing is not None
    schedule = to_schedule(lines, orders, problem)
    assert np.isclose(timing.makespan, simulate(schedule, problem.times).makespan_s, rtol=1e-12)
    assert to_orders(schedule, problem.splits_backward) == orders


def test_patience_waits_for_the_more_urgent_pass() -> None:
    """On rank 0, W of the first micro-batch would hold up I of the second, which arrives before W ends."""
    problem = uniform(2, 2, 1, 2.0, (2.0, 2.0, 2.5, 0.5))
    lines = lines_of(problem)
    by_kind = [[{"F": 1.0, "I": 0.0, "W": 2.0}[kind.value]] * 2 for kind in lines.kind]
    hasty = list_schedule(lines, Rule(by_kind, patience=0.0))
    patient = list_schedule(lines, Rule(by_kind, patience=1.0))
    assert [lines.kind[line].value for line in hasty.orders[0]] == ["F", "F", "I", "W", "I", "W"]
    assert [lines.kind[line].value for line in patient.orders[0]] == ["F", "F", "I", "I", "W", "W"]


def test_a_whole_backward_becomes_two_passes() -> None:
    schedule = build_schedule("1f1b", 2, 2)
    assert to_orders(schedule, splits_backward=True) == [[0, 0, 2, 4, 2, 4], [1, 3, 5, 1, 3, 5]]
    assert to_orders(schedule, splits_backward=False) == [[0, 0, 2, 2], [1, 3, 1, 3]]
    assert to_orders(build_schedule("zb-h1", 2, 2), splits_backward=False) is None


def test_ranks_that_wait_for_each_other_have_no_times() -> None:
    lines = lines_of(uniform(2, 1, 2, 9.0))
    forward, backward, weight = [0, 3], [4, 7], [8, 11]
    assert time_orders(lines, [[3, 0, 7, 4, *weight], [1, 2, 6, 5, 10, 9]]) is None
    assert time_orders(lines, [[*forward, *backward[::-1], *weight], [1, 2, 6, 5, 10, 9]]) is not None
