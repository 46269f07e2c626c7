"""Best-first search: bound every layout, place the most promising, stop when no bound can beat the incumbent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from costmodel.layouts import Column, Layouts, uniform_assignment
from costmodel.memory import claim_budget_bytes
from costmodel.pipeline import ONE_F_ONE_B
from costmodel.price import PricedLayers, price, price_layers
from planner.evaluate import Evaluated
from planner.problem import Problem
from planner.request import Request
from planner.search.bounds import (
    estimate_memory_floor_bytes,
    estimate_time_floor_s,
    extras_floor_s,
    mean_state_bytes,
)
from planner.search.pinned import floor_of_lengths_s, pin_costs, with_pins
from planner.search.place import place
from planner.search.placed import Placed
from planner.search.policies import policy_sets
from planner.search.space import enumerate_layouts
from planner.search.tight import tighten

SEEDS = 2
"""Rows placed before any bound is sharpened: the first incumbents."""

DEGREES = 8
"""Of the layouts that uniform policies make look best, how many are looked at under every schedule."""

FAR = 4.0
NO_ROOM = 1e30
"""Times the slowest uniform price: where bisection starts when no seed could be placed."""

MEMBERS = 64
"""Layouts of one family that are placed together, at most."""

OF_SCHEDULE = ("schedule", "vpp", "vocab_parallel")
"""Columns in which the schedules of one layout differ."""

FIRST_LOOK = 400
"""Rows priced under uniform policies to find the first incumbents."""


@dataclass(frozen=True)
class Progress:
    """What a long search says of itself. ``about``: which of several searches it is."""

    considered: int
    evaluated: int
    best_s: float | None
    bound_s: float | None
    about: str = ""


@dataclass
class Outcome:
    """What the search found, and the account of everything it did not look at.

    ``evaluated``: the answers as they got better, and whatever was simulated alone. ``steps_s``: of all rows that were.
    """

    layouts: Layouts
    steps_s: dict[int, float] = field(default_factory=dict)
    evaluated: list[Evaluated] = field(default_factory=list)
    pruned: dict[str, int] = field(default_factory=dict)
    bound_s: float = 0.0
    stopped: bool = False
    wall_s: float = 0.0
    uniform: UniformPrices | None = None
    near: list[int] = field(default_factory=list)
    run: Run | None = None
    least_bytes: float = np.inf
    least_row: int = -1

    @property
    def best(self) -> Evaluated | None:
        return min(self.evaluated, key=lambda one: one.step_time_s, default=None)


@dataclass(frozen=True)
class UniformPrices:
    """Closed-form prices of some rows under uniform policies: ``rows`` into the space, step time, policy."""

    rows: NDArray[np.intp]
    step_time_s: Column
    fits: NDArray[np.bool_]
    policy: NDArray[np.int64]


def search(request: Request, problem: Problem, on_progress: Callable[[Progress], None] | None = None) -> Outcome:
    """Enumerate, bound, and evaluate best-first until the gap is proven or the time is up."""
    began = perf_counter()
    layouts = enumerate_layouts(request)
    outcome = Outcome(layouts)
    if not len(layouts):
        return outcome
    sets = policy_sets(request)
    policies = tuple(sorted({policy for one in sets for policy in one}))
    budget = claim_budget_bytes(problem.setting, request.fit_probability)
    problem = with_pins(request, problem, policies)
    layers = pin_costs(price_layers(problem.setting, problem.network, layouts), problem.pinned)
    floor_bytes = (
        mean_state_bytes(layers, problem.kinds, problem.num_kinds, policies)
        if problem.pinned.lengths
        else estimate_memory_floor_bytes(layers, problem.kinds, problem.num_kinds, policies)
    )
    outcome.least_row = int(floor_bytes.argmin())
    outcome.least_bytes = float(floor_bytes[outcome.least_row])
    alive = np.flatnonzero(floor_bytes <= budget)
    outcome.pruned["memory"] = len(layouts) - len(alive)
    if len(alive):
        some = layers.take(alive)
        if problem.pinned.lengths:
            # The other floors are of stages near the even split.
            after_s, bounds = np.zeros(len(alive)), floor_of_lengths_s(problem, some, policies)
        else:
            after_s = extras_floor_s(some, problem.kinds, problem.num_kinds, policies)
            bounds = estimate_time_floor_s(some, problem.kinds, problem.num_kinds, policies, after_s)
        order = np.argsort(bounds, kind="stable")
        alive, bounds, after_s = alive[order], bounds[order], after_s[order]
        outcome.uniform = _first_look(problem, layers, alive, policies, budget)
        _best_first(request, problem, layers, alive, bounds, after_s, sets, budget, outcome, began, on_progress)
    outcome.wall_s = perf_counter() - began
    return outcome


def _first_look(
    problem: Problem, layers: PricedLayers, alive: NDArray[np.intp], policies: tuple[int, ...], budget: float
) -> UniformPrices:
    """Uniform prices of the most promising rows, going on until some row fits: of one schedule for each layout, as the
    degrees decide what fits and the schedule hardly does."""
    plain = alive[layers.layouts.schedule[alive] == ONE_F_ONE_B]
    rows = plain if len(plain) else alive
    for start in range(0, len(rows), FIRST_LOOK):
        uniform = price_uniform(problem, layers, rows[start : start + FIRST_LOOK], policies, budget)
        if uniform.fits.any():
            return uniform
    return price_uniform(problem, layers, alive[:FIRST_LOOK], policies, budget) if len(plain) else uniform


def price_uniform(
    problem: Problem, layers: PricedLayers, rows: NDArray[np.intp], policies: tuple[int, ...], budget: float
) -> UniformPrices:
    """Closed-form price of rows, each under the uniform policy that is fastest among those that fit."""
    shape = (len(policies), len(rows))
    some = layers.take(np.tile(rows, len(policies)))
    policy = np.repeat(np.array(policies), len(rows))
    priced = price(some, uniform_assignment(problem.kinds, problem.num_kinds, some.layouts, policy))
    time_s = priced.step_time_s.reshape(shape)
    claimed = np.where(priced.fits_host, priced.peak_claim_bytes, np.inf).reshape(shape)
    fits = claimed <= budget
    ranked = np.where(fits, time_s, np.where(fits.any(axis=0), np.inf, np.minimum(claimed, NO_ROOM)))
    pick = ranked.argmin(axis=0)
    columns = np.arange(len(rows))
    return UniformPrices(rows, time_s[pick, columns], fits[pick, columns], np.array(policies)[pick])


def _best_first(
    request: Request,
    problem: Problem,
    layers: PricedLayers,
    alive: NDArray[np.intp],
    bounds: Column,
    after_s: Column,
    sets: tuple[tuple[int, ...], ...],
    budget: float,
    outcome: Outcome,
    began: float,
    on_progress: Callable[[Progress], None] | None,
) -> None:
    """Evaluate seeds first, sharpen the bounds against what they reached, then go by bounds."""
    assert outcome.uniform is not None
    after_of_row_s = np.zeros(len(layers.layouts))
    after_of_row_s[alive] = after_s
    run = Run(request, problem, layers, sets, after_of_row_s, budget, outcome, began, on_progress)
    for row in seed_rows(outcome.uniform):
        run.evaluate(np.array([row]), np.zeros(1))
    for row in _other_schedules(run, alive):
        run.evaluate(np.array([row]), np.zeros(1))
    policies = run.policies
    # With no incumbent yet, far above what any row could take: memory alone then decides.
    reach_s = run.best_s if run.best_s < np.inf else FAR * float(np.max(outcome.uniform.step_time_s))
    near = np.flatnonzero(bounds < reach_s)
    bounds = bounds.copy()
    if not problem.pinned.lengths:
        some = layers.take(alive[near])
        bounds[near] = tighten(problem, some, policies, budget, bounds[near], after_s[near], reach_s)
    order = np.argsort(bounds, kind="stable")
    alive, bounds = alive[order], bounds[order]
    outcome.run = run
    outcome.near = alive[np.isfinite(bounds)].tolist()
    left = ~np.isin(alive, list(run.done))
    never = int((left & ~np.isfinite(bounds)).sum())
    left &= np.isfinite(bounds)
    alive, bounds = alive[left], bounds[left]
    # The incumbent only gets better: rows beyond it now are never looked at.
    family = family_of_rows(layers.take(alive[bounds < run.best_s]))
    waiting = np.ones(len(alive), bool)
    while waiting.any():
        first = int(waiting.argmax())
        if bounds[first] >= run.best_s * (1.0 - request.gap) or run.out_of_time():
            break
        alike = waiting[: len(family)] & (family == family[first])
        members = np.flatnonzero(alike & (bounds[: len(family)] < run.best_s))[:MEMBERS]
        run.evaluate(alive[members], bounds[members])
        waiting[members] = False
    rest = bounds[waiting]
    beaten = int((rest >= run.best_s * (1.0 - request.gap)).sum())
    outcome.pruned["bound"] = beaten + never
    outcome.pruned["not reached"] = len(rest) - beaten
    outcome.stopped = len(rest) > beaten
    outcome.bound_s = min([run.best_s, *rest[:1].tolist(), *run.proven])


def _other_schedules(run: Run, alive: NDArray[np.intp]) -> list[int]:
    """The most promising rows of other schedules, among those whose degrees do well under the first looked at: at most
    one of each schedule."""
    uniform, layouts = run.outcome.uniform, run.layers.layouts
    assert uniform is not None
    good = uniform.rows[uniform.fits][np.argsort(uniform.step_time_s[uniform.fits], kind="stable")][:DEGREES]
    columns = [field.name for field in fields(Layouts) if field.name not in OF_SCHEDULE]
    keys = np.stack([getattr(layouts, name) for name in columns], axis=1)
    alike = alive[(keys[alive][:, None, :] == keys[good][None, :, :]).all(axis=2).any(axis=1)]
    rows = alike[~np.isin(alike, [*run.done, *uniform.rows])]
    if not len(rows):
        return []
    promising = price_uniform(run.problem, run.layers, rows, run.policies, run.budget)
    best: dict[str, int] = {}
    for row in rows[promising.fits][np.argsort(promising.step_time_s[promising.fits], kind="stable")].tolist():
        best.setdefault(layouts.schedule_name(row), row)
    return list(best.values())[:SEEDS]


def seed_rows(uniform: UniformPrices) -> list[int]:
    """The rows that uniform policies make look best."""
    good = np.flatnonzero(uniform.fits)
    return [int(row) for row in uniform.rows[good[np.argsort(uniform.step_time_s[good], kind="stable")]][:SEEDS]]


class Run:
    """One best-first run: what has been placed, the incumbent, and the bounds of what was placed."""

    def __init__(
        self, request: Request, problem: Problem, layers: PricedLayers, sets: tuple[tuple[int, ...], ...],
        after_s: Column, budget: float, outcome: Outcome, began: float,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:  # fmt: skip
        self.after_s = after_s
        self.request, self.problem, self.layers, self.sets, self.budget = request, problem, layers, sets, budget
        self.outcome, self.began, self.on_progress = outcome, began, on_progress
        self.policies = tuple(sorted({policy for one in sets for policy in one}))
        self.best_s = float("inf")
        self.proven: list[float] = []
        self.done: set[int] = set()

    def out_of_time(self) -> bool:
        return perf_counter() - self.began > self.request.time_limit_s

    def place(self, row: int, limit_s: float) -> Placed:
        """The best placement of a row, or why there is none faster than the limit."""
        return self._place(np.array([row]), limit_s)[0]

    def _place(self, rows: NDArray[np.intp], limit_s: float) -> list[Placed]:
        return place(self.problem, self.layers.take(rows), self.after_s[rows], self.sets, self.budget, limit_s)

    def evaluate(self, rows: NDArray[np.intp], bounds: Column) -> None:
        """Place the rows of one family."""
        placed = self._place(rows, self.best_s)
        self.done.update(rows.tolist())
        self.proven += [max(one.bound_s, bound) for one, bound in zip(placed, bounds.tolist(), strict=True)]
        for row, one in zip(rows.tolist(), placed, strict=True):
            if one.step_s < np.inf:
                self.outcome.steps_s[row] = one.step_s
            else:
                rule = "stage program" if one.slower else "memory, layer by layer"
                self.outcome.pruned[rule] = self.outcome.pruned.get(rule, 0) + 1
            if one.evaluated is not None:
                self.outcome.evaluated.append(one.evaluated)
                self.best_s = min(self.best_s, one.evaluated.step_time_s)
        if self.on_progress is not None:
            best = None if self.best_s == float("inf") else self.best_s
            bound = float(bounds[0]) or None
            self.on_progress(Progress(len(self.outcome.layouts), len(self.outcome.steps_s), best, bound))


def family_of_rows(layers: PricedLayers) -> NDArray[np.intp]:
    """[n] equal where rows share layer costs, sends and order of passes: they differ in how state is sharded alone."""
    layouts = layers.layouts
    same = (
        layouts.schedule, layouts.pp, layouts.vpp, layouts.num_microbatches, layouts.world_size, layers.index,
        layers.edge_s, layers.busy_s,
    )  # fmt: skip
    if not len(layouts):
        return np.zeros(0, np.intp)
    return np.asarray(np.unique(np.stack(same, axis=1).astype(np.float64), axis=0, return_inverse=True)[1].ravel())
