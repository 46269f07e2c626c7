"""Seconds of a layer's operations, forward and backward, as a runtime runs them on a device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from costmodel.attention import estimate_flash_attention_s, estimate_unfused_attention_s
from costmodel.gemm_times import price_gemms
from costmodel.hostbound import estimate_eager_share
from costmodel.layouts import Column
from costmodel.ops import Attention, Elementwise, Gemm, Op, Setting


def price_ops(ops: Sequence[Op], setting: Setting) -> list[tuple[str, Column, Column, Column]]:
    """(term, forward, input gradient, weight gradient) seconds of every op of one layer. Frozen weights (LoRA) have no
    gradient."""
    gemms = iter(price_gemms([op for op in ops if isinstance(op, Gemm)], setting))
    return [("gemm", *next(gemms)) if isinstance(op, Gemm) else _price_other(op, setting) for op in ops]


def _price_other(op: Elementwise | Attention, setting: Setting) -> tuple[str, Column, Column, Column]:
    """What trains no weight."""
    device = setting.device
    if isinstance(op, Elementwise):
        factor = _bytes_factor(op, setting)
        rate = device.memory_bytes_per_s * device.memory_fraction
        return (
            "elementwise",
            op.forward_bytes * factor / rate,
            op.backward_bytes * factor / rate,
            np.zeros_like(op.forward_bytes),
        )
    forward_s, backward_s = _price_attention(op, setting)
    return "attention", forward_s, backward_s, np.zeros_like(forward_s)


def _bytes_factor(op: Elementwise, setting: Setting) -> float:
    """Bytes that the runtime moves over those of ``op``."""
    kernels = setting.runtime.kernels
    if op.as_run:
        return 1.0
    if op.rms_norm and kernels.norm_bytes_factor is not None:
        return kernels.norm_bytes_factor
    return kernels.elementwise_bytes_factor


def _flash_version(setting: Setting) -> int:
    """Generation of the fused attention kernel that runs: the third drops nothing out.

    Source: Transformer Engine, transformer_engine/pytorch/attention (choice of backends: none of FlashAttention 3 under
    dropout), 2025.
    """
    version = setting.runtime.kernels.flash_version
    return min(version, 2) if setting.model.attention_dropout else version


def _price_attention(op: Attention, setting: Setting) -> tuple[Column, Column]:
    shape = (
        setting.device,
        op.batch,
        op.heads,
        op.seq_q,
        op.seq_kv,
        op.head_dim,
        op.v_head_dim,
        setting.workload.precision,
    )
    if setting.runtime.kernels.attention == "flash":
        version = _flash_version(setting)
        share = setting.device.step_fraction * setting.runtime.product_rate
        return (
            estimate_flash_attention_s(*shape, causal=op.causal, window=op.window, version=version) / share,
            estimate_flash_attention_s(*shape, causal=op.causal, window=op.window, backward=True, version=version)
            / share,
        )
    dropout = setting.model.attention_dropout > 0
    eager_s = _estimate_eager_softmax_s(op, setting)
    forward_s, backward_s = estimate_unfused_attention_s(*shape, dropout=dropout)
    return forward_s + eager_s, backward_s + eager_s


def _estimate_eager_softmax_s(op: Attention, setting: Setting) -> Column:
    """What a softmax run kernel by kernel adds to a fused one, forward; backward takes as long again.

    ``eager_softmax_bytes`` moved per score, of which a fused one moves 4.
    """
    device = setting.device
    more_bytes = max(setting.runtime.kernels.eager_softmax_bytes - 4.0, 0.0)
    scores = op.batch * op.heads * op.seq_q * op.seq_kv
    rate = device.memory_bytes_per_s * device.memory_fraction
    return np.asarray(estimate_eager_share(op, setting) * scores * more_bytes / rate)
