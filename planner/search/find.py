"""From a request to its plan: search, prove, explain what lost - or say what stood in the way."""

from __future__ import annotations

from collections.abc import Callable

from costmodel.memory import claim_budget_bytes
from costmodel.schema.plan import Plan
from planner.assemble import build_plan
from planner.constraints.words import words_of
from planner.evaluate import Evaluated, evaluate
from planner.problem import Problem
from planner.request import Request
from planner.search.best_first import search
from planner.search.certificate import certify, refuse_unanswered
from planner.search.notes import list_notes
from planner.search.reasons import list_alternatives
from planner.search.run import Outcome, Progress
from planner.search.schedule_choice import say_schedule
from planner.spread import with_spread


def find_plan(
    request: Request,
    on_progress: Callable[[Progress], None] | None = None,
    on_outcome: Callable[[Outcome], None] | None = None,
) -> Plan:
    """The best plan of the request's space, with its certificate. ``on_outcome`` is handed what else was found, where
    all nodes are alike.

    Raises Infeasible when no layout meets the request, with how far off the nearest is; SolverTimeout when the time
    limit came before any answer.
    """
    problem = Problem.from_request(request)
    if problem.others:
        from planner.search.groups.find import find_mixed

        return find_mixed(request, problem, on_progress)
    outcome = search(request, problem, on_progress)
    if on_outcome is not None:
        on_outcome(outcome)
    best = outcome.best
    if best is None:
        refuse_unanswered(outcome, len(outcome.space), request)
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
