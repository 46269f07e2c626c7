"""What a step time leaves of the ranges that ranks might hold, against every way to join them."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

import numpy as np
import pytest
from small_instances import build_model, build_request

from costmodel.layer_table import PricedLayers, price_layers
from planner.problem import Problem
from planner.search.place import place
from planner.search.policies import policy_sets
from planner.search.ranges import Range, list_ranges, ranges_in_time
from planner.search.space import enumerate_layouts


def joined(ranges: list[Range], pp: int, total: int, rank: int = 0, start: int = 0) -> Iterator[list[Range]]:
    if rank == pp:
        if start == total:
            yield []
        return
    for own in ranges:
        if own[:2] == (rank, start):
            yield from ([own, *rest] for rest in joined(ranges, pp, total, rank + 1, own[2]))


def fill_path_s(problem: Problem, layers: PricedLayers, chosen: list[Range], split: bool) -> float:
    """The longest way to a stage, through all its micro-batches and back, every layer under its fastest policy."""
    ends, edge_s = problem.num_kinds, float(layers.edge_s[0])
    layer_s = (layers.forward[0], layers.backward[0].min(axis=1))
    found, there_s, back_s = [], 0.0, 0.0
    for rank, start, stop in chosen:
        forward_s, backward_s = (float(column[problem.kinds[start:stop]].sum()) for column in layer_s)
        for end in [ends] * (rank == 0) + [ends + 1] * (rank == len(chosen) - 1):
            forward_s, backward_s = forward_s + layers.forward[0, end], backward_s + layers.backward[0, end, 0]
        sends_s = rank * edge_s * (1 if split else 2)
        work_s = layers.layouts.row(0).num_microbatches * (forward_s + backward_s)
        found.append(there_s + (0.0 if split else back_s) + sends_s + work_s)
        there_s, back_s = there_s + forward_s, back_s + backward_s
    return max(found)


@pytest.mark.parametrize("schedule", ["1f1b", "zb-h1", "gpipe"])
@pytest.mark.parametrize("shape", ["dense", "unlike"])
def test_whatever_meets_the_limit_is_left(schedule: str, shape: str) -> None:
    request = build_request(build_model(shape, num_layers=9), 8, schedules=(schedule,), fixed={"pp": 4, "tp": 1})
    problem, (policies, *_) = Problem.from_request(request), policy_sets(request)
    layers = price_layers(problem.setting, problem.network, enumerate_layouts(request).take([0]))
    ranges = list_ranges(problem, layers)
    ways = list(joined(list(ranges), 4, 9))
    times_s = [fill_path_s(problem, layers, way, schedule == "zb-h1") for way in ways]
    assert set(ranges_in_time(layers, ranges, policies, inf)) == {own for way in ways for own in way}
    for limit_s in (min(times_s), float(np.median(times_s))):
        left = ranges_in_time(layers, ranges, policies, limit_s)
        assert {own for way, time_s in zip(ways, times_s, strict=True) if time_s <= limit_s for own in way} <= set(left)
        assert len(left) < len(ranges)
    assert not ranges_in_time(layers, ranges, policies, 0.5 * min(times_s))


@pytest.mark.parametrize("shape", ["dense", "dense then mixture"])
def test_a_limit_just_above_the_answer_leaves_the_answer(shape: str) -> None:
    request = build_request(build_model(shape, num_layers=9), 8, schedules=("1f1b",), fixed={"pp": 4, "tp": 1})
    problem, sets = Problem.from_request(request), policy_sets(request)
    layers = price_layers(problem.setting, problem.network, enumerate_layouts(request).take([0]))
    free = place(problem, layers, np.zeros(1), sets, 1e15, inf)[0]
    near = place(problem, layers, np.zeros(1), sets, 1e15, free.step_s * (1.0 + 1e-6))[0]
    assert near.step_s == pytest.approx(free.step_s)
    late = place(problem, layers, np.zeros(1), sets, 1e15, free.bound_s * 0.9)[0]
    assert late.slower
    assert late.bound_s >= free.bound_s * 0.9 * (1.0 - 1e-9)
