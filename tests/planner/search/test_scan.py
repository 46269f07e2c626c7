"""The space in blocks: shared prices are each layout's own, and every layout is counted once under one rule."""

from __future__ import annotations

from dataclasses import fields
from random import Random

import numpy as np
import pytest
from floors import memory_floor_bytes, time_floor_s
from small_instances import build_model, build_request, random_request

from costmodel.even_split import uniform_assignment
from costmodel.layer_table import price_layers
from costmodel.layouts import Layouts
from costmodel.pipeline import count_copies
from costmodel.price import price
from planner.problem import Problem
from planner.search.best_first import search
from planner.search.bounds import extras_floor_s
from planner.search.policies import policy_sets
from planner.search.scan import MOST_COPIES, PricedSpace, Scan
from planner.search.space import OF_SCHEDULE, Rows, Space, enumerate_space

SEEDS = range(6)


def with_shares(space: Space, seed: int) -> Rows:
    """Some layouts of a space, and of a few two more each that differ in how much of the optimizer is on the host."""
    draw = Random(seed)
    numbers = np.array(draw.sample(range(len(space)), min(200, len(space))))
    sized = space.add_shares(numbers[:20].repeat(2), np.array([draw.random() for _ in numbers[:20].repeat(2)]))
    return np.concatenate([numbers, sized])


@pytest.mark.parametrize("seed", SEEDS)
def test_shared_prices_are_each_layouts_own(seed: int) -> None:
    request = random_request(seed)
    problem, space = Problem.from_request(request), enumerate_space(request)
    priced = PricedSpace(problem, space)
    numbers = with_shares(space, seed)
    for policy in policy_sets(request)[0]:
        layers = price_layers(problem.setting, problem.network, space.take(numbers))
        alone = price(layers, uniform_assignment(problem.kinds, problem.num_kinds, layers.layouts, policy))
        shared = priced.price_uniform(numbers, policy)
        for name in ("step_time_s", "claim_bytes", "peak_claim_bytes", "fits_host"):
            np.testing.assert_array_equal(getattr(shared, name), getattr(alone, name), err_msg=name)


@pytest.mark.parametrize("seed", SEEDS)
def test_shared_floors_are_each_layouts_own(seed: int) -> None:
    request = random_request(seed)
    problem, space = Problem.from_request(request), enumerate_space(request)
    numbers = with_shares(space, seed)
    layers = PricedSpace(problem, space).take(numbers)
    about = (problem.kinds, problem.num_kinds, policy_sets(request)[0])
    alike = space.split(numbers)[1] * MOST_COPIES + count_copies(layers.layouts).astype(np.int64)
    np.testing.assert_array_equal(extras_floor_s(layers, *about, alike), extras_floor_s(layers, *about))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("share", [0.2, 1.0])
def test_what_a_scan_leaves_is_what_the_floors_leave(seed: int, share: float) -> None:
    """Rows that are never unfolded are those that the whole floor would have ruled out, too."""
    request = random_request(seed)
    problem, space = Problem.from_request(request), enumerate_space(request)
    policies = policy_sets(request)[0]
    layers = price_layers(problem.setting, problem.network, space.all_layouts())
    about = (problem.kinds, problem.num_kinds, policies)
    floor_bytes = memory_floor_bytes(layers, *about)
    budget = float(np.quantile(floor_bytes, 0.7))
    floor_s = time_floor_s(layers, *about, budget)
    limit_s = float(np.quantile(floor_s, share))
    scan = Scan(problem, PricedSpace(problem, space), policies, budget)
    found = [scan.look(rows, limit_s) for rows in scan.blocks()]
    numbers = np.concatenate([one.numbers for one in found])
    np.testing.assert_array_equal(np.sort(numbers), np.flatnonzero((floor_bytes <= budget) & (floor_s < limit_s)))
    np.testing.assert_allclose(np.concatenate([one.bounds for one in found]), floor_s[numbers], rtol=1e-12)
    assert len(numbers) + scan.too_large + scan.too_slow == len(space)
    assert scan.left == 0


def test_layouts_go_by_number() -> None:
    space = enumerate_space(build_request(build_model("dense then mixture"), 16))
    whole = space.all_layouts()
    draw = Random(0)
    for number in draw.sample(range(len(space)), 40):
        one = space.take(np.array([number]))
        assert space.number_of(one) == number
        assert one.row(0) == whole.row(number) == space.row(number)
        alike = space.alike(number)
        assert number in alike
        same = np.ones(len(space), bool)
        for field in fields(Layouts):
            if field.name not in OF_SCHEDULE:
                same &= getattr(whole, field.name) == getattr(one, field.name)[0]
        np.testing.assert_array_equal(alike, np.flatnonzero(same))


def test_a_search_out_of_time_counts_what_it_did_not_reach() -> None:
    request = build_request(build_model(num_layers=8), 16, time_limit_s=1e-9)
    outcome = search(request, Problem.from_request(request))
    assert outcome.stopped
    assert outcome.pruned["not reached"] > 0
    assert len(outcome.steps_s) + sum(outcome.pruned.values()) == len(outcome.space)
    best = outcome.best
    assert best is not None
    assert outcome.bound_s <= best.step_time_s
