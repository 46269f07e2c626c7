"""Time of softmax attention: fused (flash) and unfused, forward and backward."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from costmodel.gemm import estimate_gemm_s, peak_flops_per_s
from costmodel.layouts import Column
from costmodel.schema.cluster import DeviceSpec

FLASH_BACKWARD_FLOPS = 2.5
"""Backward over forward FLOPs: five products against two. Source: FlashAttention-2 (Dao 2023), section 3."""

FLASH_STEP = 128.0
"""Keys (forward) or queries (backward) in which a block walks the other side; backward, keys that a block owns.
Source: FlashAttention-2 (Dao 2023), section 3.3: blocks of 64 or 128 each way."""

EVEN_TAIL = 0.5
CAUSAL_FORWARD_TAIL = 0.75
CAUSAL_BACKWARD_TAIL = 0.3
"""Of the longest block, what is left to do when the first SM falls idle; half of it where all are as long. Blocks start
in order of their place: forward, a causal head's lightest queries come first and its heaviest may start last; backward,
the keys that every query sees come first. Source: the orders; their size from benchmarks/ops.py, a100-pcie-80g."""

EXP_EXPOSED = 0.5
"""Share of the softmax's exponentials that the tensor cores wait for. Prior: two groups of warps take turns, so that
one group's softmax runs under the other's products (Shah et al. 2024, section 3.1), short of its start and end."""

HEAD_SIZES = (32, 64, 96, 128, 192, 256)
"""Head sizes that kernels are built for; others are padded to the next, beyond the last to a multiple of 64.
Source: Dao-AILab/flash-attention, csrc/flash_attn/src/static_switch.h, 2024."""

WIDE_HEAD = 192.0
"""Head size from which a block's accumulators no longer leave room for full-size blocks."""


def estimate_attention_pairs(seq_q: ArrayLike, seq_kv: ArrayLike, causal: bool, window: int | None) -> Column:
    """(query, key) pairs that are not masked, per head and sequence.

    Full: s_q · s_kv. Causal: half of it. Sliding window w < s_kv: (w - w² / (2 s_kv)) · s_q, and never more than that.
    """
    seq_q, seq_kv = np.asarray(seq_q, np.float64), np.asarray(seq_kv, np.float64)
    pairs = seq_q * seq_kv * (0.5 if causal else 1.0)
    if window is None:
        return np.asarray(pairs)
    inside = window * seq_q - (window * window / 2.0) * (seq_q / seq_kv)
    return np.asarray(np.where(window < seq_kv, np.minimum(pairs, inside), pairs))


def estimate_attention_flops(pairs: ArrayLike, heads: ArrayLike, head_dim: ArrayLike, v_head_dim: ArrayLike) -> Column:
    """Forward FLOPs: 2 · pairs · heads · (d_qk + d_v)."""
    return np.asarray(2.0 * np.asarray(pairs) * np.asarray(heads) * (np.asarray(head_dim) + np.asarray(v_head_dim)))


def _head_fill(device: DeviceSpec, head_dim: float, v_head_dim: float, backward: bool) -> float:
    """Rate at a head size over the rate at 128.

    Per (query, key) pair the products take 4 · d FLOPs and the softmax one exponential, part of it exposed; so a small
    head, or a faster tensor core beside the same exponential unit, loses more.
    """
    built_for = next((size for size in HEAD_SIZES if size >= head_dim), np.ceil(head_dim / 64.0) * 64.0)
    size = (head_dim + v_head_dim) / 2.0
    sm_flops_per_s = peak_flops_per_s(device, "bf16") / device.num_sms
    softmax = EXP_EXPOSED * sm_flops_per_s / (4.0 * device.exp_per_s_per_sm)
    fill = size / 128.0 * (128.0 + softmax) / (size * built_for / head_dim + softmax)
    if built_for < WIDE_HEAD:
        return float(fill)
    return float(fill * device.wide_head_fraction ** (2.0 if backward else 1.0))


