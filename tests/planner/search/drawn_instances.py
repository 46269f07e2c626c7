"""Random instances of every kind of choice that the search has, cut down until exhaustive search can try them all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import numpy as np
from small_instances import (
    build_model,
    price_space,
    random_request,
    random_state_request,
    with_budget,
    with_every_policy,
    with_request,
)
from small_mixed import random_mixed

from costmodel.catalog.runtimes import load_runtime
from costmodel.even_split import uniform_assignment
from costmodel.layouts import POLICIES, SCHEDULE_CODES
from costmodel.memory import HOST_SHARE
from costmodel.price import price
from costmodel.schedules import SCHEDULES
from costmodel.schema.model import FrozenPart, LayerRun
from planner.constraints import LayerPin, Pinned
from planner.problem import Problem
from planner.request import Request
from planner.search.groups.space import enumerate_mixed
from planner.search.policies import OFFLOAD_VALUES, policy_sets
from planner.search.space import enumerate_layouts

MOST_ROWS = 30
CUT_BY = (
    "schedule", "tp", "pp", "vpp", "cp_ulysses", "cp_ring", "ep", "etp", "micro_batch_size", "zero_stage", "dp_shard",
)  # fmt: skip
"""Columns that are fixed, in random order, at the values of some layout until few layouts are left."""

MOST_POLICIES = 5
"""Of the policies per layer, how many an instance is left at most: what is tried grows with a high power of it."""

ROOM = (-0.03, 0.01, 0.05, 0.15, 0.4)
"""Memory where it is short: the way from the leanest to the greediest layout."""


@dataclass(frozen=True)
class Instance:
    kind: str
    seed: int
    request: Request


def every_policy(seed: int) -> Request:
    """Keeping, narrowing, recomputing and offloading in every way, on hosts and drives that may be too small."""
    draw = Random(seed)
    request = with_every_policy(random_request(seed))
    if request.device.vendor == "cpu":
        return request
    problem, layers = price_space(request)
    columns = [getattr(layers.costs, name)[:, : problem.num_kinds] for name in ("host_bytes", "nvme_bytes")]
    # What all layers of one micro-batch put there at most.
    host, drives = (float(column.max()) * len(problem.kinds) for column in columns)
    group = request.cluster.groups[0]
    scale = group.devices_per_node / HOST_SHARE
    changed = group.host.model_copy(
        update={
            "memory_bytes": max(host * scale * draw.choice((0.05, 0.2, 0.5, 2.0, 50.0)), 1e6),
            "nvme_bytes": drives * scale * draw.choice((0.0, 0.05, 0.2, 1.0, 50.0)),
            "nvme_bytes_per_s": draw.choice((1e9, 12e9)),
        }
    )
    groups = (group.model_copy(update={"host": changed}), *request.cluster.groups[1:])
    return with_request(request, cluster=request.cluster.model_copy(update={"groups": groups}))


def pipelines(seed: int) -> Request:
    """Two or more stages under two or three of all schedules, the vocabulary split over them or not; now and then of so
    few layers that ends make stages of their own."""
    draw, few = Random(seed), Random(f"few layers {seed}")
    request = random_request(seed)
    if few.random() < 0.25:
        kind = request.model.kinds[0]
        runs = (LayerRun(kind=kind.name, count=few.choice((2, 3))),)
        request = with_request(request, model=request.model.model_copy(update={"kinds": (kind,), "runs": runs}))
    runtime = request.runtime.model_copy(
        update={
            "schedules": tuple(SCHEDULES), "interleaves_any_number": draw.random() < 0.5,
            "vocab_parallel": load_runtime("megatron").vocab_parallel, "uneven_stages": draw.random() < 0.7,
        }
    )  # fmt: skip
    request = with_request(request, runtime=runtime)
    for _ in range(50):
        names = tuple(sorted(draw.sample(SCHEDULE_CODES, draw.choice((1, 2, 3)))))
        tried = with_request(request, schedules=names, fixed={"pp": draw.choice((2, 2, 4))})
        if len(enumerate_layouts(tried)):
            return tried
    return with_request(request, fixed={"pp": 2})


def frozen_parts(seed: int) -> Request:
    """A network behind frozen encoders, small or large beside it, which may run in the bubbles of all schedules."""
    draw = Random(seed)
    request = pipelines(seed)
    encoder = build_model(num_layers=draw.choice((1, 3)), hidden=draw.choice((64, 512, 2048)), vocab=1000)
    encoder = encoder.model_copy(update={"trains": "frozen", "has_head": False})
    parts = [FrozenPart(model=encoder, seq_len=draw.choice((64, 1024))) for _ in range(draw.choice((1, 1, 2)))]
    return with_request(
        request,
        model=request.model.model_copy(update={"frozen_parts": tuple(parts)}),
        runtime=request.runtime.model_copy(update={"frozen_fill": True}),
    )


def pins(seed: int) -> Request:
    """Some layers' policies, the stages' lengths, or both as the user wants them."""
    draw = Random(seed)
    request = with_few_policies(draw.choice((random_request, every_policy, pipelines))(seed), draw)
    total, sets = request.model.num_layers, policy_sets(request)
    policies = [POLICIES[index] for index in draw.choice(sets)]
    found = []
    if request.runtime.per_layer_recompute and draw.random() < 0.8:
        for _ in range(draw.choice((1, 2))):
            first, policy = draw.randrange(total), draw.choice(policies)
            last = draw.randint(first, total - 1)
            if any(first <= pin.last and pin.first <= last for pin in found):
                continue
            pin = LayerPin("recompute", first, last, policy.recompute)
            if policy.offload != "none" and draw.random() < 0.5:
                pin = LayerPin("activation_offload", first, last, OFFLOAD_VALUES[policy.offload])
            found.append(pin)
    request = with_request(request, pins=tuple(found))
    layouts = enumerate_layouts(request)
    if found and draw.random() < 0.5:
        return request
    stages = draw.choice((layouts.pp * layouts.vpp).tolist())
    alone = int(stages > total)
    cuts = sorted(draw.sample(range(1 - alone, total + alone), stages - 1))
    lengths = tuple(np.diff([0, *cuts, total]).tolist())
    named = with_request(request, fixed={**request.fixed, "layers_per_stage": lengths})
    return named if len(enumerate_layouts(named)) else request


def everything(seed: int) -> Request:
    """State as in ``random_state_request`` with every policy, and now and then every schedule."""
    draw = Random(seed)
    request = with_every_policy(random_state_request(seed))
    changed = request.cluster.groups[0].host.model_copy(update={"nvme_bytes": 1e12, "nvme_bytes_per_s": 6e9})
    groups = tuple(group.model_copy(update={"host": changed}) for group in request.cluster.groups)
    request = with_request(request, cluster=request.cluster.model_copy(update={"groups": groups}))
    request = with_request(request, allowed=request.allowed | {"int8_activations"})
    names = tuple(sorted(draw.sample(SCHEDULE_CODES, 3)))
    runtime = request.runtime.model_copy(update={"schedules": ("1f1b", *names)})
    return with_request(request, runtime=runtime)


KINDS: dict[str, Callable[[int], Request]] = {
    "as runtimes are": random_request,
    "state": random_state_request,
    "activations": every_policy,
    "pipelines": pipelines,
    "frozen parts": frozen_parts,
    "pins": pins,
    "everything": everything,
    "two kinds of node": random_mixed,
}
"""What an instance has that others may lack."""


def draw_instance(seed: int, cut: bool = True, kind: str | None = None, **limits: Any) -> Instance:
    """Kinds take turns, unless one is named. Memory is ample, short or too small; --gap is 0, 1% or 5%. ``cut``: few
    layouts are left."""
    draw = Random(seed)
    kind = kind or tuple(KINDS)[seed % len(KINDS)]
    request = with_few_policies(KINDS[kind](seed), draw)
    if cut:
        request = cut_down(request, draw)
    limits = {"gap": draw.choice((0.0, 0.0, 0.01, 0.05)), "top": 0, "time_limit_s": 600.0, **limits}
    request = with_request(request, **limits)
    if draw.random() < 0.25:
        return Instance(kind, seed, request)
    short = smaller_devices if request.other_devices else short_of_memory
    return Instance(kind, seed, short(request, draw))


def smaller_devices(request: Request, draw: Random) -> Request:
    """Every device with some of its memory."""
    devices = [
        one.model_copy(update={"memory_bytes": one.memory_bytes * draw.choice((0.05, 0.1, 0.2, 0.5))})
        for one in (request.device, *request.other_devices)
    ]
    return with_request(request, device=devices[0], other_devices=tuple(devices[1:]))


def with_few_policies(request: Request, draw: Random) -> Request:
    """The request with techniques forbidden until few policies per layer are left."""
    for name in draw.sample(("selective", "nvme_offload", "full", "int8_activations"), 4):
        if max(map(len, policy_sets(request))) <= MOST_POLICIES:
            break
        changes = (
            {"allowed": request.allowed - {name}}
            if name == "int8_activations"
            else {"forbidden": request.forbidden | {name}}
        )
        request = with_request(request, **changes)
    return request


def cut_down(request: Request, draw: Random) -> Request:
    """One column after another fixed at the value of some layout until few layouts are left."""
    every = enumerate_mixed if request.other_devices else enumerate_layouts
    layouts = every(request)
    like = layouts.take([draw.randrange(len(layouts))])
    for name in draw.sample(CUT_BY, len(CUT_BY)):
        if len(every(request)) <= MOST_ROWS:
            break
        if name not in request.fixed:
            value = like.schedule_name(0) if name == "schedule" else int(getattr(like, name)[0])
            request = with_request(request, fixed={**request.fixed, name: value})
    return request


def short_of_memory(request: Request, draw: Random) -> Request:
    """Memory between what the leanest and the greediest layout claim, of those with one policy for all layers."""
    problem, layers = price_space(request)
    policies = sorted({policy for one in policy_sets(request) for policy in one})
    uniform = (uniform_assignment(problem.kinds, problem.num_kinds, layers.layouts, policy) for policy in policies)
    claims = np.concatenate([price(layers, one).peak_claim_bytes for one in uniform])
    leanest, greediest = float(claims.min()), float(claims.max())
    short = with_budget(request, leanest + draw.choice(ROOM) * (greediest - leanest))
    return short if short.device.memory_bytes > 0 else request


def open_policies(request: Request) -> tuple[tuple[int, ...], ...]:
    """The policies that each layer's pins leave it; empty where there are none."""
    if not request.pins:
        return ()

    def admits(pin: LayerPin, policy: int) -> bool:
        one = POLICIES[policy]
        return (one.recompute if pin.key == "recompute" else OFFLOAD_VALUES[one.offload]) == pin.value

    return tuple(
        tuple(
            policy
            for policy in range(len(POLICIES))
            if all(admits(pin, policy) for pin in request.pins if pin.first <= layer <= pin.last)
        )
        for layer in range(request.model.num_layers)
    )


def settled(request: Request) -> Problem:
    """The problem as it is priced, with the stages' lengths where the user says so."""
    lengths = tuple(request.fixed.get("layers_per_stage", ()))
    return replace(Problem.from_request(request), pinned=Pinned(lengths=lengths))
