"""The table of what can be pinned: a row makes a key of ``--fix``, ``--limit`` and the constraints file.

A new column of ``Layout`` needs a row here, and nothing else in this package: parsing, help, validation against the
runtime and the reference in docs/constraints.md follow from the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, get_args

from costmodel.schema.layout import OptimizerFormat
from costmodel.schema.runtime import Runtime
from planner.constraints.values import Choice, Flag, Lengths, Order, ScheduleName, Share, Values, Whole


def _any(runtime: Runtime, value: Any) -> bool:
    return True


def _none_yet(runtime: Runtime, value: Any) -> bool:
    return not value


@dataclass(frozen=True)
class Key:
    """One key. ``says``: what a value above ``unused`` is.

    ``unused``: the value that stands for not using it; None where every value is a use of something.
    ``runs``: whether a runtime can run a value. ``per_layer``: it may hold for a range of layers, as
    ``recompute.0-3``; such keys are choices inside a layout, not columns of ``Layouts``.
    """

    name: str
    values: Values
    says: str
    unused: Any = None
    runs: Callable[[Runtime, Any], bool] = _any
    per_layer: bool = False


_ROWS = (
    Key("tp", Whole(), "tensor parallelism", 1),
    Key("pp", Whole(), "pipeline parallelism", 1),
    Key("vpp", Whole(), "several model chunks on a rank", 1),
    Key("cp", Whole(), "context parallelism, ring and all-to-all together", 1,
        lambda runtime, value: value == 1 or bool(runtime.context_parallel)),
    Key("cp_ring", Whole(), "ring context parallelism", 1,
        lambda runtime, value: value == 1 or "ring" in runtime.context_parallel),
    Key("cp_ulysses", Whole(), "all-to-all context parallelism", 1,
        lambda runtime, value: value == 1 or "ulysses" in runtime.context_parallel),
    Key("ep", Whole(), "expert parallelism", 1, lambda runtime, value: value == 1 or runtime.expert_parallel),
    Key("etp", Whole(), "tensor parallelism inside experts", 1,
        lambda runtime, value: value == 1 or runtime.expert_tensor_parallel),
    Key("dp", Whole(), "data parallelism, replicated and sharded together", 1),
    Key("dp_replicate", Whole(), "replicated data parallelism", 1),
    Key("dp_shard", Whole(), "sharded data parallelism", 1),
    Key("micro_batch_size", Whole(), "sequences in a micro-batch"),
    Key("num_microbatches", Whole(), "micro-batches of a rank in a step"),
    Key("zero_stage", Choice((0, 1, 2, 3)), "sharded state: 1 optimizer, 2 and gradients, 3 and parameters", 0,
        lambda runtime, value: value in runtime.state.zero_stages),
    Key("sequence_parallel", Flag(), "sequence parallelism beside tensor parallelism", False,
        lambda runtime, value: runtime.sequence_parallel != ("never" if value else "always")),
    Key("shard_params", Whole(0), "ranks that share parameters, where the ZeRO stage does not say", 0,
        lambda runtime, value: not value or "params" in runtime.state.shard_groups),
    Key("shard_grads", Whole(0), "ranks that share gradients, where the ZeRO stage does not say", 0, _none_yet),
    Key("shard_optim", Whole(0), "ranks that share optimizer state, where the ZeRO stage does not say", 0,
        lambda runtime, value: not value or "optimizer" in runtime.state.shard_groups),
    Key("reshard_after_forward", Whole(0), "ranks that keep gathered parameters split until the backward", 0,
        lambda runtime, value: not value or "secondary" in runtime.state.shard_groups),
    Key("vocab_parallel", Flag(), "embedding and head split over all pipeline ranks", False,
        lambda runtime, value: not value or runtime.vocab_parallel is not None),
    Key("frozen_fill", Flag(), "frozen parts run in the pipeline's bubbles", False,
        lambda runtime, value: not value or runtime.frozen_fill),
    Key("first_group", Whole(0), "the group of nodes that holds the first pipeline ranks", 0),
    Key("optimizer_format", Choice(get_args(OptimizerFormat)), "how the optimizer keeps its moments", "fp32",
        lambda runtime, value: value in runtime.optimizer_formats),
    Key("order", Order(), "the mesh order: which axis lies on the nearest devices"),
    Key("optimizer_offload", Share(), "share of the optimizer on the host", 0.0,
        lambda runtime, value: value == 0 or (runtime.optimizer_offload and (
            value == 1 or runtime.partial_optimizer_offload))),
    Key("schedule", ScheduleName(), "the pipeline schedule", None, lambda runtime, value: value in runtime.schedules),
    Key("layers_per_stage", Lengths(), "how many layers each stage holds, in model order", None,
        lambda runtime, value: (runtime.uneven_stages or len(set(value)) == 1) and (
            runtime.ends_without_layers or min(value) > 0)),
    Key("recompute", Choice(("none", "selective", "full")), "what is computed again in the backward", "none",
        lambda runtime, value: value in runtime.recompute, per_layer=True),
    Key("activation_offload", Choice((0, "hidden", 1)),
        "saved activations off the device: none, what hides behind the layer's passes, or all", 0,
        lambda runtime, value: value == 0 or (runtime.activation_offload and (value == 1 or runtime.partial_offload)),
        per_layer=True),
)  # fmt: skip

KEYS: Mapping[str, Key] = MappingProxyType({key.name: key for key in _ROWS})

WORLD = ("tp", "pp", "cp_ring", "cp_ulysses", "dp_replicate", "dp_shard")
"""The degrees whose product is the number of devices."""
