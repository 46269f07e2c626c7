"""Best-first over unlike groups: bound every layout, place the most promising, stop when no bound can win."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import inf
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from costmodel.layouts import Column, Layouts
from costmodel.memory import claim_budget_bytes
from costmodel.pipeline import ONE_F_ONE_B
from planner.evaluate import Evaluated
from planner.problem import Problem
from planner.request import Request
from planner.search.groups.floors import estimate_after_s, estimate_floor_s
from planner.search.groups.place import place_mixed
from planner.search.groups.rows import MixedRows
from planner.search.groups.space import enumerate_mixed
from planner.search.groups.tight import held_shares, tighten
from planner.search.pinned import with_pins
from planner.search.placed import Placed
from planner.search.policies import policy_sets
from planner.search.run import Progress

FIRST_LOOK = 200
"""Rows whose bounds are sharpened to find the first incumbent."""

FAR = 64.0
"""Times the least bound: where bisection starts without an incumbent."""


@dataclass
class MixedOutcome:
    """What the search found, and the account of everything it did not look at; layouts go by their row.

    ``evaluated``, ``steps_s``: all that were simulated. ``near``: whose floor is below the answer, by tight bounds.
    """

    layouts: Layouts
    steps_s: dict[int, float] = field(default_factory=dict)
    evaluated: list[Evaluated] = field(default_factory=list)
    pruned: dict[str, int] = field(default_factory=dict)
    bound_s: float = 0.0
    stopped: bool = False
    wall_s: float = 0.0
    near: list[int] = field(default_factory=list)

    @property
    def best(self) -> Evaluated | None:
        return min(self.evaluated, key=lambda one: one.step_time_s, default=None)


def search_mixed(
    request: Request, problem: Problem, on_progress: Callable[[Progress], None] | None = None
) -> tuple[MixedOutcome, MixedRun | None]:
    """Enumerate, bound, and place best-first until the gap is proven or the time is up."""
    began = perf_counter()
    layouts = enumerate_mixed(request)
    outcome = MixedOutcome(layouts)
    if not len(layouts):
        return outcome, None
    run = MixedRun(request, problem, outcome, began, on_progress)
    run.search()
    outcome.wall_s = perf_counter() - began
    return outcome, run


class MixedRun:
    """One best-first run: what has been placed, the incumbent, and the bounds of what was placed."""

    def __init__(
        self, request: Request, problem: Problem, outcome: MixedOutcome, began: float,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:  # fmt: skip
        self.request, self.outcome = request, outcome
        self.began, self.on_progress = began, on_progress
        self.sets = policy_sets(request)
        self.policies = tuple(sorted({policy for one in self.sets for policy in one}))
        self.budgets = tuple(claim_budget_bytes(setting, request.fit_probability) for setting in problem.settings)
        self.problem = with_pins(request, problem, self.policies)
        self.rows = MixedRows.price(self.problem, outcome.layouts)
        self.floors = self.bounds = np.zeros(len(self.rows))
        self.best_s, self.proven = request.within_s, [inf]
        self.done: set[int] = set()
        self.held = 0.0

    def search(self) -> None:
        """Place the most promising of the first rows, sharpen the others' bounds against it, then go by bounds."""
        outcome, rows, policies = self.outcome, self.rows, self.policies
        after_s = estimate_after_s(rows, policies)
        self.floors = estimate_floor_s(rows, policies, after_s)
        self.bounds = self.floors.copy()
        shares = held_shares(rows, policies, self.budgets)
        self.held = float(shares.max())
        alive = np.flatnonzero(shares >= 1.0)
        outcome.pruned["memory"] = len(shares) - len(alive)
        alive = alive[np.argsort(self.bounds[alive], kind="stable")]
        # Degrees decide what fits, and schedules hardly do.
        plain = alive[rows.layouts.schedule[alive] == ONE_F_ONE_B]
        alike = plain if len(plain) else alive
        for start in range(0, len(alike), FIRST_LOOK):
            if self.outcome.evaluated:
                break
            some = alike[start : start + FIRST_LOOK]
            self._tighten(some, after_s, min(self.best_s, FAR * float(self.bounds[some].max())))
            self._place_in_turn(some, most=1)
        near = alive[self.bounds[alive] < self.best_s]
        self._tighten(near, after_s, self.best_s)
        outcome.near = near[np.argsort(self.bounds[near], kind="stable")].tolist()
        self._place_in_turn(near, most=len(near))
        left = self.bounds[alive[~np.isin(alive, list(self.done))]]
        beaten = int((left >= self.to_beat_s).sum())
        outcome.pruned["bound"], outcome.pruned["not reached"] = beaten, len(left) - beaten
        outcome.stopped = len(left) > beaten
        outcome.bound_s = min([self.best_s, *left.tolist(), *self.proven])

    def _tighten(self, some: NDArray[np.intp], after_s: Column, best_s: float) -> None:
        floor_s = self.bounds[some]
        self.bounds[some] = tighten(self.rows.take(some), self.policies, self.budgets, floor_s, after_s[some], best_s)

    def _place_in_turn(self, some: NDArray[np.intp], most: int) -> None:
        """Rows in the order of their bounds, until so many were simulated or none can win."""
        simulated = 0
        for row in some[np.argsort(self.bounds[some], kind="stable")].tolist():
            if self.bounds[row] >= self.to_beat_s or simulated >= most or self.is_over():
                return
            if row in self.done:
                continue
            simulated += self.evaluate(row)

    def next_rows(self) -> list[int]:
        """Rows that were not simulated, by what is known of their times."""
        return [row for row in self.outcome.near if row not in self.outcome.steps_s and self.bounds[row] < inf]

    def is_over(self) -> bool:
        """Whether the time is up, or the incumbent as fast as was asked."""
        enough = bool(self.outcome.evaluated) and self.best_s <= self.request.enough_s
        return enough or perf_counter() - self.began > self.request.time_limit_s

    @property
    def to_beat_s(self) -> float:
        """Layouts whose bound is no lower are left alone: none is faster than the incumbent by more than the gap."""
        return self.best_s * (1.0 - self.request.gap) if self.outcome.evaluated else self.best_s

    def place(self, row: int, limit_s: float) -> Placed:
        """The best placement of a row over the sets of policies that may be mixed, or why there is none faster."""
        one, bound_s = self.rows.take(np.array([row])), float(self.bounds[row])
        if bound_s == inf:
            # Out of reach of an incumbent, not of everything.
            bound_s = float(self.floors[row])
        tried = [place_mixed(one, policies, self.budgets, bound_s, limit_s, self.request.gap) for policies in self.sets]
        fastest = min(tried, key=lambda placed: placed.step_s)
        return replace(fastest, bound_s=min(placed.bound_s for placed in tried))

    def evaluate(self, row: int) -> bool:
        """Place a row; whether it was simulated."""
        placed = self.place(row, self.best_s)
        outcome = self.outcome
        self.done.add(row)
        self.proven.append(placed.bound_s)
        if placed.evaluated is None:
            rule = "stage program" if placed.slower else "memory, layer by layer"
            outcome.pruned[rule] = outcome.pruned.get(rule, 0) + 1
        else:
            outcome.steps_s[row] = placed.step_s
            outcome.evaluated.append(placed.evaluated)
            self.best_s = min(self.best_s, placed.step_s)
        if self.on_progress is not None:
            best = self.best_s if outcome.evaluated else None
            self.on_progress(Progress(len(outcome.layouts), len(outcome.steps_s), best, float(self.bounds[row])))
        return placed.evaluated is not None
