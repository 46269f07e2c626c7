"""Mixtures of experts: an expert-parallel degree that follows the load, and expert meshes of their own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from costmodel.schema.errors import InvalidSpec
from planner.evaluate import Evaluated, evaluate
from planner.placement import Placement
from planner.prediction import estimate_breakdown
from planner.problem import Problem
from planner.report.command import plan_command
from planner.request import Request, build_request
from planner.search import find_plan
from planner.search.best_first import search


def ask(model: str, gpus: int, *fix: str, overlapped: bool = False, **options: Any) -> Request:
    """Batches of 64 sequences of 4,096 tokens on Megatron. ``overlapped``: dispatch runs beside the opposite pass."""
    request = build_request(
        model, gpus, runtime="megatron", fix=("pp=1", *fix), seq_len=4096, global_batch_size=64,
        calibration="none", **options,
    )  # fmt: skip
    overlap = request.runtime.overlap.model_copy(update={"expert": 1.0 if overlapped else 0.0})
    return replace(request, runtime=request.runtime.model_copy(update={"overlap": overlap}))


def answer(request: Request) -> Evaluated:
    best = search(request, Problem.from_request(request)).best
    assert best is not None, "infeasible"
    return best


def twin(best: Evaluated, request: Request | None = None, **changes: Any) -> Evaluated:
    """The answer's placement under a layout that differs in a few degrees, or at another load."""
    placed = best.placement
    problem = best.problem if request is None else Problem.from_request(request)
    layout = placed.layout.model_copy(update=changes)
    return evaluate(problem, Placement(layout, placed.schedule, placed.layers_per_stage, placed.policies))


def exposed_s(one: Evaluated, *terms: str) -> float:
    breakdown = estimate_breakdown(one)
    return sum(breakdown[f"{term}_exposed_s"] for term in terms)


def claim_bytes(one: Evaluated) -> float:
    return float(one.priced.peak_claim_bytes[0])


class TestTutel:
    """Flex: the expert-parallel degree, and whether dispatch overlaps, follow the load."""

    def test_spreads_experts_where_the_load_is_even(self) -> None:
        """64 experts on eight ranks: spread, they leave memory to activations; whole they force recomputation."""
        request = ask("olmoe-1b-7b", 8, "tp=1", moe_imbalance=1.0)
        best = answer(request)
        assert best.placement.layout.ep > 1
        whole = twin(best, ep=1)
        assert claim_bytes(whole) > claim_bytes(best)
        alone = answer(replace(request, fixed={**request.fixed, "ep": 1}))
        assert exposed_s(alone, "recompute") > exposed_s(best, "ep", "recompute")

    def test_keeps_them_where_one_rank_would_wait_for_another(self) -> None:
        """At twice the mean on the busiest rank its products take longer than recomputing everything."""
        uneven = ask("olmoe-1b-7b", 8, "tp=1", moe_imbalance=2.0)
        best = answer(uneven)
        assert best.placement.layout.ep == 1
        spread = answer(ask("olmoe-1b-7b", 8, "tp=1", moe_imbalance=1.0))
        same = twin(spread, uneven)
        assert exposed_s(same, "gemm") > 1.3 * exposed_s(spread, "gemm")
        assert same.step_time_s > best.step_time_s

    def test_overlap_pays_for_a_wider_exchange(self) -> None:
        """Dispatch that runs beside the opposite pass costs next to nothing, and the widest degree holds the least."""
        blocking = answer(ask("olmoe-1b-7b", 8, "tp=1", moe_imbalance=1.0))
        hidden = answer(ask("olmoe-1b-7b", 8, "tp=1", moe_imbalance=1.0, overlapped=True))
        assert hidden.placement.layout.ep > blocking.placement.layout.ep
        assert exposed_s(hidden, "ep") < 0.2 * exposed_s(blocking, "ep")

    def test_overlap_changes_nothing_without_an_exchange(self) -> None:
        uneven = ask("olmoe-1b-7b", 8, "tp=1", moe_imbalance=2.0)
        hidden = ask("olmoe-1b-7b", 8, "tp=1", moe_imbalance=2.0, overlapped=True)
        assert answer(hidden).placement.layout == answer(uneven).placement.layout
        assert answer(hidden).step_time_s == answer(uneven).step_time_s


class TestParallelFolding:
    """MoE Parallel Folding: experts on a mesh of their own over the ranks that attention splits otherwise."""

    def test_wins_where_experts_are_many_and_narrow(self) -> None:
        """Qwen3 30B-A3B: attention over two tensor ranks, experts whole over eight; split too, they are slivers."""
        best = answer(ask("qwen3-30b-a3b", 16))
        layout = best.placement.layout
        assert (layout.tp, layout.etp, layout.ep) == (2, 1, 8)
        coupled = twin(best, etp=2, ep=4)
        assert exposed_s(coupled, "tp", "ep", "gemm") > exposed_s(best, "tp", "ep", "gemm")
        assert coupled.step_time_s > best.step_time_s

    def test_loses_where_the_load_is_uneven(self) -> None:
        """Mixtral 8x7B at twice the mean: experts split as attention is, over all eight ranks, share every token."""
        best = answer(ask("mixtral-8x7b", 16, moe_imbalance=2.0))
        layout = best.placement.layout
        assert layout.etp == layout.tp > 1 == layout.ep
        folded = twin(best, etp=1, ep=layout.tp)
        assert exposed_s(folded, "gemm") > 1.3 * exposed_s(best, "gemm")


@pytest.mark.parametrize(
    ("model", "options", "says"),
    [
        ("llama-8b", {"moe_imbalance": 1.5}, "--moe-imbalance 1.5: llama-3.1-8b has no experts"),
        ("olmoe-1b-7b", {"moe_imbalance": 0.5}, "--moe-imbalance 0.5: must be 1 or more"),
        ("olmoe-1b-7b", {"moe_capacity_factor": -1.0}, "--moe-capacity-factor -1: must be above 0"),
        ("olmoe-1b-7b", {"moe_capacity_factor": 1.0, "moe_imbalance": 2.0}, "a capacity says how much"),
    ],
)
def test_loads_that_cannot_be(model: str, options: dict[str, float], says: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        ask(model, 8, **options)
    assert says in refused.value.message


def test_the_command_says_the_load_again() -> None:
    """What ``plan predict`` is printed with prices the same question: an unusual load or a capacity is part of it."""
    for option, words in (
        ({"moe_imbalance": 2.0}, "--moe-imbalance 2"),
        ({"moe_capacity_factor": 1.25}, "--moe-capacity-factor 1.25"),
    ):
        plan = find_plan(ask("olmoe-1b-7b", 8, "tp=1", "ep=8", **option))
        assert words in plan_command(plan)
    assert "--moe" not in plan_command(find_plan(ask("olmoe-1b-7b", 8, "tp=1", "ep=8")))
