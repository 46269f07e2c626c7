"""What becomes of a layer's saved activations under each policy: kept, recomputed, narrowed, or sent away and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import numpy as np

from costmodel.layouts import POLICIES, Column
from costmodel.lowering.casts import is_narrow
from costmodel.offload import OFFLOAD_BUFFERS, estimate_copies, estimate_narrowed
from costmodel.ops import QUERY_KEY_VALUE, Elementwise, Gemm, Lowered, Modules, Op, Setting, Split
from costmodel.schema.layout import RecomputePolicy

_FUSED_OUTPUTS = ("attention output", "log-sum-exp")
"""What a fused attention kernel leaves behind; every policy but full keeps it."""

RECOMPUTES: tuple[RecomputePolicy, ...] = get_args(RecomputePolicy)


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
        dropped = sum((one.num_bytes for one in lowered.saved if modules.intersection(one.modules)), zero)
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
    """What each policy takes and keeps, [u, P] by column name: ``estimate_recomputed`` says what is left to save,
    ``estimate_narrowed`` in how few bits, ``estimate_copies`` how much of it leaves the device.

    working: the layer's own transients, what is recomputed, what waits for a copy, and a tensor that is widened again.
    pending: what a split backward keeps beside ``saved_bytes`` from input gradient to weight gradient.
    """
    policies = POLICIES[: setting.num_policies]
    zero = np.zeros(split.tp.shape)
    left = estimate_recomputed(lowered, forward, setting, split, sent_forward, again)
    narrowed = estimate_narrowed(lowered, setting, zero)
    code = [RECOMPUTES.index(policy.recompute) for policy in policies]
    narrow = np.array([policy.saved_dtype == "int8" for policy in policies])
    whole, saved = left.saved_bytes[:, :1], left.saved_bytes[:, code]
    # Of what recomputation leaves, as large a part is narrowed as of the whole.
    part = narrow * saved / np.maximum(whole, 1.0)
    held = saved - part * narrowed.spared_bytes[:, None]
    copies = estimate_copies(held, sum(forward.values(), zero), setting)
    working = 2.0 * np.max(lowered.working_bytes, axis=0) if lowered.working_bytes else zero
    return {
        "recompute_s": left.seconds[:, code],
        "offload_s": copies.exposed_s,
        "narrow_s": part * narrowed.cast_s[:, None],
        "saved_bytes": held - copies.away_bytes,
        "host_bytes": copies.host_bytes,
        "nvme_bytes": copies.nvme_bytes,
        "working_bytes": working[:, None]
        + (whole - saved)
        + OFFLOAD_BUFFERS * copies.away_bytes
        + narrow * narrowed.widened_bytes[:, None],
        "pending_bytes": _pending_bytes(lowered, setting, whole, saved),
        "sent_again": left.sent_bytes[:, code],
    }


def _pending_bytes(lowered: Lowered, setting: Setting, whole: Column, saved: Column) -> Column:
    """[u, P] what a layer keeps from input gradient to weight gradient beside the ``saved`` bytes [u, P] of ``whole``.

    The gradients at the outputs of trained products and norms, and whatever was recomputed. Where the runtime puts off
    the products alone, their inputs and the gradients at their outputs, less what is freed of what was saved, and no
    less than nothing. Narrow products read narrow gradients where the runtime keeps them so.
    Source: DualPipe's published code, dualpipe/utils.py (WeightGradStore), 2025.
    """
    rules = setting.runtime.kernels.narrow_saves if is_narrow(setting) else None
    narrow = setting.activation_bytes if rules is None else rules.product_inputs
    gradients = np.zeros(len(whole)) + sum(
        op.m * op.n * op.batch * (setting.activation_bytes if op.wide else narrow)
        for op in lowered.ops
        if isinstance(op, Gemm) and op.trains
    )
    if setting.runtime.defers_operands:
        inputs = [one.num_bytes for one in lowered.saved if one.narrow in ("product_inputs", "attention_output")]
        operands = gradients + np.sum(inputs, axis=0)
        return np.asarray(np.maximum(operands[:, None] - saved, 0.0))
    if setting.model.trains == "full":
        # Half of what a norm moves is its output.
        gradients = gradients + 0.5 * sum(
            op.forward_bytes for op in lowered.ops if isinstance(op, Elementwise) and op.name in ("norm", "final norm")
        )
    return gradients[:, None] + whole - saved


@dataclass(frozen=True)
class Recomputed:
    """By RECOMPUTES: bytes still saved and seconds of the forward again, [u, 3]; bytes sent again, [u, 3, L]."""

    saved_bytes: Column
    seconds: Column
    sent_bytes: Column


def estimate_recomputed(
    lowered: Lowered, forward: dict[str, Column], setting: Setting, split: Split, sent_forward: Column, again: Again
) -> Recomputed:
    """What recomputation leaves to save, and what it costs.

    full: keep the layer's input, run the whole forward again. selective: by the runtime, the core of unfused
    attention again; or the modules that it names; or everything but queries, keys and values; or everything
    but matrix products, attention and reduce-scatters; or of the products, too, every second.
    A recomputed layer's last product is left out where the runtime stops early: nothing reads its output.
    """
    runtime, zero = setting.runtime, np.zeros(split.tp.shape)
    whole = sum((saved.num_bytes for saved in lowered.saved), zero)
    entry = split.resident_tokens * setting.model.hidden_size * setting.activation_bytes
    forward_s = sum(forward.values(), zero)
    full_s = forward_s - again.last_s * runtime.stops_recompute_early
    if runtime.selective_recomputes == "core-attention":
        dropped = sum((saved.num_bytes for saved in lowered.saved if saved.core_attention), zero)
        again_s = forward["attention"] if runtime.kernels.attention == "unfused" else zero
        sent_selective = np.zeros_like(sent_forward)
    elif runtime.selective_recomputes == "modules":
        dropped, again_s, sent_selective = again.dropped_bytes, again.seconds, again.sent_bytes
    elif runtime.selective_recomputes == "all-but-qkv":
        kept = sum((saved.num_bytes for saved in lowered.saved if saved.name == QUERY_KEY_VALUE), zero)
        dropped = np.maximum(whole - entry - kept, 0.0)
        again_s, sent_selective = full_s - again.projected_s, sent_forward
    else:
        dropped = sum((saved.num_bytes for saved in lowered.saved if not saved.matmul_output), zero)
        dropped = np.maximum(dropped - entry, 0.0)
        again_s = forward["elementwise"] + 0.5 * forward["tp"]
        sent_selective = 0.5 * sent_forward
        if runtime.selective_recomputes == "every-second-matmul":
            products = [
                saved.num_bytes for saved in lowered.saved if saved.matmul_output and saved.name not in _FUSED_OUTPUTS
            ]
            dropped = dropped + 0.5 * sum(products, zero)
            again_s = again_s + 0.5 * forward["gemm"]
    return Recomputed(
        saved_bytes=np.stack([whole, whole - dropped, np.minimum(entry, whole)], axis=1),
        seconds=np.stack([zero, again_s, full_s], axis=1),
        sent_bytes=np.stack([np.zeros_like(sent_forward), sent_selective, sent_forward], axis=1),
    )