def estimate_flash_attention_s(
    device: DeviceSpec,
    batch: ArrayLike,
    heads: ArrayLike,
    seq_q: ArrayLike,
    seq_kv: ArrayLike,
    head_dim: int,
    v_head_dim: int,
    precision: str,
    causal: bool = True,
    window: int | None = None,
    backward: bool = False,
    version: int = 3,
) -> Column:
    """Seconds of one fused attention call.

    ramp + max(all blocks / SMs + tail · longest block, longest block, FLOPs / (peak · sustained)).
    A block is flash_block_q queries of one head against the keys that they see; backward, 128 keys against their
    queries, with 2.5 x the FLOPs. A block runs at peak · attention_fraction · head fill / SMs; causal blocks walk the
    diagonal's steps whole. Runs in bf16 whatever the matmuls' precision.
    ``version``: the kernel's generation, FlashAttention's numbers; a device names what those before its newest keep.
    Source: FlashAttention-2 (Dao 2023), section 3; Graham 1969 for list scheduling: no later than work / SMs + longest.
    Leaves out: the merge of split keys (decoding), dropout.
    """
    batch, heads, seq_q, seq_kv = (np.asarray(value, np.float64) for value in (batch, heads, seq_q, seq_kv))
    peak = peak_flops_per_s(device, "fp32" if precision == "fp32" else "bf16")
    rate = peak * device.attention_fraction * _head_fill(device, head_dim, v_head_dim, backward)
    rate *= device.flash_fractions.get(version, 1.0)
    factor = 1.0
    if backward:
        rate, factor = rate * device.attention_backward_fraction, FLASH_BACKWARD_FLOPS
    pairs = estimate_attention_pairs(seq_q, seq_kv, causal, window)
    flops = factor * batch * estimate_attention_flops(pairs, heads, head_dim, v_head_dim)
    if device.vendor == "cpu":
        return np.asarray(flops / rate)
    owned, walked, block = (seq_kv, seq_q, FLASH_STEP) if backward else (seq_q, seq_kv, float(device.flash_block_q))
    tail = (CAUSAL_BACKWARD_TAIL if backward else CAUSAL_FORWARD_TAIL) if causal else EVEN_TAIL
    sm_pair_s = factor * 2.0 * (head_dim + v_head_dim) / (rate / device.num_sms)
    reach = walked if window is None else np.minimum(walked, float(window))
    longest_s = np.minimum(owned, block) * reach * sm_pair_s
    diagonal = np.minimum(walked, FLASH_STEP) * owned / 2.0 if causal or window is not None else 0.0
    padding = np.ceil(owned / block) * block / owned
    walked_pairs = batch * heads * padding * np.minimum(pairs + diagonal, seq_q * seq_kv)
    busy_s = np.maximum(walked_pairs * sm_pair_s / device.num_sms + tail * longest_s, longest_s)
    return np.asarray(np.maximum(busy_s, flops / (peak * device.sustained_fraction)) + device.kernel_ramp_s)


def estimate_unfused_attention_s(
    device: DeviceSpec,
    batch: ArrayLike,
    heads: ArrayLike,
    seq_q: ArrayLike,
    seq_kv: ArrayLike,
    head_dim: int,
    v_head_dim: int,
    precision: str,
    dropout: bool,
) -> tuple[Column, Column]:
    """(forward, backward) seconds of attention as two batched products with a fused masked softmax between them (no
    tile skipping).

    Both products move their side of the s_q x s_kv scores. Between them softmax reads and writes the scores, 2 bytes
    each; dropout reads and writes them again and writes its mask, half as wide. Backward: four products, and one and a
    half times that traffic.
    Source: Korthikanti et al. 2022, section 4.1, for the tensors that exist.
    """
    batch, heads = np.asarray(batch, np.float64), np.asarray(heads, np.float64)
    many = batch * heads
    scores = estimate_gemm_s(device, seq_q, seq_kv, head_dim, precision, batch=many)
    values = estimate_gemm_s(device, seq_q, v_head_dim, seq_kv, precision, batch=many)
    elements = many * np.asarray(seq_q, np.float64) * np.asarray(seq_kv, np.float64)
    passes = 2.0 + (2.5 if dropout else 0.0)
    softmax_s = elements * passes * 2.0 / (device.memory_bytes_per_s * device.memory_fraction)
    return scores + values + softmax_s, 2.0 * (scores + values) + 1.5 * softmax_s
