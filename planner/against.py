"""Why not that layout: the best plan of the same question that has it, or the rule that rules it out."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from costmodel.layouts import Layouts
from costmodel.schema.errors import Infeasible, InvalidSpec, ParlayError, SolverTimeout
from costmodel.schema.plan import Plan
from planner.constraints import (
    ALLOWABLE,
    check_agreement,
    check_request,
    check_runtime,
    check_world,
    read_constraints,
    shown,
)
from planner.constraints.rows import admits, admitted_rows
from planner.constraints.techniques import optimizer_technique
from planner.placement import Placement
from planner.predict import price_given
from planner.request import Request, request_from_plan
from planner.search import find_plan
from planner.search.space import enumerate_space
from planner.survey import survey_space

PATIENCE_S = 30.0
"""Seconds for the search among plans that have the layout."""


@dataclass(frozen=True)
class Against:
    """The best plan with the layout that was asked about, and why the search did not weigh it, where it did not."""

    plan: Plan
    left_out: tuple[str, ...]


def find_against(plan: Plan, text: str) -> Against:
    """``text``: keys and values as ``--fix`` takes them (``tp=8,pp=4``); what it leaves open is chosen for the best.

    Asked on the plan's own question, without what the user then asked of the layout.
    Raises InvalidSpec or Infeasible, saying which rule stands against it.
    """
    try:
        found = find_plan(_request(plan, text))
    except ParlayError as error:
        raise _refusal(error) from None
    return Against(found, _left_out(plan, found))


def leanest_against(plan: Plan, text: str) -> Plan:
    """Of the layouts that have what ``text`` asks, the one that takes least memory under one policy for all layers,
    whether it fits or not: what to look at where ``find_against`` finds nothing.

    Raises InvalidSpec, where no layout has it or nodes are of several kinds.
    """
    try:
        request = _request(plan, text)
        survey = survey_space(request)
        if not len(survey):
            raise InvalidSpec(f"--fix {text}: no layout of the space has it")
        leanest = int(survey.peak_bytes.argmin())
        layouts = survey.layouts
        return price_given(request, layouts.row(leanest), layouts.schedule_name(leanest), int(survey.policy[leanest]))
    except ParlayError as error:
        raise _refusal(error) from None


def _request(plan: Plan, text: str) -> Request:
    """The plan's own question, of the layouts that have what ``text`` says."""
    asked = read_constraints(fix=[text])
    if not asked.fixed and not asked.pins:
        raise InvalidSpec("--fix says nothing of a layout", "like --fix tp=8,pp=4")
    # Who asks about a lossy layout allows it.
    named = {optimizer_technique(str(asked.fixed[key])) for key in ("optimizer_format",) if key in asked.fixed}
    asked = replace(asked, allowed=frozenset({*plan.constraints.allow, *(named & ALLOWABLE.keys())}))
    check_world(asked, plan.cluster.num_devices)
    check_agreement(asked)
    check_runtime(asked, plan.runtime_spec)
    request = request_from_plan(
        plan,
        constrained=False,
        fixed=asked.fixed,
        pins=asked.pins,
        allowed=asked.allowed,
        time_limit_s=PATIENCE_S,
        top=0,
    )
    check_request(request)
    return request


def as_asked(said: str) -> str:
    """What a search says of --fix, said of the option that was typed."""
    return said.replace("--fix", "--against")


def _refusal(error: ParlayError) -> ParlayError:
    """The same refusal, of the option that was typed."""
    message, hint = as_asked(error.message), as_asked(error.hint) if error.hint else None
    if isinstance(error, Infeasible):
        return Infeasible(message, [as_asked(reason) for reason in error.reasons], hint)
    if isinstance(error, SolverTimeout):
        return SolverTimeout(message, error.best_bound_s, hint)
    return InvalidSpec(message, hint)


def _left_out(plan: Plan, other: Plan) -> tuple[str, ...]:
    """Sentences on what kept the plan's own search from the other layout."""
    request = request_from_plan(plan)
    row = Layouts.from_rows([(other.layout, Placement.from_plan(other).schedule)])
    if not admitted_rows(request, row)[0]:
        return (f"The first plan's search was held to {_said(request, other)}, which leaves this layout out.",)
    if request.other_devices:
        return ()
    # Which share of the optimizer is worth moving to the host is found with prices, not enumerated.
    enumerated = replace(row, optimizer_offload=np.rint(row.optimizer_offload))
    if enumerate_space(request_from_plan(plan, constrained=False)).number_of(enumerated) is None:
        return ("The search does not try this layout unless it is named: docs/search.md says where the space ends.",)
    return ()


def _said(request: Request, other: Plan) -> str:
    """The constraints that the other layout breaks."""
    values = {**other.layout.model_dump(), "cp": other.layout.cp, "dp": other.layout.dp}
    values["schedule"] = Placement.from_plan(other).schedule
    broken = [
        f"--fix {key}={shown(value)}" for key, value in request.fixed.items() if key in values and values[key] != value
    ]
    broken += [
        f"--limit and --forbid of {key}"
        for key, value in values.items()
        if key not in request.fixed and not admits(request, key, value)
    ]
    return ", ".join(broken) or "other stages"
