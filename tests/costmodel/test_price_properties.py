"""Properties of the one formula over many random layouts of several models, devices and runtimes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import chain, pairwise
from typing import Any

import numpy as np
import pytest
from pricing import make_request, price_groups, price_uniform, random_layouts

from costmodel.collectives import Network
from costmodel.layouts import POLICIES, Layouts
from costmodel.memory import (
    PARTS,
    claim_budget_bytes,
    device_budget_bytes,
    estimate_communicator_bytes,
    host_budget_bytes,
    normal_cdf,
)
from costmodel.price import Priced
from planner.problem import Problem

ROWS = 120
SHAPES = 10
"""Pairs of pp and vpp that a case's rows have: each is priced by itself, under every policy."""

OWN_GROUPS = ("shard_params", "shard_grads", "shard_optim", "reshard_after_forward")
POLICY_NAMES = [policy.name for policy in POLICIES]
COLUMNS = ("step_time_s", "makespan_s", "peak_allocated_bytes", "peak_device_bytes", "fits_probability")


@dataclass(frozen=True)
class Case:
    """One problem and layouts drawn from its space."""

    problem: Problem
    layouts: Layouts

    @cached_property
    def priced(self) -> list[list[Priced]]:
        """For each policy, the layouts' prices in groups of equal stages."""
        return price_groups(self.problem, self.layouts, range(len(POLICIES)))

    def again(self, policies: Sequence[int] = (0,), **columns: Any) -> list[list[Priced]]:
        """The same with changed columns."""
        return price_groups(self.problem, replace(self.layouts, **columns), policies)


CASES = {
    "dense, torch": ("llama-3.1-70b", 64, {"gpu": "h100", "runtime": "torch"}),
    "dense, deepspeed": ("llama-3.1-8b", 16, {"gpu": "a100-40g", "runtime": "deepspeed", "precision": "fp16"}),
    "mixture, megatron": ("mixtral-8x7b", 128, {"gpu": "h100", "runtime": "megatron"}),
    "latent attention, megatron": ("deepseek-v3", 1024, {"gpu": "h800", "runtime": "megatron"}),
    "hybrid, fp8": ("nemotron-h-8b", 32, {"gpu": "b200", "runtime": "megatron", "precision": "fp8"}),
    "unfused, 2021": ("gpt3-175b", 768, {"gpu": "a100-80g", "runtime": "megatron-2021", "precision": "fp16"}),
    "shared cores": ("tiny", 8, {"gpu": "cpu", "runtime": "torch"}),
}

every_case = pytest.mark.parametrize("name", CASES)


