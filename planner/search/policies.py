"""Which per-layer policies a request leaves to choose from, and which of them may be mixed in one model."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from costmodel.layouts import POLICIES, Policy
from costmodel.schema.errors import InvalidSpec
from planner.constraints.rows import admits
from planner.request import Request

OFFLOAD_VALUES: Mapping[str, int | str] = MappingProxyType({"none": 0, "hidden": "hidden", "all": 1})
"""What the key ``activation_offload`` is for each share that a policy sends away."""


def policy_sets(request: Request) -> tuple[tuple[int, ...], ...]:
    """Sets of indices into POLICIES; a placement draws from one set. Runtimes without per-layer choice get singletons.

    Raises InvalidSpec when --fix and --forbid leave no policy.
    """
    runtime = request.runtime
    found = tuple(
        index
        for index, policy in enumerate(POLICIES)
        if policy.recompute in runtime.recompute
        and admits(request, "recompute", policy.recompute)
        and admits(request, "activation_offload", OFFLOAD_VALUES[policy.offload])
        and _has_offload(request, policy)
        and _has_dtype(request, policy)
    )
    if not found:
        raise InvalidSpec(
            f"recompute: --fix and --forbid leave nothing of what the runtime {runtime.name} can do",
            f"it can do {', '.join(runtime.recompute)}",
        )
    return (found,) if runtime.per_layer_recompute else tuple((policy,) for policy in found)


def _has_offload(request: Request, policy: Policy) -> bool:
    """Whether runtime, nodes and request have the policy's offload. On a processor there is nowhere to go."""
    if policy.offload == "none":
        return True
    runtime, hosts = request.runtime, [group.host for group in request.cluster.groups]
    if not runtime.activation_offload or request.device.vendor == "cpu":
        return False
    if not runtime.partial_offload and (policy.offload == "hidden" or policy.recompute != "none"):
        return False
    if policy.offload_to == "host":
        return True
    drives = all(host.nvme_bytes > 0 and host.nvme_bytes_per_s > 0 for host in hosts)
    return drives and runtime.nvme_offload and "nvme_offload" not in request.forbidden


def _has_dtype(request: Request, policy: Policy) -> bool:
    allowed = request.runtime.int8_activations and "int8_activations" in request.allowed
    return policy.saved_dtype == "as-computed" or allowed
