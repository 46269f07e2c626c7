"""What ``--forbid`` takes out of the space and ``--allow`` lets in, with the spellings that people use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from costmodel.schema.errors import UnknownName
from costmodel.schema.runtime import Runtime
from planner.constraints.keys import KEYS
from planner.constraints.values import schedule_name


@dataclass(frozen=True)
class Technique:
    """Values of one key that ``--forbid NAME`` takes away: ``banned``, or with None whatever is a use of it.

    ``key`` None: no part of a layout; whoever would use the technique asks for its name.
    """

    name: str
    key: str | None
    says: str
    banned: tuple[Any, ...] | None = None

    def bans(self, key: str, value: Any) -> bool:
        """Whether it takes this value of a key away."""
        if self.key is None or key != self.key:
            return False
        return value != KEYS[self.key].unused if self.banned is None else value in self.banned


def _uses(*keys: str) -> list[Technique]:
    return [Technique(name, name, KEYS[name].says) for name in keys]


_ROWS = (
    *_uses("tp", "pp", "vpp", "cp_ring", "cp_ulysses", "ep", "etp", "dp_replicate", "dp_shard", "sequence_parallel"),
    *_uses("vocab_parallel", "frozen_fill", "reshard_after_forward", "shard_params", "shard_optim"),
    Technique("mixed_context_parallel", None, "groups of unlike context-parallel degree (--lengths)"),
    Technique("recompute", "recompute", "every kind of recomputation"),
    Technique("selective", "recompute", "selective recomputation", ("selective",)),
    Technique("full", "recompute", "full recomputation", ("full",)),
    Technique("optimizer_offload", "optimizer_offload", "optimizer state on the host"),
    Technique("partial_optimizer_offload", None, "a share of the optimizer state on the host"),
    Technique("activation_offload", "activation_offload", "saved activations off the device"),
    Technique("partial_offload", "activation_offload", "a share of a layer's saved activations", ("hidden",)),
    Technique("nvme_offload", None, "saved activations on the nodes' drives"),
    Technique("zero1", "zero_stage", "sharded optimizer state", (1,)),
    Technique("zero2", "zero_stage", "sharded gradients", (2,)),
    Technique("zero3", "zero_stage", "sharded parameters", (3,)),
)

FORBIDDABLE: Mapping[str, Technique] = MappingProxyType({one.name: one for one in _ROWS})
"""Techniques that ``--forbid`` takes out of the space, beside every schedule's name and every ``KEY=VALUE``."""

ALIASES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "tensor": ("tp",),
        "pipeline": ("pp",),
        "interleaving": ("vpp",),
        "context": ("cp_ring", "cp_ulysses"),
        "cp": ("cp_ring", "cp_ulysses"),
        "ring": ("cp_ring",),
        "ring_attention": ("cp_ring",),
        "ulysses": ("cp_ulysses",),
        "expert": ("ep",),
        "expert_tensor": ("etp",),
        "data": ("dp_replicate", "dp_shard"),
        "dp": ("dp_replicate", "dp_shard"),
        "sequence": ("sequence_parallel",),
        "sp": ("sequence_parallel",),
        "recomputation": ("recompute",),
        "activation_checkpointing": ("recompute",),
        "checkpointing": ("recompute",),
        "full_recompute": ("full",),
        "full_recomputation": ("full",),
        "selective_recompute": ("selective",),
        "selective_recomputation": ("selective",),
        "offload": ("optimizer_offload", "activation_offload"),
        "cpu_offload": ("optimizer_offload", "activation_offload"),
        "nvme": ("nvme_offload",),
        "ssd": ("nvme_offload",),
        "zero": ("zero1", "zero2", "zero3"),
        "secondary_shards": ("reshard_after_forward",),
        "zero_1": ("zero1",),
        "zero_2": ("zero2",),
        "zero_3": ("zero3",),
    }
)
"""Other spellings, in lower case with underscores; ``_parallel`` and ``_parallelism`` at the end are dropped first."""


@dataclass(frozen=True)
class Lossy:
    """A technique that changes what is computed. ``runs``: whether a runtime has it."""

    name: str
    says: str
    runs: Callable[[Runtime], bool] = lambda runtime: False


def optimizer_technique(optimizer_format: str) -> str:
    """What ``--allow`` calls a format of the optimizer's moments: ``low-rank`` -> ``low_rank_optimizer``."""
    return f"{optimizer_format.replace('-', '_')}_optimizer"


def _format(name: str, says: str) -> Lossy:
    return Lossy(optimizer_technique(name), says, lambda runtime: name in runtime.optimizer_formats)


ALLOWABLE: Mapping[str, Lossy] = MappingProxyType(
    {
        one.name: one
        for one in (
            _format("int8", "the optimizer's moments in 8 bits, block by block"),
            _format("fp8", "the optimizer's moments in FP8 (COAT)"),
            _format("low-rank", "the optimizer's moments of a low-rank projection of the gradient (APOLLO)"),
            _format("bf16", "the optimizer's moments in bf16 (DeepSeek-V3)"),
            Lossy(
                "int8_activations", "saved activations in 8 bits (Mesa, COAT)", lambda runtime: runtime.int8_activations
            ),
        )
    }
)
"""Techniques that change what is computed: in the space only where ``--allow`` names them."""


def forbidden_names(text: str) -> tuple[str, ...]:
    """Canonical names of what one word forbids: a technique, several, or a schedule. Raises UnknownName."""
    word = text.strip().lower().replace("-", "_").replace(" ", "_")
    for name in (word, word.removesuffix("ism").removesuffix("_parallel")):
        if name in FORBIDDABLE:
            return (name,)
        if name in ALIASES:
            return ALIASES[name]
    try:
        return (schedule_name(text),)
    except UnknownName:
        from planner.schedules import SCHEDULES

        raise UnknownName("technique in --forbid", text, (*FORBIDDABLE, *ALIASES, *SCHEDULES)) from None


def allowed_name(text: str) -> str:
    """The canonical name of a lossy technique. Raises UnknownName."""
    name = text.strip().lower().replace("-", "_")
    if name not in ALLOWABLE:
        raise UnknownName("technique in --allow", text.strip(), tuple(ALLOWABLE))
    return name
