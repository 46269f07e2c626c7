"""Bounds look at fewer policies than there are, and lose nothing by it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small_instances import build_model, build_request, with_every_policy

from costmodel.layer_table import PricedLayers, price_layers
from planner.problem import Problem
from planner.search.corners import corner_policies
from planner.search.policies import policy_sets
from planner.search.space import enumerate_layouts
from planner.search.worth_limit import WorthLimit


def priced(seed: int) -> tuple[PricedLayers, tuple[int, ...]]:
    """Two layers' worth of random costs beside those of the model, so that hulls of all shapes come up."""
    request = with_every_policy(
        build_request(build_model(hidden=(1024, 4096)[seed % 2]), 4, fixed={"schedule": "zb-h1"})
    )
    problem = Problem.from_request(request)
    layouts = enumerate_layouts(request).take(slice(0, 40, 8))
    layers = price_layers(problem.setting, problem.network, layouts)
    rng = np.random.default_rng(seed)
    costs = layers.costs
    shaken = {
        name: getattr(costs, name) * rng.uniform(1.0 - 0.1 * (seed > 1), 1.0, costs.num_policies)
        for name in ("recompute_s", "saved_bytes", "pending_bytes")
    }
    return replace(layers, costs=replace(costs, **shaken)), policy_sets(request)[0]


@pytest.mark.parametrize("seed", range(8))
def test_what_fits_time_and_memory_is_the_same_without_the_rest(seed: int) -> None:
    """For waits between input and weight gradient from none to as many as there are in flight."""
    layers, policies = priced(seed)
    few = corner_policies(layers, 1, policies)
    assert set(few) < set(policies)
    costs, rows = layers.costs, layers.index
    layer_s = layers.forward[:, :1] + layers.backward[:, 0]
    rng = np.random.default_rng(seed)
    for waiting in (0.0, 0.3, 1.0):
        kept = (costs.saved_bytes + waiting * costs.pending_bytes)[rows, 0]
        room = rng.uniform(0.0, 12.0, (len(rows), 20)) * kept[:, :1]
        time_s = rng.uniform(6.0, 18.0, (len(rows), 20)) * layer_s[:, :1]

        def worth(
            chosen: tuple[int, ...], kept: np.ndarray = kept, room: np.ndarray = room, time_s: np.ndarray = time_s
        ) -> np.ndarray:
            times, num_bytes = layer_s[:, None, list(chosen)], np.maximum(kept[:, None, list(chosen)], 1.0)
            return WorthLimit(times, num_bytes, np.ones_like(times)).most(time_s, room)

        np.testing.assert_allclose(worth(few), worth(policies), rtol=1e-9)
