"""From a histogram of lengths to a division of the ranks: the best of all alike, and the best of unlike groups."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

import numpy as np

from costmodel.layouts import POLICIES
from costmodel.schema.errors import InvalidSpec
from costmodel.schema.lengths import LengthGroups, LengthLayout, LengthPlan, LengthShare
from planner.lengths.costs import GroupCosts, price_groups
from planner.lengths.groups import Dealt, divide, divide_alike
from planner.lengths.histogram import Histogram
from planner.problem import Problem
from planner.request import Request


@dataclass(frozen=True)
class _Answer:
    """A division under one base, and its step time."""

    costs: GroupCosts
    dealt: Dealt

    @property
    def step_s(self) -> float:
        return self.costs.step_s(self.dealt.makespan_s)


def find_length_plan(request: Request, histogram: Histogram) -> LengthPlan:
    """The fastest layout for one step of these sequences: groups all alike, or of unlike context-parallel degree.

    Unlike groups are chosen where the runtime has them and they are faster by more than the request's gap. Past the
    request's time limit the best so far is the answer, and its gap says what that leaves open.
    Raises Infeasible where no group of ranks holds the longest sequence; InvalidSpec for unlike kinds of node, and for
    models with frozen parts.
    """
    began = perf_counter()
    if len(request.cluster.unlike_groups) > 1:
        raise InvalidSpec(
            f"cluster {request.cluster.name!r} has unlike groups of nodes; --lengths needs them all alike"
        )
    if request.model.frozen_parts:
        raise InvalidSpec(f"{request.model.name} has frozen parts, and --lengths plans models without any")
    merged = histogram.merged()
    problem = Problem.from_request(request)
    costs = sorted(price_groups(request, problem, merged), key=lambda one: one.step_s(one.problem.floor_s))
    uniform = _best_alike(costs)
    mixed, bound_s = uniform, uniform.step_s
    for one in costs:
        floor_s = one.step_s(one.problem.floor_s)
        if floor_s < mixed.step_s:
            start = divide_alike(one.problem)
            assert start is not None, "price_groups keeps no base that cannot hold every sequence"
            division = divide(one.problem, start, request.gap, began + request.time_limit_s)
            floor_s = one.step_s(division.bound_s)
            mixed = min(mixed, _Answer(one, division.dealt), key=lambda answer: answer.step_s)
        bound_s = min(bound_s, floor_s)
    gain = uniform.step_s / mixed.step_s - 1.0
    worth = gain > request.gap
    allowed = request.runtime.mixed_context_parallel and "mixed_context_parallel" not in request.forbidden
    chosen = mixed if worth and allowed else uniform
    return LengthPlan(
        model=request.model.name,
        cluster=request.cluster.name,
        device=request.device.name,
        num_devices=request.cluster.num_devices,
        runtime=request.runtime.name,
        sequences=histogram.sequences,
        tokens=histogram.tokens,
        longest=histogram.longest,
        chosen=_layout(chosen, merged),
        uniform=_layout(uniform, merged),
        mixed=_layout(mixed, merged),
        gain=gain,
        tokens_per_s_per_device=histogram.tokens / chosen.step_s / request.cluster.num_devices,
        lower_bound_s=bound_s,
        gap=max(0.0, 1.0 - bound_s / mixed.step_s),
        considered=sum(len(one.shapes) for one in costs),
        wall_s=perf_counter() - began,
        assumptions=request.assumptions,
        notes=tuple(_notes(request, histogram, merged, worth)),
    )


def _best_alike(costs: list[GroupCosts]) -> _Answer:
    """``costs`` in the order of their floors."""
    best: _Answer | None = None
    for one in costs:
        if best is not None and one.step_s(one.problem.floor_s) >= best.step_s:
            break
        division = divide_alike(one.problem)
        if division is not None:
            answer = _Answer(one, division.dealt)
            best = answer if best is None or answer.step_s < best.step_s else best
    assert best is not None, "the groups that hold the longest sequence hold every other one"
    return best


def _notes(request: Request, histogram: Histogram, merged: Histogram, worth: bool) -> list[str]:
    notes = []
    if worth and not request.runtime.mixed_context_parallel:
        notes.append(
            f"{request.runtime.name} runs groups of one context-parallel degree only, so the uniform is chosen."
        )
    if len(merged.lengths) < len(histogram.lengths):
        notes.append(
            f"{len(histogram.lengths)} distinct lengths count as {len(merged.lengths)}, each as long as the longest of"
            " those that it stands for."
        )
    return notes


def _layout(answer: _Answer, histogram: Histogram) -> LengthLayout:
    base, dealt = answer.costs.base, answer.dealt
    policy = POLICIES[base.policy]
    given, loads = np.array(dealt.sequences), np.array(dealt.loads_s)
    groups = []
    for s in sorted(set(dealt.shapes), key=lambda s: -answer.costs.problem.ranks[s]):
        members = np.array(dealt.shapes) == s
        ring, ulysses = answer.costs.shapes[s]
        shares = tuple(
            LengthShare(length=length, count=int(count), packed=int(packed))
            for length, count, packed in zip(
                histogram.lengths, given[members].sum(axis=0), answer.costs.packed[:, s], strict=True
            )
            if count
        )
        groups.append(
            LengthGroups(
                groups=int(members.sum()),
                cp_ring=ring,
                cp_ulysses=ulysses,
                busy_s=float(loads[members].max()),
                sequences=shares,
            )
        )
    return LengthLayout(
        tp=base.tp,
        ep=base.ep,
        zero_stage=1 if base.zero_stage else 0,
        recompute=policy.recompute,
        offload=float(policy.offload == "all"),
        groups=tuple(groups),
        step_time_s=answer.step_s,
    )
