"""From a request to its plan: search, prove, explain what lost - or say what stood in the way."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Protocol

from costmodel.memory import claim_budget_bytes
from costmodel.schema.errors import Infeasible, SolverTimeout
from costmodel.schema.plan import Certificate, Plan, Relaxation
from planner.assemble import build_plan
from planner.constraints.words import words_of
from planner.evaluate import Evaluated, evaluate
from planner.problem import Problem
from planner.request import Request
from planner.search.best_first import search
from planner.search.notes import list_notes
from planner.search.reasons import list_alternatives
from planner.search.run import Progress
from planner.search.schedule_choice import say_schedule
from planner.spread import with_spread

RELAXATIONS = (
    Relaxation(
        name="overlap",
        effect="traffic that the runtime may hide is taken as fully hidden in the bounds of layouts not evaluated",
    ),
    Relaxation(
        name="policies",
        effect="every layer of a layout not evaluated runs under its cheapest policy, whatever memory it needs",
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
        " each rank's fastest mix of policies is dealt to them in model order; a layout that does not fit where all"
        " stages of a rank are kept as long as their mean, or whose leanest mixes do not fit, is left out",
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


def find_plan(request: Request, on_progress: Callable[[Progress], None] | None = None) -> Plan:
    """The best plan of the request's space, with its certificate.

    Raises Infeasible when no layout meets the request, with how far off the nearest is; SolverTimeout when the time
    limit came before any answer.
    """
    problem = Problem.from_request(request)
    if problem.others:
        from planner.search.groups.find import find_mixed

        return find_mixed(request, problem, on_progress)
    outcome = search(request, problem, on_progress)
    best = outcome.best
    if best is None:
        if outcome.stopped:
            raise SolverTimeout(
                f"the time limit of {request.time_limit_s:g} s came before any layout was found that fits",
                outcome.bound_s,
                "raise --time-limit, or narrow the space with --fix",
            )
        if len(outcome.space) and request.within_s < inf:
            raise Infeasible(f"no layout that fits takes a step in less than {request.within_s:.3g} s")
        from planner.search.infeasible import explain_infeasible

        raise explain_infeasible(request, problem, outcome)
    named, order, said = best, None, []
    if request.synthesize:
        budget = claim_budget_bytes(problem.setting, request.fit_probability)
        from planner.search.found_order import find_order

        found = find_order(request, named.problem, outcome, budget)
        if found is not None:
            best, order = found.evaluated, found.evaluated.schedule
            said.append(found.say())
        elif named.placement.layout.pp > 1:
            said.append(
                f"No order of passes was found that beats {named.placement.schedule} within what memory leaves."
            )
    robust = None
    if request.robust:
        from planner.robust import choose_robust

        chosen, robust = choose_robust(request, problem, outcome, best)
        if chosen is not best:
            best, order = chosen, None
    # Priced anew as a single row, so that the plan re-prices to the last bit.
    problem = with_spread(problem.on_axis(), best.placement, request.fit, request.calibration)
    best = evaluate(problem, best.placement, order)
    why = say_schedule(outcome, named)
    return build_plan(
        best,
        certify(outcome, len(outcome.space), best.step_time_s, request, solver=outcome.programs),
        request.assumptions,
        list_alternatives(request, problem, outcome, best),
        (*said, *([] if why is None else [why]), *list_notes(request, problem, best)),
        words_of(request),
        robust,
    )


def find_best(request: Request) -> Evaluated | None:
    """The answer of the search alone, without what a plan says about it; None where nothing fits or time is up."""
    problem = Problem.from_request(request)
    if not problem.others:
        return search(request, problem).best
    from planner.search.groups.best_first import search_mixed

    return search_mixed(request, problem)[0].best


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
    gap = max(0.0, (best_s - outcome.bound_s) / best_s)
    return Certificate(
        status="stopped" if outcome.stopped else "proven" if gap <= request.gap else "bounded",
        gap=gap,
        lower_bound_s=min(outcome.bound_s, best_s),
        considered=considered,
        evaluated=len(outcome.steps_s),
        pruned={rule: count for rule, count in outcome.pruned.items() if count},
        solver=solver or {},
        relaxations=relaxations,
        wall_s=outcome.wall_s,
    )