@cache
def case(name: str) -> Case:
    model, gpus, options = CASES[name]
    request = make_request(model, gpus, **options)
    layouts = random_layouts(request, 10 * ROWS, seed=len(name))
    shapes, shape = np.unique(np.stack([layouts.pp, layouts.vpp]), axis=1, return_inverse=True)
    few = np.random.default_rng(len(name)).permutation(shapes.shape[1])[:SHAPES]
    rows = np.flatnonzero(np.isin(shape, few))
    layouts = layouts.take(rows[:: -(-len(rows) // ROWS)])
    assert len(layouts) > 50, "too few layouts to say anything"
    return Case(Problem.from_request(request).on_axis(), layouts)


@every_case
def test_parts_of_memory_sum_to_the_whole(name: str) -> None:
    for priced in chain.from_iterable(case(name).priced):
        memory = priced.memory
        assert memory.parts.shape[-1] == len(PARTS)
        assert (memory.parts >= 0.0).all()
        np.testing.assert_allclose(memory.parts.sum(axis=-1), memory.allocated, rtol=1e-12)
        assert (memory.allocated <= memory.reserved).all()
        assert (memory.reserved <= memory.device).all()
        assert ((memory.fits_probability >= 0.0) & (memory.fits_probability <= 1.0)).all()


@every_case
def test_what_is_claimed_is_the_device_figure_without_its_context(name: str) -> None:
    """So a rank inside the budget is one whose P(fits) is high enough, and one beyond it is not."""
    setting = case(name).problem.setting
    budget, wanted = claim_budget_bytes(setting, 0.95), 0.95
    for priced in chain.from_iterable(case(name).priced):
        memory = priced.memory
        claimed = memory.claim * setting.runtime.memory.fragmentation + setting.device.context_bytes
        np.testing.assert_allclose(claimed, memory.device, rtol=1e-12)
        inside = (memory.claim <= budget) & (memory.host <= host_budget_bytes(setting))
        near = np.abs(memory.claim / budget - 1.0) < 1e-3
        assert ((memory.fits_probability >= wanted) == inside)[~near].all()


@every_case
def test_only_what_comes_and_goes_leaves_gaps(name: str) -> None:
    """Reserved less allocated is a share of activations, logits and what lives briefly, and what a layer and the loss
    hold back from each other; state adds nothing to it."""
    rules = case(name).problem.setting.runtime.memory
    comes_and_goes = [part not in ("params", "grads", "optimizer", "workspace") for part in PARTS]
    for priced in chain.from_iterable(case(name).priced):
        memory = priced.memory
        expected = rules.fragmentation_excess * memory.parts[..., comes_and_goes].sum(axis=-1)
        expected = expected + rules.fragmentation * memory.apart
        np.testing.assert_allclose(memory.reserved - memory.allocated, expected, rtol=1e-6, atol=1.0)


@every_case
def test_a_layer_and_the_loss_hold_back_from_each_other(name: str) -> None:
    """On the last rank alone; nothing where segments grow, the smaller of the two whole where nothing is lent."""
    problem = case(name).problem
    runtime = problem.setting.runtime
    apart = []
    for share in (0.0, 0.5, 1.0):
        rules = runtime.memory.model_copy(update={"held_apart": share})
        setting = replace(problem.setting, runtime=runtime.model_copy(update={"memory": rules}))
        priced = price_groups(replace(problem, setting=setting), case(name).layouts)[0][0]
        apart.append(priced.memory.apart)
        logits = priced.memory.parts[..., PARTS.index("logits")]
        assert (priced.memory.apart[logits == 0.0] == 0.0).all()
        assert (priced.memory.apart <= share * logits).all()
    assert (apart[0] == 0.0).all()
    assert apart[2].max() > 0.0
    np.testing.assert_allclose(apart[1], 0.5 * apart[2])


@every_case
def test_every_shared_axis_has_a_communicator(name: str) -> None:
    setting, layouts = case(name).problem.setting, case(name).layouts
    number = estimate_communicator_bytes(setting, layouts) / setting.runtime.memory.communicator_bytes
    alone = (layouts.tp == 1) & (layouts.pp == 1) & (layouts.cp == 1) & (layouts.ep == 1)
    assert (number[alone] == 1).all()
    shared = [getattr(layouts, axis) > 1 for axis in ("tp", "pp", "cp_ring", "cp_ulysses", "ep", *OWN_GROUPS)]
    assert (number >= np.sum(shared, axis=0)).all()
    groups = [getattr(layouts, name) > 0 for name in ("shard_params", "shard_optim", "reshard_after_forward")]
    assert (number <= np.sum([*shared, *groups], axis=0) + 1).all()


@every_case
def test_a_step_holds_at_least_its_busiest_rank(name: str) -> None:
    """No step is shorter than the heaviest rank's own passes; nothing exposed is negative."""
    for priced in chain.from_iterable(case(name).priced):
        work, extras = priced.work, priced.extras
        busy_s = (work.forward_s + work.backward_s).max(axis=1) * priced.layers.layouts.num_microbatches
        assert np.isfinite(priced.step_time_s).all()
        assert (priced.makespan_s >= busy_s * (1 - 1e-12)).all()
        assert (priced.step_time_s >= priced.makespan_s).all()
        for column in (extras.dp_exposed_s, extras.optimizer_s, extras.offload_exposed_s):
            assert (column >= 0.0).all()
        slowdown = case(name).problem.setting.runtime.overlap.compute_slowdown
        assert (extras.dp_exposed_s <= extras.dp_total_s * max(slowdown, 1.0)).all()


@every_case
def test_one_row_prices_the_same_as_a_million(name: str) -> None:
    for together in case(name).priced[0]:
        layouts = together.layers.layouts
        for row in range(0, len(layouts), 5):
            alone = price_uniform(case(name).problem, layouts.take([row]), 0)
            for column in COLUMNS:
                expected = getattr(together, column)[row]
                assert getattr(alone, column)[0] == pytest.approx(expected, rel=1e-12, abs=1e-300), column
            # Rows with more slots make room in those with fewer.
            own = alone.sent_bytes[0]
            np.testing.assert_allclose(own, together.sent_bytes[row][: len(own)], rtol=1e-12)


@every_case
def test_a_larger_micro_batch_never_keeps_fewer_activations(name: str) -> None:
    """At the same number of micro-batches, rank by rank, under every policy; of a share that hides wherever it lies."""
    activations = PARTS.index("activations")
    doubled = case(name).again(range(len(POLICIES)), micro_batch_size=case(name).layouts.micro_batch_size * 2)
    pairs = zip(chain.from_iterable(case(name).priced), chain.from_iterable(doubled), strict=True)
    for small, large in pairs:
        before, after = (
            one.memory.parts[..., activations] + one.memory.host + one.memory.nvme for one in (small, large)
        )
        assert (after >= before * (1 - 1e-12)).all()
        assert (large.work.forward_s >= small.work.forward_s).all()


@every_case
def test_a_higher_zero_stage_never_keeps_more_state(name: str) -> None:
    """Parameters, gradients and optimizer state; what is gathered for a moment is another part."""
    kept = [PARTS.index(part) for part in ("params", "grads", "optimizer")]
    layouts = case(name).layouts
    merged = {"dp_shard": layouts.dp_shard * layouts.dp_replicate, "dp_replicate": np.ones_like(layouts.dp_shard)}
    stages = [case(name).again(zero_stage=np.full_like(layouts.zero_stage, stage), **merged)[0] for stage in range(4)]
    for lower, higher in pairwise(stages):
        for before, after in zip(lower, higher, strict=True):
            more, fewer = (priced.memory.parts[..., kept].sum(axis=-1) for priced in (before, after))
            assert (fewer <= more * (1 + 1e-12)).all()


@every_case
def test_recomputation_trades_memory_for_time(name: str) -> None:
    """full keeps no more than selective, selective no more than none; and none is the fastest of the three."""
    saved = PARTS.index("activations")
    none, selective, full = (case(name).priced[POLICY_NAMES.index(each)] for each in ("none", "selective", "full"))
    for kept, some, least in zip(none, selective, full, strict=True):
        for more, fewer in ((kept, some), (some, least)):
            assert (fewer.memory.parts[..., saved] <= more.memory.parts[..., saved] * (1 + 1e-12)).all()
            assert (kept.work.backward_s <= fewer.work.backward_s * (1 + 1e-12)).all()


@every_case
def test_offload_moves_activations_to_the_host(name: str) -> None:
    none, offload = (case(name).priced[POLICY_NAMES.index(each)] for each in ("none", "none+offload"))
    saved = PARTS.index("activations")
    for kept, moved in zip(none, offload, strict=True):
        left = moved.memory.parts[..., saved] + moved.memory.host - kept.memory.host
        np.testing.assert_allclose(left, kept.memory.parts[..., saved], rtol=1e-9)
        assert (moved.step_time_s >= kept.step_time_s * (1 - 1e-12)).all()


@every_case
def test_a_slower_network_never_speeds_a_step_up(name: str) -> None:
    """Half of every bandwidth, or twice every latency: no fewer seconds for the same bytes."""
    problem, layouts = case(name).problem, case(name).layouts
    network = problem.network
    for other in (
        replace(network, bytes_per_s=network.bytes_per_s / 2.0),
        replace(network, latency_s=network.latency_s * 2.0, p2p_latency_s=network.p2p_latency_s * 2.0),
    ):
        slower = price_groups(_on(problem, other), layouts)
        for slow, fast in zip(slower[0], case(name).priced[0], strict=True):
            assert (slow.step_time_s >= fast.step_time_s * (1 - 1e-12)).all()


def _on(problem: Problem, network: Network) -> Problem:
    """The problem on another network, whose cached property is set before anybody asks."""
    moved = Problem(problem.setting, problem.cluster, problem.calibration)
    moved.__dict__["network"] = network
    return moved


def test_budgets_invert_the_probability() -> None:
    """P(fits) of a device filled to its budget is the probability that was asked for."""
    setting = case("dense, torch").problem.setting
    sigma = np.hypot(setting.runtime.memory.fragmentation_std, setting.runtime.memory.model_std)
    for probability in (0.5, 0.8, 0.95, 0.99):
        device = device_budget_bytes(setting, probability)
        assert normal_cdf(np.log(setting.device.memory_bytes / device) / sigma) == pytest.approx(probability, abs=1e-9)
        claim = claim_budget_bytes(setting, probability)
        fragmentation = setting.runtime.memory.fragmentation
        assert claim * fragmentation + setting.device.context_bytes == pytest.approx(device)
    assert device_budget_bytes(setting, 0.5) == pytest.approx(setting.device.memory_bytes)
    assert normal_cdf(np.array([-1.0, 1.6448536])) == pytest.approx([0.1586553, 0.95], abs=2e-4)


def test_gradients_reduced_whole_cost_an_all_reduce() -> None:
    """At stage 1 alone; every rank sends its reduce-scatter again, as the gather of the all-reduce."""
    problem, layouts = case("dense, deepspeed").problem, case("dense, deepspeed").layouts
    rules = problem.setting.runtime.state
    priced = []
    for whole in (False, True):
        state = rules.model_copy(update={"all_reduces_grads": whole})
        setting = replace(problem.setting, runtime=problem.setting.runtime.model_copy(update={"state": state}))
        priced.append(price_groups(replace(problem, setting=setting), layouts)[0])
    for shared, whole in zip(*priced, strict=True):
        layouts = shared.layers.layouts
        stage_1 = (layouts.zero_stage == 1) & (layouts.dp > 1)
        more_s = whole.extras.dp_total_s - shared.extras.dp_total_s
        more_bytes = (whole.sent_bytes - shared.sent_bytes).sum(axis=(1, 2))
        assert (more_bytes[stage_1] > 0.0).all()
        assert (more_s[~stage_1] == 0.0).all()
    assert any((one.layers.layouts.zero_stage == 1).any() for one in priced[0])
