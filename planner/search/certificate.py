"""The certificate: what a search looked at, how far its answer can be from the best, or why there is no answer."""

from __future__ import annotations

from math import inf
from typing import Protocol

from costmodel.schema.errors import Infeasible, SolverTimeout
from costmodel.schema.plan import Certificate, Relaxation
from planner.request import Request
from planner.search.bounds import ROUNDING

RELAXATIONS = (
    Relaxation(
        name="overlap",
        effect="traffic that the runtime may hide is taken as fully hidden in the bounds of layouts not evaluated",
    ),
    Relaxation(
        name="policies",
        effect="layers of a layout not evaluated are dealt policies in fractions",
    ),
    Relaxation(
        name="mixes",
        effect="a stage takes the fastest mix of policies that fits it, never a slower one to hide traffic behind it;"
        " of equal layers that mix in more than 20,000 ways, mixes of three policies or two only, and where host or"
        " drives are short those near the linear program's best corner",
    ),
    Relaxation(name="stages", effect="layers of a layout not evaluated are split over stages in fractions"),
    Relaxation(
        name="chunks",
        effect="where a rank holds several stages they are even, or relieve the ranks that hold the model's ends, and"
        " each rank's mix of policies is dealt to them in model order: the fastest that fits were its stages kept as"
        " long as their mean, and where that does not fit as dealt, any that fits both ways; what fits as dealt alone"
        " is left out",
    ),
    Relaxation(
        name="kept",
        effect="under a split backward a stage's mix of policies fits with activations and pending gradients each at"
        " its own peak, which some orders never reach at once; what fits only at their common peak is left out",
    ),
    Relaxation(
        name="paths", effect="the stage program bounds the simulated time by some of the schedule's paths, not all"
    ),
)


FROZEN = Relaxation(
    name="frozen",
    effect="frozen parts in bubbles count as hidden wherever all ranks together have the time; placements are chosen"
    " for their passes alone, and the bubbles that these leave are filled by one rule",
)
"""Of models with frozen parts."""


class Account(Protocol):
    """What a search says of itself: steps of what was simulated, what was ruled out by which rule, a bound of all."""

    steps_s: dict[int, float]
    pruned: dict[str, int]
    bound_s: float
    stopped: bool
    wall_s: float


def certify(
    outcome: Account,
    considered: int,
    best_s: float,
    request: Request,
    relaxations: tuple[Relaxation, ...] = RELAXATIONS,
    solver: dict[str, int] | None = None,
) -> Certificate:
    """What was searched, and how far ``best_s`` can be from the best. ``solver``: programs by how they were left."""
    # Bounds within rounding of the answer leave nothing open, nor those within rounding of what was asked.
    gap = 0.0 if outcome.bound_s * ROUNDING >= best_s else (best_s - outcome.bound_s) / best_s
    gap = request.gap if request.gap < gap <= request.gap + ROUNDING - 1.0 else gap
    return Certificate(
        status="stopped" if outcome.stopped else "proven" if gap <= request.gap else "bounded",
        gap=gap,
        lower_bound_s=min(outcome.bound_s, best_s),
        considered=considered,
        evaluated=len(outcome.steps_s),
        pruned={rule: count for rule, count in outcome.pruned.items() if count},
        solver=solver or {},
        relaxations=(*relaxations, FROZEN) if request.model.frozen_parts else relaxations,
        wall_s=outcome.wall_s,
    )


def refuse_unanswered(outcome: Account, considered: int, request: Request) -> None:
    """Why a search without an answer has none, where that is not memory: raises SolverTimeout when the time limit came
    first, Infeasible when no layout is as fast as was asked.
    """
    if outcome.stopped:
        raise SolverTimeout(
            f"the time limit of {request.time_limit_s:g} s came before any layout was found that fits",
            outcome.bound_s,
            "raise --time-limit, or narrow the space with --fix",
        )
    if considered and request.within_s < inf:
        raise Infeasible(f"no layout that fits takes a step in less than {outcome.bound_s:.3g} s")
