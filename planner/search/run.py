"""One best-first run: what has been placed, the incumbent, and the bounds of what was placed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from costmodel.layer_table import PricedLayers
from costmodel.layouts import Column
from costmodel.memory import claim_budget_bytes
from planner.evaluate import Evaluated
from planner.problem import Problem
from planner.request import Request
from planner.search.first_look import UniformPrices
from planner.search.offload import ShareSizes, shares_offload
from planner.search.pinned import with_pins
from planner.search.place import place
from planner.search.placed import Placed
from planner.search.policies import policy_sets
from planner.search.scan import Found, PricedSpace, Scan
from planner.search.space import Rows, Space


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
    """What the search found, and the account of everything it did not look at; layouts go by their number in ``space``.

    ``evaluated``: the answers as they got better, and whatever was simulated alone. ``steps_s``: of all that were
    simulated. ``programs``: integer programs, by how the solver left them. ``looked_at``: closed-form prices of the
    most promising. ``near``: those whose tight bound came near the answer, nearest first.
    """

    space: Space
    steps_s: dict[int, float] = field(default_factory=dict)
    evaluated: list[Evaluated] = field(default_factory=list)
    pruned: dict[str, int] = field(default_factory=dict)
    programs: dict[str, int] = field(default_factory=dict)
    bound_s: float = 0.0
    stopped: bool = False
    wall_s: float = 0.0
    looked_at: list[UniformPrices] = field(default_factory=list)
    near: list[int] = field(default_factory=list)
    run: Run | None = None
    least_bytes: float = np.inf
    least_row: int = -1

    @property
    def tabled_steps_s(self) -> dict[int, float]:
        """``steps_s`` by numbers that every enumeration of the space gives: a share of the optimizer that was sized
        counts for the layout for which it was."""
        found: dict[int, float] = {}
        numbers = self.space.base_of(np.array(list(self.steps_s), np.intp))
        for number, step_s in zip(numbers.tolist(), self.steps_s.values(), strict=True):
            found[number] = min(step_s, found.get(number, step_s))
        return found

    @property
    def best(self) -> Evaluated | None:
        return min(self.evaluated, key=lambda one: one.step_time_s, default=None)


class Run:
    """``problem``: with the user's pins. ``best_s``: the incumbent's step, at first what the request allows.

    ``proven``: bounds of what was placed. ``done``: its numbers. ``open``: of those, whose bound is below the time that
    was simulated, or of which nothing was found that fits though it may, with the bound. ``simulated``: by number,
    the placements among the outcome's ``evaluated``.
    """

    def __init__(
        self, request: Request, problem: Problem, outcome: Outcome, began: float,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:  # fmt: skip
        self.request, self.outcome, self.began, self.on_progress = request, outcome, began, on_progress
        self.sets = policy_sets(request)
        self.policies = tuple(sorted({policy for one in self.sets for policy in one}))
        self.problem = with_pins(request, problem, self.policies)
        self.priced = PricedSpace(self.problem, outcome.space)
        self.budget = claim_budget_bytes(problem.setting, request.fit_probability)
        self.best_s = request.within_s
        self.proven: list[float] = []
        self.done: set[int] = set()
        self.open: dict[int, float] = {}
        self.simulated: dict[int, Evaluated] = {}

    def start_scan(self) -> Scan:
        """The scan of the whole space by its floors."""
        sizes = None
        if shares_offload(self.request):
            sizes = ShareSizes(self.request, self.problem, self.policies, self.budget)
        return Scan(self.problem, self.priced, self.policies, self.budget, sizes)

    @property
    def to_beat_s(self) -> float:
        """Layouts whose bound is no lower are left alone: none is faster than the incumbent by more than the gap."""
        return self.best_s * (1.0 - self.request.gap) if self.outcome.evaluated else self.best_s

    @property
    def has_enough(self) -> bool:
        """Whether the incumbent is as fast as was asked."""
        return bool(self.outcome.evaluated) and self.best_s <= self.request.enough_s

    def is_over(self) -> bool:
        return self.has_enough or perf_counter() - self.began > self.request.time_limit_s

    def place(self, number: int, limit_s: float) -> Placed:
        """The best placement of a layout, or why there is none faster than the limit."""
        return self._place(np.array([number]), np.zeros(1), limit_s)[0]

    def placement(self, number: int) -> Evaluated | None:
        """The best placement of a layout however slow it is, the one that was simulated if any was; None where none
        fits."""
        if number in self.simulated:
            return self.simulated[number]
        return self.place(number, np.inf).evaluated

    def _place(self, numbers: Rows, after_s: Column, limit_s: float) -> list[Placed]:
        return place(self.problem, self.priced.take(numbers), after_s, self.sets, self.budget, limit_s)

    def evaluate(self, members: Found) -> None:
        """Place the layouts of one family, whatever was placed before left out."""
        numbers, bounds = members.numbers, members.bounds
        placed = self._place(numbers, members.after_s, self.best_s)
        self.done.update(numbers.tolist())
        for number, one, bound_s in zip(numbers.tolist(), placed, bounds.tolist(), strict=True):
            bound_s = max(one.bound_s, bound_s)
            if bound_s < min(one.step_s, self.best_s):
                self.open[number] = bound_s
            else:
                self.proven.append(bound_s)
                if one.step_s == np.inf:
                    self.prune("stage program" if one.slower else "memory, layer by layer")
            if one.step_s < np.inf:
                self.outcome.steps_s[number] = one.step_s
            for status in one.programs:
                self.outcome.programs[status] = self.outcome.programs.get(status, 0) + 1
            if one.evaluated is not None:
                self.simulated[number] = one.evaluated
                self.outcome.evaluated.append(one.evaluated)
                self.best_s = min(self.best_s, one.evaluated.step_time_s)
        self.say(float(bounds[0]))

    def refine(self, most: int) -> None:
        """Settle placed layouts whose bound leaves it open whether they beat the incumbent, the least bound first."""
        for number, bound_s in sorted(self.open.items(), key=lambda one: one[1])[:most]:
            if bound_s >= self.to_beat_s or self.is_over():
                return
            from planner.search.refine import refine

            layers = self.priced.take(np.array([number]))
            one = refine(self.problem, layers, self.sets, self.budget, self.best_s, self.request.gap)
            self.open[number] = max(bound_s, one.bound_s)
            if one.evaluated is not None:
                self.simulated[number] = one.evaluated
                self.outcome.evaluated.append(one.evaluated)
                self.outcome.steps_s[number] = min(self.outcome.steps_s.get(number, np.inf), one.step_s)
                self.best_s = min(self.best_s, one.step_s)

    def prune(self, rule: str) -> None:
        self.outcome.pruned[rule] = self.outcome.pruned.get(rule, 0) + 1

    def close(self) -> None:
        """Account for what stays open and was never simulated."""
        for number, bound_s in self.open.items():
            if number not in self.outcome.steps_s:
                fits = "bound" if bound_s >= self.to_beat_s else "not reached"
                self.prune("memory, layer by layer" if bound_s == np.inf else fits)

    def say(self, bound_s: float) -> None:
        if self.on_progress is not None:
            best = self.best_s if self.outcome.evaluated else None
            self.on_progress(Progress(len(self.outcome.space), len(self.outcome.steps_s), best, bound_s or None))


def family_of_rows(layers: PricedLayers) -> NDArray[np.intp]:
    """[n] equal where rows share layer costs, sends and order of passes: they differ in how state is sharded alone."""
    layouts = layers.layouts
    same = (
        layouts.schedule, layouts.pp, layouts.vpp, layouts.num_microbatches, layouts.world_size, layers.index,
        layers.edge_s, layers.busy_s, layouts.frozen_fill,
    )  # fmt: skip
    if not len(layouts):
        return np.zeros(0, np.intp)
    return np.asarray(np.unique(np.stack(same, axis=1).astype(np.float64), axis=0, return_inverse=True)[1].ravel())
