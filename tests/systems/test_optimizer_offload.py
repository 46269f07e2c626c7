"""Optimizer state on the host: ZeRO-Offload and Deep Optimizer States - where each wins, and where it does not."""

from __future__ import annotations

from typing import Any

import pytest
from small_instances import build_model, build_request, with_budget, with_request

from costmodel.catalog.runtimes import load_runtime
from planner.evaluate import Evaluated, evaluate
from planner.placement import Placement
from planner.problem import Problem
from planner.request import Request
from planner.search.best_first import search

PLAIN = {"tp": 1, "pp": 1, "cp_ulysses": 1, "dp_shard": 8, "zero_stage": 1, "micro_batch_size": 1}


def best_of(request: Request) -> Evaluated:
    best = search(request, Problem.from_request(request)).best
    assert best is not None
    return best


def share_of(one: Evaluated) -> float:
    return one.placement.layout.optimizer_offload


def price_like(best: Evaluated, **changes: Any) -> Evaluated:
    """The answer's placement under a layout that differs in a few choices."""
    placed = best.placement
    layout = placed.layout.model_copy(update=changes)
    return evaluate(best.problem, Placement(layout, placed.schedule, placed.layers_per_stage, placed.policies))


def claim_bytes(one: Evaluated) -> float:
    return float(one.priced.peak_claim_bytes[0])


def update_s(one: Evaluated) -> float:
    """Seconds after the backward until every parameter is updated, less what the host takes for any step."""
    extras, fixed_s = one.priced.extras, one.problem.setting.runtime.kernels.host_s_per_step
    return float((extras.optimizer_s + extras.offload_exposed_s)[0, 0]) - fixed_s


