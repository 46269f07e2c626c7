"""A tighter bound: only as much memory as there is, and whole layers where most are alike.

For a step time T every stage has some seconds w_s(T) a micro-batch, by the paths of its schedule, and some bytes
(``stage_limits``). If all stages together cannot take the model, T cannot be reached. Bisection over T gives the bound.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from costmodel.columns import distinct_rows
from costmodel.layer_table import PricedLayers
from costmodel.layouts import Column
from costmodel.pipeline import placement_codes
from planner.problem import Problem
from planner.search.corners import corner_policies
from planner.search.stage_limits import StageLimits

BISECTIONS = 14
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
    code = placement_codes(layouts) * (int(layouts.vpp.max(initial=1)) + 1) + layouts.vpp
    first, group = distinct_rows(code * (int(layouts.pp.max(initial=1)) + 1) + layouts.pp)
    for index, pp in enumerate(layouts.pp[first].tolist()):
        members = np.flatnonzero(group == index)
        size = max(1, CHUNK_CELLS // (pp * (len(policies) * problem.num_kinds) ** 2))
        for rows in np.array_split(members, -(-len(members) // size)):
            if is_over():
                bounds[rows] = floor_s[rows]
                continue
            bounds[rows] = _tighten_equal(
                problem, layers.take(rows), policies, budget_bytes, floor_s[rows], after_s[rows], best_s
            )
    return bounds


def _tighten_equal(
    problem: Problem, layers: PricedLayers, policies: tuple[int, ...], budget_bytes: float,
    floor_s: Column, after_s: Column, best_s: float,
) -> Column:  # fmt: skip
    """Rows whose stages lie alike: first whether ``best_s`` can be reached at all, then by bisection how soon."""
    stages = StageLimits(problem, layers, policies, budget_bytes, after_s)
    reachable = stages.can_reach(np.full(len(floor_s), best_s))
    if not reachable.any():
        return np.full(len(floor_s), np.inf)
    return np.where(reachable, _bisect(stages, floor_s, best_s), np.inf)


def _bisect(stages: StageLimits, floor_s: Column, best_s: float) -> Column:
    """How soon each row can be done, of which it is known that ``best_s`` will do."""
    low, high = floor_s, np.full(len(floor_s), best_s)
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        ok = stages.can_reach(middle)
        low, high = np.where(ok, low, middle), np.where(ok, middle, high)
    return low
