"""A tighter bound: only as much memory as there is, and whole layers where most are alike.

For a step time T every stage has some seconds w_s(T) a micro-batch, by the paths of its schedule, and some bytes
(``stage_limits``). If all stages together cannot take the model, T cannot be reached. Bisection over T gives the bound.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from costmodel.layer_table import PricedLayers
from costmodel.layouts import Column
from costmodel.pipeline import count_copies, count_crossings, placement_codes
from planner.problem import Problem
from planner.search.bounds import least_evenness, least_in_flight, mean_state_bytes, placeable_worth
from planner.search.corners import corner_policies
from planner.search.stage_limits import ROUNDING, StageLimits

BISECTIONS = 14
BLOCK = 8192
"""Rows asked at a time whether they can do it on average."""
CHUNK_CELLS = 2_000_000
"""Rows are taken so many at a time that stages x mixes stay below this."""


def tighten(
    problem: Problem,
    layers: PricedLayers,
    policies: tuple[int, ...],
    budget_bytes: float,
    floor_s: Column,
    after_s: Column,
    best_s: float,
    is_over: Callable[[], bool] = lambda: False,
) -> Column:
    """[n] seconds that no placement of a row beats, at least ``floor_s``, ``after_s`` of them after the passes; inf for
    rows that cannot reach ``best_s``. Once ``is_over`` says so, rows keep their floor."""
    bounds, layouts = np.full(len(floor_s), np.inf), layers.layouts
    policies = corner_policies(layers, problem.num_kinds, policies)
    hopeful = np.ones(len(floor_s), bool)
    for start in range(0, len(floor_s), BLOCK):
        block = slice(start, start + BLOCK)
        hopeful[block] = _can_reach_on_average(
            problem, layers.take(block), policies, budget_bytes, after_s[block], best_s
        )
    keys = np.stack([layouts.pp, layouts.vpp, placement_codes(layouts)], axis=1)
    groups, group = np.unique(keys, axis=0, return_inverse=True)
    for index, (pp, _, _) in enumerate(groups.tolist()):
        members = np.flatnonzero((group.ravel() == index) & hopeful)
        if not len(members):
            continue
        size = max(1, CHUNK_CELLS // (pp * (len(policies) * problem.num_kinds) ** 2))
        for rows in np.array_split(members, -(-len(members) // size)):
            if is_over():
                bounds[rows] = floor_s[rows]
                continue
            bounds[rows] = _tighten_equal(
                problem, layers.take(rows), policies, budget_bytes, floor_s[rows], after_s[rows], best_s
            )
    return bounds


def _can_reach_on_average(
    problem: Problem,
    layers: PricedLayers,
    policies: tuple[int, ...],
    budget_bytes: float,
    after_s: Column,
    best_s: float,
) -> NDArray[np.bool_]:
    """[n] whether ranks that all have the mean of time and memory could take all layers within ``best_s``.

    What a rank can take is concave in both, so that no other distribution takes more. Cheap, and most rows end here.
    """
    layouts, kinds, chosen = layers.layouts, problem.num_kinds, list(policies)
    copies, ranks = count_copies(layouts), layouts.pp.astype(np.float64)
    number = np.bincount(problem.kinds, minlength=kinds).astype(np.float64)
    layer_s = layers.forward[:, :kinds, None] + layers.backward[:, :kinds][:, :, chosen]
    least = layer_s.min(axis=2)
    ends_s = layers.forward[:, kinds:].sum(axis=1) + layers.backward[:, kinds:, 0].sum(axis=1)
    ends_s = ends_s * layouts.vocab_over + 2.0 * count_crossings(layouts) * layers.busy_s
    makespan = best_s / (1.0 + layers.jitter) - after_s * layers.contention
    time_s = makespan / layouts.num_microbatches - ends_s / ranks
    room = budget_bytes - mean_state_bytes(layers, problem.kinds, kinds, policies)
    kept = (
        layers.costs.saved_bytes[layers.index][:, :kinds][:, :, chosen]
        * (least_in_flight(layouts) * least_evenness(layers, len(problem.kinds), kinds) / copies)[:, None, None]
    )
    shape = (len(layouts), 1, -1)
    held = placeable_worth(
        time_s[:, None],
        room[:, None],
        (layer_s / copies[:, None, None]).reshape(shape),
        np.maximum(kept, 1.0).reshape(shape),
        np.repeat(least, len(chosen), axis=1)[:, None, :],
    )
    return np.asarray(held[:, 0] * ROUNDING >= copies * (least @ number) / ranks)


def _tighten_equal(
    problem: Problem, layers: PricedLayers, policies: tuple[int, ...], budget_bytes: float,
    floor_s: Column, after_s: Column, best_s: float,
) -> Column:  # fmt: skip
    """Rows whose stages lie alike: first whether ``best_s`` can be reached at all, then by bisection how soon."""
    bounds = np.full(len(floor_s), np.inf)
    stages = StageLimits(problem, layers, policies, budget_bytes, after_s)
    reachable = stages.can_reach(np.full(len(floor_s), best_s))
    if reachable.sum() < len(floor_s) // 2:
        layers, floor_s, after_s = layers.take(reachable), floor_s[reachable], after_s[reachable]
        if not len(floor_s):
            return bounds
        stages = StageLimits(problem, layers, policies, budget_bytes, after_s)
        bounds[reachable] = _bisect(stages, floor_s, best_s)
        return bounds
    return np.where(reachable, _bisect(stages, floor_s, best_s), np.inf)


def _bisect(stages: StageLimits, floor_s: Column, best_s: float) -> Column:
    """How soon each row can be done, of which it is known that ``best_s`` will do."""
    low, high = floor_s, np.full(len(floor_s), best_s)
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        ok = stages.can_reach(middle)
        low, high = np.where(ok, low, middle), np.where(ok, middle, high)
    return low
