"""What becomes of a layer's saved activations under each policy: kept, recomputed, or sent to the host and back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from costmodel.layouts import POLICIES, Column
from costmodel.ops import QUERY_KEY_VALUE, Elementwise, Gemm, Lowered, Modules, Op, Setting, Split

OFFLOAD_BUFFERS = 2.0
"""Layers' worth of activations that wait on the device while their copy is under way (double buffering)."""

_FUSED_OUTPUTS = ("attention output", "log-sum-exp")
"""What a fused attention kernel leaves behind; every policy but full keeps it."""

COLUMNS = ("recompute_s", "offload_s", "saved_bytes", "host_bytes", "working_bytes", "pending_bytes", "sent_again")


@dataclass
class Again:
    """What recomputing the runtime's modules takes, gathered while a layer is priced.

    ``seconds``: [u] of the forward pass; ``sent_bytes``: [u, L]; ``dropped_bytes``: [u] of saved tensors.
    ``projected_s``, ``last_s``: [u] of the products that make queries, keys and values, and of one that ends the layer.
    Source: Megatron-Core's argument reference, --recompute-modules.
    """

    modules: frozenset[str]
    seconds: Column
    sent_bytes: Column
    dropped_bytes: Column
    projected_s: Column
    last_s: Column

    @classmethod
    def of(cls, lowered: Lowered, setting: Setting, split: Split, num_levels: int) -> Again:
        """Nothing to run yet; what the modules' saved tensors hold is known."""
        modules = frozenset(setting.runtime.recompute_modules)
        zero = np.zeros(split.tp.shape)
        dropped = zero + np.sum([one.num_bytes for one in lowered.saved if modules.intersection(one.modules)], axis=0)
        return cls(modules, zero.copy(), np.zeros((*zero.shape, num_levels)), dropped, zero.copy(), zero.copy())

    def add_op(self, op: Op, seconds: Column) -> None:
        """One op of the forward pass."""
        self.add(op.modules, seconds)
        if isinstance(op, Gemm) and op.trains:
            self.last_s += np.where(op.ends_layer, seconds, 0.0)
            self.projected_s += np.where(op.name == "qkv", seconds, 0.0)

    def add(self, modules: Modules, seconds: Column | float, sent_bytes: Column | float = 0.0) -> None:
        """One op or transfer of the forward pass, counted where it is part of a recomputed module."""
        if self.modules.intersection(modules):
            self.seconds += seconds
            self.sent_bytes += sent_bytes


def price_policies(
    lowered: Lowered, forward: dict[str, Column], setting: Setting, split: Split, sent_forward: Column, again: Again
) -> dict[str, Column]:
    """Recomputation and offload seconds, and the bytes that each policy keeps, [u, P] by column name.

    full: keep the layer's input, run the whole forward again. selective: by the runtime, the core of unfused
    attention again; or the modules that it names; or everything but queries, keys and values; or everything
    but matrix products, attention and reduce-scatters; or of the products, too, every second.
    A recomputed layer's last product is left out where the runtime stops early: nothing reads its output.
    offload: keep nothing on the device but two layers' worth in flight; the copy out must hide behind the
    forward, the copy in behind the backward, as far as the runtime overlaps it.
    pending: what a split backward keeps from input gradient to weight gradient - the gradients at the outputs of
    trained matmuls and norms, and whatever was recomputed.
    """
    shape = split.tp.shape
    runtime, zero = setting.runtime, np.zeros(shape)
    whole = np.sum([saved.num_bytes for saved in lowered.saved], axis=0) if lowered.saved else zero
    working = 2.0 * np.max(lowered.working_bytes, axis=0) if lowered.working_bytes else zero
    entry = split.resident_tokens * setting.model.hidden_size * setting.activation_bytes
    forward_s = np.sum(list(forward.values()), axis=0)
    full_s = forward_s - again.last_s * runtime.stops_recompute_early
    if runtime.selective_recomputes == "core-attention":
        dropped = np.sum([saved.num_bytes for saved in lowered.saved if saved.core_attention], axis=0) + zero
        again_s = forward["attention"] if runtime.kernels.attention == "unfused" else zero
        sent_selective = np.zeros_like(sent_forward)
    elif runtime.selective_recomputes == "modules":
        dropped, again_s, sent_selective = again.dropped_bytes, again.seconds, again.sent_bytes
    elif runtime.selective_recomputes == "all-but-qkv":
        kept = np.sum([saved.num_bytes for saved in lowered.saved if saved.name == QUERY_KEY_VALUE], axis=0)
        dropped = np.maximum(whole - entry - kept, 0.0)
        again_s, sent_selective = full_s - again.projected_s, sent_forward
    else:
        dropped = np.maximum(
            np.sum([saved.num_bytes for saved in lowered.saved if not saved.matmul_output], axis=0) + zero - entry, 0.0
        )
        again_s = forward["elementwise"] + 0.5 * forward["tp"]
        sent_selective = 0.5 * sent_forward
        if runtime.selective_recomputes == "every-second-matmul":
            products = [
                saved.num_bytes for saved in lowered.saved if saved.matmul_output and saved.name not in _FUSED_OUTPUTS
            ]
            dropped = dropped + 0.5 * (np.sum(products, axis=0) + zero)
            again_s = again_s + 0.5 * forward["gemm"]
    outputs = [op.m * op.n * op.batch for op in lowered.ops if isinstance(op, Gemm) and op.trains]
    at_outputs = zero + np.sum(outputs, axis=0) * setting.activation_bytes
    if setting.model.trains == "full":
        # Half of what a norm moves is its output.
        at_outputs = at_outputs + 0.5 * sum(
            op.forward_bytes for op in lowered.ops if isinstance(op, Elementwise) and op.name in ("norm", "final norm")
        )
    columns: dict[str, list[Column]] = {name: [] for name in COLUMNS}
    for policy in POLICIES:
        saved = {"none": whole, "selective": whole - dropped, "full": np.minimum(entry, whole)}[policy.recompute]
        columns["recompute_s"].append({"none": zero, "selective": again_s, "full": full_s}[policy.recompute])
        columns["offload_s"].append(_offload_exposed_s(saved * policy.offload, forward_s, setting))
        columns["saved_bytes"].append(saved * (1.0 - policy.offload))
        columns["host_bytes"].append(saved * policy.offload)
        columns["working_bytes"].append(working + (whole - saved) + OFFLOAD_BUFFERS * saved * policy.offload)
        columns["pending_bytes"].append(at_outputs + whole - saved)
        sent = {"none": np.zeros_like(sent_forward), "selective": sent_selective, "full": sent_forward}
        columns["sent_again"].append(sent[policy.recompute])
    return {name: np.stack(values, axis=1) for name, values in columns.items()}


def _offload_exposed_s(num_bytes: Column, forward_s: Column, setting: Setting) -> Column:
    """Copy time that forward (out) and backward (in, taken as long as the forward at least) do not hide."""
    link = setting.host_link_bytes_per_s
    copy_s = num_bytes / link
    return 2.0 * np.maximum(copy_s - setting.overlap.activation_offload * forward_s, 0.0)
