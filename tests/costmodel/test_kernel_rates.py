"""Older attention kernels, shared crossings of an exchange, and what LoRA leaves out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pricing import make_problem, one_split

from costmodel.attention import estimate_flash_attention_s
from costmodel.catalog.devices import load_device
from costmodel.catalog.models import load_model
from costmodel.catalog.runtimes import load_runtime
from costmodel.collectives import Network, estimate_collective_s
from costmodel.layers import LAYER_TERMS, estimate_layer_costs
from costmodel.parameters import count_model, trainable_share
from costmodel.schema.cluster import NetworkLevel
from costmodel.schema.model import LoRA


@pytest.mark.parametrize(("device", "slower"), [("h100", True), ("a100-80g", False)])
def test_an_attention_kernel_gains_nothing_from_hardware_newer_than_itself(device: str, slower: bool) -> None:
    shape = (load_device(device), 1, 32, 8192, 8192, 128, 128, "bf16")
    second, third = (float(estimate_flash_attention_s(*shape, version=version)) for version in (2, 3))
    assert (second > third) == slower


@pytest.mark.parametrize(("dropout", "changes"), [(0.0, True), (0.1, False)])
def test_attention_that_drops_out_runs_the_second_generation(dropout: float, changes: bool) -> None:
    """On Hopper the third generation is faster, and takes no dropout."""
    problem = make_problem("llama-3.1-8b", 8, gpu="h100", runtime="megatron", precision="bf16", seq_len=4096)
    model = problem.setting.model.model_copy(update={"attention_dropout": dropout})
    seconds = []
    for version in (2, 3):
        kernels = problem.setting.runtime.kernels.model_copy(update={"flash_version": version})
        runtime = problem.setting.runtime.model_copy(update={"kernels": kernels})
        setting = replace(problem.setting, model=model, runtime=runtime)
        costs = estimate_layer_costs(setting, problem.network, one_split(4096))
        seconds.append(float(costs.forward_s[0, 0, LAYER_TERMS.index("attention")]))
    assert (seconds[1] < seconds[0]) == changes


def test_a_token_crosses_once_to_each_node() -> None:
    """Two nodes: with eight copies the far one is all but certain, so one copy crosses instead of four."""
    inside = NetworkLevel(name="in", size=8, bytes_per_s=1e15, latency_s=0.0, setup_s=0.0, efficiency=1.0)
    between = NetworkLevel(name="out", size=2, bytes_per_s=1e9, latency_s=0.0, setup_s=0.0, efficiency=1.0)
    network = Network.from_levels((inside, between))
    apart = float(estimate_collective_s(network, "all_to_all", 8e9, 16))
    shared = float(estimate_collective_s(network, "all_to_all", 8e9, 16, copies=8.0))
    assert apart == pytest.approx(4.0)
    assert shared == pytest.approx(1.0 - 0.5**8)


def test_copies_never_make_an_exchange_slower() -> None:
    levels = (
        NetworkLevel(name="in", size=8, bytes_per_s=4e11, latency_s=1e-6),
        NetworkLevel(name="out", size=16, bytes_per_s=5e10, latency_s=5e-6),
    )
    network, sizes = Network.from_levels(levels), np.array([2.0, 8.0, 16.0, 64.0, 128.0])
    apart = estimate_collective_s(network, "all_to_all", 1e8, sizes)
    for copies in (1.0, 2.0, 8.0, 64.0):
        assert (estimate_collective_s(network, "all_to_all", 1e8, sizes, copies=copies) <= apart).all()


def test_adapters_by_hand() -> None:
    """Rank 16 on q, k, v, o of 32 layers of Llama 3.1 8B: 16 · (2 · 8192 + 2 · 5120) a layer."""
    model = load_model("llama-3.1-8b")
    assert trainable_share(model) == 1.0
    adapted = model.model_copy(update={"trains": LoRA(rank=16)})
    assert trainable_share(adapted) * count_model(model).total == pytest.approx(32 * 16 * (2 * 8192 + 2 * 5120))


def test_a_runtime_takes_over_what_it_does_not_say() -> None:
    base, derived = load_runtime("torch"), load_runtime("torchtitan")
    assert derived.memory.fragmentation == base.memory.fragmentation
    assert derived.memory.held_apart != base.memory.held_apart
    assert derived.state == base.state.model_copy(update={"shard_groups": ()})
    assert derived.overlap.context != base.overlap.context
    assert derived.overlap.grad_reduce == base.overlap.grad_reduce
    assert derived.source != base.source
