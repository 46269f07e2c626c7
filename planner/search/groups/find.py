"""From a request over unlike groups of nodes to its plan: search, prove, say what each group would do alone."""

from __future__ import annotations

from collections.abc import Callable

from costmodel.schema.plan import Plan
from planner.assemble import build_plan
from planner.constraints.words import words_of
from planner.evaluate import Evaluated, evaluate
from planner.problem import Problem
from planner.request import Request
from planner.search.certificate import RELAXATIONS, certify, refuse_unanswered
from planner.search.groups.alone import say_alone
from planner.search.groups.best_first import search_mixed
from planner.search.groups.infeasible import explain_mixed
from planner.search.notes import list_notes
from planner.search.reasons import rank_alternatives
from planner.search.run import Progress
from planner.spread import with_spread

HELD = tuple(one for one in RELAXATIONS if one.name in ("overlap", "policies", "mixes", "stages", "paths"))
"""What loosens the bound here."""


FARTHEST = 1.5
"""Times the answer's step: what is slower is not worth showing beside it."""


def find_mixed(request: Request, problem: Problem, on_progress: Callable[[Progress], None] | None = None) -> Plan:
    """The best plan of the request's space, with its certificate. Raises as ``find_plan`` does."""
    outcome, run = search_mixed(request, problem, on_progress)
    best = outcome.best
    if best is None or run is None:
        refuse_unanswered(outcome, len(outcome.layouts), request)
        raise explain_mixed(request, outcome, run.held if run is not None else 0.0)
    limit_s = FARTHEST * best.step_time_s

    def place_other(row: int) -> Evaluated | None:
        return run.place(row, limit_s).evaluated

    alternatives = rank_alternatives(
        request, outcome.layouts.row, best, place_other, run.next_rows(), tuple(outcome.evaluated)
    )
    # Priced anew as a single row, so that the plan re-prices to the last bit.
    problem = with_spread(problem, best.placement, request.fit, request.calibration)
    best = evaluate(problem, best.placement)
    notes = [_say_groups(best), *say_alone(request, best.step_time_s), *list_notes(request, problem, best)]
    if request.synthesize:
        notes.append("An order of passes is looked for where all nodes are alike; here schedules are named ones.")
    if request.robust:
        notes.append("Plans are held against draws of the figures where all nodes are alike; this one is the fastest.")
    certificate = certify(outcome, len(outcome.layouts), best.step_time_s, request, HELD)
    return build_plan(best, certificate, request.assumptions, alternatives, tuple(notes), words_of(request))


def _say_groups(best: Evaluated) -> str:
    """``32 layers on ranks 0-3 (a100-80g), 44 on ranks 4-5 (h100)``."""
    said = []
    for group in dict.fromkeys(best.homes):
        ranks = [rank for rank, home in enumerate(best.homes) if home == group]
        layers = sum(best.placement.layers_per_stage[rank] for rank in ranks)
        span = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {ranks[0]}-{ranks[-1]}"
        said.append(f"{layers} on {span} ({best.by_group[group].layers.setting.device.name})")
    return f"Layers by group of nodes: {', '.join(said)}."