@pytest.fixture(scope="module")
def request_() -> Request:
    """Twelve layers on a node of eight under DeepSpeed; ZeRO-1, so that state is the most that a device keeps."""
    return build_request(
        build_model(num_layers=12, hidden=2048), 8, runtime="deepspeed", global_batch_size=32,
        fixed={**PLAIN, "recompute": "none"}, gap=0.0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def ample(request_: Request) -> Evaluated:
    return best_of(request_)


def all_or_nothing(request: Request) -> Request:
    return with_request(request, forbidden=frozenset({"partial_optimizer_offload"}))


def test_zero_offload_wins_where_the_state_does_not_fit(request_: Request, ample: Evaluated) -> None:
    """Master weights and moments leave the device: 12/8 bytes a parameter on the host, and its update's time."""
    assert share_of(ample) == 0.0
    moved = price_like(ample, optimizer_offload=1.0)
    assert update_s(moved) > update_s(ample)
    params = float(ample.priced.params.total[0, 0])
    assert float(moved.priced.memory.host[0, 0]) == pytest.approx(12.0 * params / 8)
    tight = all_or_nothing(with_budget(request_, 0.5 * (claim_bytes(ample) + claim_bytes(moved))))
    assert share_of(best_of(tight)) == 1.0
    host = tight.cluster.groups[0].host.model_copy(update={"memory_bytes": 1e9})
    group = tight.cluster.groups[0].model_copy(update={"host": host})
    small_host = with_request(tight, cluster=tight.cluster.model_copy(update={"groups": (group,)}))
    assert search(small_host, Problem.from_request(small_host)).best is None


def test_zero_offload_loses_to_recomputation_in_a_short_step(request_: Request, ample: Evaluated) -> None:
    """What decides is which of the two costs more: the host's update once a step, or a forward in every micro-batch."""
    moved = price_like(ample, optimizer_offload=1.0)
    short = with_budget(request_, 0.5 * (claim_bytes(ample) + claim_bytes(moved)))
    free = all_or_nothing(with_request(short, fixed=PLAIN))
    few = best_of(free)
    assert share_of(few) == 0.0
    assert any(few.placement.policies)
    extra_s = update_s(moved) - update_s(ample)
    forwards_s = few.times.recompute_s.sum() * few.placement.layout.num_microbatches
    assert forwards_s < extra_s
    workload = free.workload.model_copy(update={"global_batch_size": 8 * free.workload.global_batch_size})
    many = best_of(with_request(free, workload=workload))
    assert share_of(many) == 1.0
    assert not any(many.placement.policies)
    assert 8.0 * forwards_s > extra_s


def test_a_share_is_as_large_as_memory_asks(request_: Request, ample: Evaluated) -> None:
    """Of 12/8 bytes a parameter just enough leaves the device; less does not fit, and more takes longer."""
    moved = price_like(ample, optimizer_offload=1.0)
    for part in (0.3, 0.7):
        budget = claim_bytes(ample) - part * (claim_bytes(ample) - claim_bytes(moved))
        chosen = best_of(with_budget(request_, budget))
        assert share_of(chosen) == pytest.approx(part, abs=2e-3)
        assert claim_bytes(chosen) <= budget * (1.0 + 1e-9)
        less, more = (price_like(chosen, optimizer_offload=share_of(chosen) + step) for step in (-0.002, 0.1))
        assert claim_bytes(less) > budget
        assert update_s(more) > update_s(chosen)


def test_the_share_that_hides_beside_the_device_costs_nothing(request_: Request, ample: Evaluated) -> None:
    """With a little memory short, the host's update of a few percent runs beside the device's and is over as soon."""
    slightly = with_budget(request_, 0.999 * claim_bytes(ample))
    chosen = best_of(slightly)
    assert 0.0 < share_of(chosen) < 0.05
    assert update_s(chosen) < update_s(ample)
    assert chosen.priced.extras.offload_exposed_s[0, 0] <= chosen.priced.extras.optimizer_s[0, 0] * 1e-2


def test_deep_optimizer_states_update_on_the_device_what_the_host_is_slow_at(request_: Request) -> None:
    """All state on the host, most of it streamed to the device for its update: a third of ZeRO-Offload's time here.

    Loses its advantage where the link to the host is slower than the host's own memory. Published: 2.5 times faster
    iterations than offload alone. Source: Maurya et al. 2024, Deep Optimizer States.
    """
    runtime = load_runtime("deepspeed").model_copy(update={"streams_optimizer_state": True})
    whole = {"fixed": {**request_.fixed, "optimizer_offload": 1.0}}
    offloaded = best_of(with_request(request_, **whole))
    streaming = best_of(with_request(request_, runtime=runtime, **whole))
    assert 2.0 < update_s(offloaded) / update_s(streaming) < 4.0
    assert claim_bytes(streaming) == claim_bytes(offloaded)
    assert streaming.step_time_s < offloaded.step_time_s
    host = request_.cluster.groups[0].host
    slow = host.model_copy(update={"device_link_bytes_per_s": host.device_link_bytes_per_s / 50})
    group = request_.cluster.groups[0].model_copy(update={"host": slow})
    narrow = with_request(request_, cluster=request_.cluster.model_copy(update={"groups": (group,)}), **whole)
    apart, streamed = best_of(narrow), best_of(with_request(narrow, runtime=runtime))
    assert update_s(apart) / update_s(streamed) < 1.6


def test_what_streams_stays_within_a_budget_that_recomputation_would_need(request_: Request, ample: Evaluated) -> None:
    """Between the two, streaming decides: the host's update alone takes longer than recomputing what makes room."""
    moved = price_like(ample, optimizer_offload=1.0)
    short = with_budget(with_request(request_, fixed=PLAIN), 0.98 * claim_bytes(moved) + 0.02 * claim_bytes(ample))
    host = short.cluster.groups[0].host
    slow = host.model_copy(update={"memory_bytes_per_s": host.memory_bytes_per_s / 2})
    group = short.cluster.groups[0].model_copy(update={"host": slow})
    slowed = all_or_nothing(
        with_request(
            short,
            cluster=short.cluster.model_copy(update={"groups": (group,)}),
            workload=short.workload.model_copy(update={"global_batch_size": 64}),
        )
    )
    assert share_of(best_of(slowed)) == 0.0
    runtime = load_runtime("deepspeed").model_copy(update={"streams_optimizer_state": True})
    chosen = best_of(with_request(slowed, runtime=runtime))
    assert share_of(chosen) == 1.0
    assert not any(chosen.placement.policies)
