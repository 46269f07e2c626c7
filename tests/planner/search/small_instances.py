"""Small planning problems at random: a few layers, a few devices, and as much or as little memory as makes trouble."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import numpy as np

from costmodel.catalog.clusters import default_cluster
from costmodel.catalog.devices import load_device
from costmodel.catalog.runtimes import load_runtime
from costmodel.layer_table import PricedLayers, price_layers
from costmodel.layouts import Layouts
from costmodel.memory import claim_budget_bytes
from costmodel.schema.cluster import ClusterSpec
from costmodel.schema.model import ModelSpec
from costmodel.schema.runtime import Runtime
from costmodel.schema.workload import Workload
from planner.constraints.techniques import optimizer_technique
from planner.problem import Problem
from planner.request import Request
from planner.search.offload import ShareSizes, shares_offload
from planner.search.pinned import pin_costs, with_pins
from planner.search.policies import policy_sets
from planner.search.space import enumerate_layouts

RUNTIMES = ("torch", "torchtitan", "megatron", "deepspeed", "maxtext", "generic", "internevo", "fsdp", "megatron-2021")
SHAPES = ("dense", "windows", "mixture", "dense then mixture", "unlike")


def build_model(
    shape: str = "dense",
    num_layers: int = 6,
    hidden: int = 1024,
    vocab: int = 32000,
    tied: bool = False,
    heads: int = 8,
) -> ModelSpec:
    """One kind of layer, or two: windowed and global attention, dense and mixture, or two of very different weight."""
    attention = {"kind": "attention", "num_heads": heads, "num_key_value_heads": heads, "head_dim": hidden // heads}
    mlp = {"kind": "mlp", "intermediate_size": 4 * hidden}
    moe = {"kind": "moe", "num_experts": 8, "experts_per_token": 2, "intermediate_size": 2 * hidden}
    kinds = {
        "dense": {"name": "dense", "blocks": [attention, mlp]},
        "local": {"name": "local", "blocks": [{**attention, "sliding_window": 256}, mlp]},
        "moe": {"name": "moe", "blocks": [attention, moe]},
        "wide": {"name": "wide", "blocks": [attention, {"kind": "mlp", "intermediate_size": 20 * hidden}]},
    }
    few = max(1, num_layers // 4)
    runs = {
        "dense": [("dense", num_layers)],
        "windows": [("local", 1) if index % 3 else ("dense", 1) for index in range(num_layers)],
        "mixture": [("moe", num_layers)],
        "dense then mixture": [("dense", few), ("moe", num_layers - few)],
        "unlike": [("dense", num_layers - few), ("wide", few)],
    }[shape]
    used = {name for name, _ in runs}
    return ModelSpec.load(
        {
            "name": shape,
            "hidden_size": hidden,
            "vocab_size": vocab,
            "tie_word_embeddings": tied,
            "kinds": [kind for name, kind in kinds.items() if name in used],
            "runs": [{"kind": name, "count": count} for name, count in runs],
        },
        "the test's model",
    )


def build_request(
    model: ModelSpec,
    gpus: int,
    *,
    gpu: str = "h100",
    seq_len: int = 2048,
    global_batch_size: int = 16,
    runtime: str | Runtime = "torch",
    gpus_per_node: int | None = None,
    **limits: Any,
) -> Request:
    """A request on catalog hardware, every limit as in ``Request``."""
    device = load_device(gpu)
    return Request(
        model=model,
        device=device,
        cluster=default_cluster(device, gpus, gpus_per_node),
        workload=Workload(seq_len=seq_len, global_batch_size=global_batch_size),
        runtime=runtime if isinstance(runtime, Runtime) else load_runtime(runtime),
        **limits,
    )


def with_every_policy(request: Request) -> Request:
    """The request on a runtime that keeps, narrows, recomputes and offloads in every way there is, lossy ones allowed,
    on nodes with drives."""
    overlap = request.runtime.overlap.model_copy(update={"activation_offload": 1.0, "nvme_offload": 1.0})
    runtime = request.runtime.model_copy(
        update={
            "recompute": ("none", "selective", "full"), "per_layer_recompute": True, "activation_offload": True,
            "partial_offload": True, "nvme_offload": True, "int8_activations": True, "overlap": overlap,
        }
    )  # fmt: skip
    return with_request(request, runtime=runtime, allowed=frozenset({"int8_activations"}))


def random_request(seed: int, **limits: Any) -> Request:
    """An instance of 2 to 8 devices: any shape, runtime and network, now and then slow, latent or on shared cores."""
    draw = Random(seed)
    gpus = draw.choice((2, 4, 4, 8))
    model = build_model(
        shape=draw.choice(SHAPES),
        num_layers=draw.randint(4, 7),
        hidden=draw.choice((256, 1024, 4096)),
        vocab=draw.choice((1000, 32000, 256000)),
        tied=draw.random() < 0.3,
    )
    runtime = load_runtime(draw.choice(("torch", *RUNTIMES)))
    if draw.random() < 0.2:
        eager = runtime.state.model_copy(update={"full_grads_under_pipeline": False})
        runtime = runtime.model_copy(update={"state": eager})
    request = build_request(
        model,
        gpus,
        gpu=draw.choice(("h100", "h100", "a100-80g", "rtx4090", "cpu")),
        seq_len=draw.choice((512, 2048, 8192)),
        global_batch_size=gpus * draw.choice((1, 2, 4, 8)),
        runtime=runtime,
        gpus_per_node=draw.choice((None, gpus // 2)),
        **limits,
    )
    cluster = request.cluster
    if draw.random() < 0.4:
        cluster = slower(cluster, draw.choice((1.0, 30.0)), draw.choice((0.0, 1e-4, 1e-2)))
    if request.device.vendor == "cpu":
        cluster = cluster.model_copy(update={"shared_cores": draw.choice((1, 2, 3, None))})
    return with_request(request, cluster=cluster)


def slower(cluster: ClusterSpec, times: float, latency_s: float) -> ClusterSpec:
    """The cluster with every level's bandwidth divided, and a latency added to its messages."""

    def changed(levels: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(
            level.model_copy(
                update={"bytes_per_s": level.bytes_per_s / times, "p2p_latency_s": level.latency_s + latency_s}
            )
            for level in levels
        )

    groups = tuple(group.model_copy(update={"levels": changed(group.levels)}) for group in cluster.groups)
    return cluster.model_copy(update={"groups": groups, "network": changed(cluster.network)})


def with_request(request: Request, **changes: Any) -> Request:
    """The request with some of its fields replaced."""
    return Request(**{**vars(request), **changes})


def price_space(request: Request) -> tuple[Problem, PricedLayers]:
    """All rows that the search considers, shares of the optimizer on the host included, each with its layers' costs."""
    problem = Problem.from_request(request)
    layers = price_layers(problem.setting, problem.network, enumerate_layouts(request))
    policies = tuple(sorted({policy for one in policy_sets(request) for policy in one}))
    if shares_offload(request):
        budget_bytes = claim_budget_bytes(problem.setting, request.fit_probability)
        # Shares are sized for layers as pins leave them.
        pinned = with_pins(request, problem, policies)
        held = pin_costs(price_layers(pinned.setting, pinned.network, layers.layouts), pinned.pinned)
        rows, shares = ShareSizes(request, pinned, policies, budget_bytes).of(held)
        sized = replace(layers.layouts.take(rows), optimizer_offload=shares)
        layouts = Layouts.concatenate([layers.layouts, sized])
        layers = layers.of(layouts, np.concatenate([np.arange(len(layers.layouts)), rows]))
    return problem, layers


def random_state_request(seed: int, **limits: Any) -> Request:
    """A random instance whose runtime has every shard group, every format of the optimizer, and any share of it on the
    host, now and then streamed."""
    draw = Random(seed)
    request = random_request(seed, **limits)
    runtime = request.runtime
    groups = draw.sample(("secondary", "params", "optimizer"), 2)
    state = {
        "shard_groups": tuple(groups),
        "zero_stages": (0, 1, 2, 3),
        "full_grads_under_pipeline": draw.random() < 0.5,
        "sums_replicas_once": draw.random() < 0.5,
    }
    name = draw.choice(("int8", "fp8", "low-rank"))
    changes = {
        "state": runtime.state.model_copy(update=state),
        "optimizer_offload": True,
        "partial_optimizer_offload": True,
        "streams_optimizer_state": draw.random() < 0.5,
        "optimizer_formats": ("fp32", name),
    }
    allowed = frozenset({optimizer_technique(name)}) if draw.random() < 0.5 else frozenset()
    fixed = {"zero_stage": draw.choice((2, 3, 3)), "tp": 1}
    gpus = request.cluster.num_devices
    cluster = slower(default_cluster(request.device, gpus, gpus // 2), draw.choice((1.0, 30.0)), 0.0)
    runtime = runtime.model_copy(update=changes)
    return with_request(request, runtime=runtime, allowed=allowed, fixed=fixed, cluster=cluster)


def with_budget(request: Request, budget_bytes: float) -> Request:
    """The request on devices whose memory leaves just ``budget_bytes`` for tensors at the wanted P(fits)."""
    small, large = 1e9, 1e12
    low, high = (_budget_bytes(request, memory_bytes) for memory_bytes in (small, large))
    memory_bytes = small + (budget_bytes - low) * (large - small) / (high - low)
    return with_request(request, device=request.device.model_copy(update={"memory_bytes": memory_bytes}))


def _budget_bytes(request: Request, memory_bytes: float) -> float:
    device = request.device.model_copy(update={"memory_bytes": memory_bytes})
    problem = Problem.from_request(with_request(request, device=device))
    return claim_budget_bytes(problem.setting, request.fit_probability)
