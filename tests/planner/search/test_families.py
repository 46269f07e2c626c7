"""Layouts that are placed together get what each would get alone."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from floors import memory_floor_bytes
from small_instances import build_model, build_request

from costmodel.layer_table import price_layers
from planner.evaluate import evaluate
from planner.placement import Placement
from planner.problem import Problem
from planner.search.bounds import extras_floor_s
from planner.search.place import improve, place
from planner.search.policies import policy_sets
from planner.search.run import family_of_rows
from planner.search.space import enumerate_layouts

AMPLE = 1e15


@pytest.mark.parametrize("schedule", ["1f1b", "zb-h1", "interleaved-1f1b", "chimera", "v-half"])
def test_a_family_is_placed_as_its_layouts_are_alone(schedule: str) -> None:
    request = build_request(build_model("dense", num_layers=10), 8, schedules=(schedule,), fixed={"pp": 2, "tp": 1})
    problem, layouts, sets = Problem.from_request(request), enumerate_layouts(request), policy_sets(request)
    layers = price_layers(problem.setting, problem.network, layouts)
    policies = tuple(sorted({policy for one in sets for policy in one}))
    after_s = extras_floor_s(layers, problem.kinds, problem.num_kinds, policies)
    floor_bytes = memory_floor_bytes(layers, problem.kinds, problem.num_kinds, policies)
    families, draw, together = family_of_rows(layers), Random(3), 0
    for family in draw.sample(range(int(families.max()) + 1), min(4, int(families.max()) + 1)):
        rows = np.flatnonzero(families == family)
        budget_bytes = float(np.median(floor_bytes[rows])) * 4.0
        alone = [
            place(problem, layers.take(rows[[at]]), after_s[rows[[at]]], sets, budget_bytes, float("inf"))[0]
            for at in range(len(rows))
        ]
        placed = place(problem, layers.take(rows), after_s[rows], sets, budget_bytes, float("inf"))
        steps_s = np.array([one.step_s for one in alone])
        if not np.isfinite(steps_s).any():
            assert all(one.evaluated is None for one in placed)
            continue
        best = int(steps_s.argmin())
        fastest = min((one.evaluated for one in placed if one.evaluated), key=lambda one: one.step_time_s)
        assert fastest.step_time_s == pytest.approx(steps_s[best], rel=1e-12)
        for one, own in zip(placed, alone, strict=True):
            # One that no placement makes faster than another of the family is answered for by that one.
            least_s = fastest.step_time_s * (1.0 - 1e-12) if one.bound_s == np.inf else one.bound_s
            assert one.step_s == pytest.approx(own.step_s) or (one.slower and least_s <= own.step_s)
        together += len(rows) > 1
    assert together


def test_moving_cuts_about_finds_the_way_back_to_an_even_split() -> None:
    request = build_request(build_model("dense", num_layers=8), 4, schedules=("1f1b",), fixed={"pp": 4, "tp": 1})
    problem, sets = Problem.from_request(request), policy_sets(request)
    layers = price_layers(problem.setting, problem.network, enumerate_layouts(request).take([0]))
    best = place(problem, layers, np.zeros(1), sets, AMPLE, float("inf"))[0].evaluated
    assert best is not None
    start = evaluate(problem, Placement(best.placement.layout, "1f1b", (1, 3, 2, 2), (0,) * 8), layers=layers)
    assert start.step_time_s > best.step_time_s
    assert improve(problem, layers, sets, AMPLE, start).step_time_s == pytest.approx(best.step_time_s)
