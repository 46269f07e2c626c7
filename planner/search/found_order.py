"""An order of passes found for the answer's own times and memory, where it beats every named schedule."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from costmodel.memory import PARTS
from costmodel.schedules import SCHEDULES
from costmodel.schema.errors import Infeasible
from planner.evaluate import Evaluated, evaluate, kept_by_stage
from planner.problem import Problem
from planner.request import Request
from planner.search.run import Outcome
from planner.synthesis import OrderProblem, synthesize

LAYOUTS = 2
"""Of the best layouts, how many an order is looked for."""

PATIENCE_S = 1.0
"""Seconds for each order."""

WAITING = (0.0, 0.25, 1.0)
"""Share of its micro-batches in flight that a rank is taken to keep from I to W as well, when an order with a split
backward is looked for: whether it fits is seen when it is found."""

WORTH = 1e-4
"""Share of the step that a found order must save to take a named one's place."""


@dataclass(frozen=True)
class FoundOrder:
    """``evaluated``: the placement under the found order. ``family``: where the order comes from."""

    evaluated: Evaluated
    named: Evaluated
    family: str

    @property
    def saved(self) -> float:
        """Share of the best named answer's step."""
        return 1.0 - self.evaluated.step_time_s / self.named.step_time_s

    def say(self) -> str:
        named = self.named
        return (
            f"The order of passes was found for these times ({self.family}): {self.saved:.1%} faster than"
            f" {named.placement.schedule}, bubble {self.evaluated.simulation.bubble_fraction:.1%} against"
            f" {named.simulation.bubble_fraction:.1%}. The proof is of named schedules."
        )


def find_order(request: Request, problem: Problem, outcome: Outcome, budget_bytes: float) -> FoundOrder | None:
    """The best of the orders found for the best layouts; None where no named schedule is beaten."""
    best = outcome.best
    assert best is not None
    splits = any(SCHEDULES[name].splits_backward for name in request.runtime.schedules if name in SCHEDULES)
    piped: dict[tuple[int, int, int], Evaluated] = {}
    for one in sorted(outcome.evaluated, key=lambda one: one.step_time_s):
        layout = one.placement.layout
        if layout.pp > 1 and one.schedule.copies == 1 and not (layout.vocab_parallel or layout.frozen_fill):
            piped.setdefault((layout.tp, layout.pp, layout.vpp), one)
    found = [
        _order_of(problem, one, waiting, budget_bytes)
        for one in list(piped.values())[:LAYOUTS]
        for waiting in (None, *(WAITING if splits else ()))
    ]
    fastest = min((one for one in found if one is not None), key=lambda pair: pair[0].step_time_s, default=None)
    if fastest is None or fastest[0].step_time_s > best.step_time_s * (1.0 - WORTH):
        return None
    return FoundOrder(fastest[0], best, fastest[1])


def _order_of(
    problem: Problem, evaluated: Evaluated, waiting: float | None, budget_bytes: float
) -> tuple[Evaluated, str] | None:
    """The placement under an order found within what each rank has left, and where that order comes from.

    ``waiting``: one of WAITING, None for an order of whole backwards.
    """
    memory, placement = evaluated.priced.memory, evaluated.placement
    kept = memory.parts[0][:, [PARTS.index("activations"), PARTS.index("pending")]].sum(axis=1)
    left = budget_bytes - (memory.claim[0] - kept)
    by_stage = kept_by_stage(evaluated.priced.layers, placement, problem)
    weights = np.maximum(by_stage.activations + (waiting or 0.0) * by_stage.pending, 1.0)
    try:
        order = OrderProblem(
            stage_to_rank=evaluated.schedule.stage_to_rank,
            num_microbatches=placement.layout.num_microbatches,
            times=evaluated.times,
            memory_cap=tuple(left.tolist()),
            stage_weights=tuple(weights.tolist()),
            splits_backward=waiting is not None,
        )
    except Infeasible:
        return None
    found = synthesize(order, seconds=PATIENCE_S)
    again = evaluate(problem, placement, found.schedule, evaluated.priced.layers)
    if float(again.priced.peak_claim_bytes[0]) > budget_bytes:
        return None
    return again, found.family
