"""What a request admits of a step of mixed lengths: what all groups have in common, and the shapes of a group."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from costmodel.layouts import POLICIES
from costmodel.schema.errors import InvalidSpec
from costmodel.schema.layout import AXES
from planner.constraints import KEYS
from planner.constraints.rows import admits, constrained_keys
from planner.request import Request
from planner.search.policies import policy_sets
from planner.search.rules import divisors, head_limits

DECIDED = (
    "tp", "ep", "cp", "cp_ring", "cp_ulysses", "zero_stage", "recompute", "activation_offload", "sequence_parallel",
)  # fmt: skip
"""Keys of --fix and --limit that choose among bases and shapes. Others have one value, or one for each group."""


@dataclass(frozen=True)
class Base:
    """What all groups have in common. Experts are spread over the tensor ranks of a group, or not at all: groups that
    run unlike numbers of micro-batches share neither stages nor experts.
    """

    tp: int
    ep: int
    zero_stage: int
    policy: int


def check_constraints(request: Request) -> None:
    """Raises InvalidSpec where a constraint asks for what groups differ in, or for what no plan of groups has."""
    if request.pins:
        raise InvalidSpec(f"--fix {request.pins[0]}: with --lengths all layers are alike")
    used: dict[str, Any] = {"order": AXES, "schedule": "1f1b"}
    for name in constrained_keys(request):
        value = used.get(name, KEYS[name].unused)
        if name in DECIDED or (value is not None and admits(request, name, value)):
            continue
        why = "groups differ in it" if value is None or name in ("dp", "dp_shard", "dp_replicate") else "it is not used"
        raise InvalidSpec(f"{name} cannot be constrained with --lengths: {why}", f"it takes {', '.join(DECIDED)}")


def bases(request: Request) -> Iterator[Base]:
    """Tensor-parallel degree inside a node, experts over as many ranks, stage 0 or 1, one policy for all layers."""
    world, inner = request.cluster.num_devices, int(request.cluster.levels[0].size)
    limits = head_limits(request)
    degrees = [tp for tp in divisors(world) if limits.heads % tp == 0 and tp <= inner]
    stages = [stage for stage in request.runtime.state.zero_stages if stage < 2]
    # A share that hides is another one for each group's degrees: no one policy for all layers.
    policies = dict.fromkeys(
        policy for options in policy_sets(request) for policy in options if POLICIES[policy].offload != "hidden"
    )
    for tp in _left(request, "tp", degrees):
        spread = limits.experts and limits.experts % tp == 0 and request.runtime.expert_parallel
        for ep in _left(request, "ep", sorted({1, tp}) if spread else [1]):
            for stage in _left(request, "zero_stage", stages):
                if stage == 0 or tp < world:
                    yield from (Base(tp, ep, stage, policy) for policy in policies)


def group_shapes(request: Request, tp: int) -> Iterator[tuple[int, int]]:
    """(ring, Ulysses): powers of two whose product divides the ranks that tensor parallelism leaves."""
    ranks, heads = request.cluster.num_devices // tp, head_limits(request).heads
    context = request.runtime.context_parallel
    powers = [d for d in divisors(ranks) if d & (d - 1) == 0]
    for ring in _left(request, "cp_ring", powers if "ring" in context else [1]):
        for ulysses in _left(request, "cp_ulysses", powers if "ulysses" in context else [1]):
            fits = ranks % (ring * ulysses) == 0 and heads % (tp * ulysses) == 0
            if fits and admits(request, "cp", ring * ulysses):
                yield ring, ulysses


def splits_sequences(request: Request) -> bool:
    """Whether tensor ranks split the sequence between blocks: wherever the runtime and the request let them."""
    return request.runtime.sequence_parallel != "never" and admits(request, "sequence_parallel", True)


def _left(request: Request, name: str, values: Sequence[int]) -> list[int]:
    return [value for value in values if admits(request, name, value)]
