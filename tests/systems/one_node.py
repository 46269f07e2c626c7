"""One node, one stage, one micro-batch: nothing but what becomes of each layer's activations is in question."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from costmodel.layouts import POLICIES
from costmodel.memory import claim_budget_bytes
from planner.evaluate import Evaluated, evaluate
from planner.placement import Placement
from planner.prediction import estimate_breakdown
from planner.problem import Problem
from planner.request import Request, build_request
from planner.search.best_first import search

ONE_STAGE = ("pp=1", "tp=1", "zero_stage=3", "micro_batch_size=1")


def llama(seq_len: int, *forbid: str, **changes: Any) -> Request:
    """8 B on one node."""
    request = build_request(
        "llama-8b", 8, runtime="torch", fix=ONE_STAGE, forbid=forbid, seq_len=seq_len, global_batch_size=8,
        calibration="none",
    )  # fmt: skip
    return replace(request, runtime=request.runtime.model_copy(update=changes))


def answer(request: Request) -> Evaluated:
    best = search(request, Problem.from_request(request)).best
    assert best is not None, "infeasible"
    return best


def policies(one: Evaluated) -> Counter[str]:
    """How many layers follow each policy."""
    return Counter(POLICIES[policy].name for policy in one.placement.policies)


def all_under(best: Evaluated, name: str) -> Evaluated:
    """The answer with one policy for all layers."""
    placed = best.placement
    policy = [one.name for one in POLICIES].index(name)
    same = Placement(placed.layout, placed.schedule, placed.layers_per_stage, (policy,) * len(placed.policies))
    return evaluate(best.problem, same)


def exposed_s(one: Evaluated, term: str) -> float:
    return estimate_breakdown(one).get(f"{term}_exposed_s", 0.0)


def claim_bytes(one: Evaluated) -> float:
    return float(one.priced.peak_claim_bytes[0])


def budget_bytes(one: Evaluated, request: Request) -> float:
    return claim_budget_bytes(one.problem.setting, request.fit_probability)
