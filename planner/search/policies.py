"""Which per-layer policies a request leaves to choose from, and which of them may be mixed in one model."""

from __future__ import annotations

from costmodel.layouts import POLICIES
from costmodel.schema.errors import InvalidSpec
from planner.constraints.rows import admits
from planner.request import Request


def policy_sets(request: Request) -> tuple[tuple[int, ...], ...]:
    """Sets of indices into POLICIES; a placement draws from one set. Runtimes without per-layer choice get singletons.

    Raises InvalidSpec when --fix and --forbid leave no policy.
    """
    runtime = request.runtime
    offload = runtime.activation_offload and request.device.vendor != "cpu"
    found = tuple(
        index
        for index, policy in enumerate(POLICIES)
        if policy.recompute in runtime.recompute
        and (offload or not policy.offload)
        and admits(request, "recompute", policy.recompute)
        and admits(request, "activation_offload", policy.offload)
    )
    if not found:
        raise InvalidSpec(
            f"recompute: --fix and --forbid leave nothing of what the runtime {runtime.name} can do",
            f"it can do {', '.join(runtime.recompute)}",
        )
    return (found,) if runtime.per_layer_recompute else tuple((policy,) for policy in found)
