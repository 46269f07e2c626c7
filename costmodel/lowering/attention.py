"""Grouped-query softmax attention."""

from __future__ import annotations

import numpy as np

from costmodel.layouts import Column
from costmodel.lowering.region import cross_tensor_region, save_norm_input
from costmodel.ops import QUERY_KEY_VALUE, Attention, Elementwise, Gemm, Lowered, Saved, Setting, Split, Transfer
from costmodel.schema.model import AttentionBlock


def lower_attention(block: AttentionBlock, setting: Setting, split: Split) -> Lowered:
    """Q, K, V products; rotary; attention; output product.

    Heads are split over tp, then over cp_ulysses; keys and values are replicated where there are fewer heads
    than ranks. The sequence is split over cp_ring, balanced (zig-zag) where causal.
    """
    hidden, width = setting.model.hidden_size, setting.activation_bytes
    tokens = split.tokens
    q_features = block.num_heads * block.head_dim / split.tp
    kv_heads = np.maximum(block.num_key_value_heads / split.tp, 1.0)
    kv_features = kv_heads * block.head_dim
    gate = 2.0 if block.output_gate else 1.0
    lowered = cross_tensor_region(setting, split, reductions=setting.runtime.kernels.attention_reductions)
    lowered.ops.append(
        Gemm("qkv", tokens, gate * q_features + 2.0 * kv_features, np.full_like(tokens, hidden), gathers_input=True)
    )
    if block.rotary or block.qk_norm != "none":
        passes = 2.0 * (1.0 + (block.qk_norm != "none"))
        rotated = tokens * (q_features + kv_features) * width * passes
        lowered.ops.append(Elementwise("rotary", rotated, rotated))
    if block.qk_norm != "none":
        lowered.saved += save_norm_input(tokens * (q_features + kv_features), setting, "qk-norm")
    lowered.extend(
        lower_core(
            setting, split, q_features, kv_features, kv_features, block.num_heads / split.tp, block.head_dim,
            block.head_dim, block.causal, block.sliding_window,
        )
    )  # fmt: skip
    if block.output_gate:
        gated = tokens * q_features * width
        lowered.ops.append(Elementwise("output gate", 3.0 * gated, 5.0 * gated))
        lowered.saved.append(Saved("output gate", 2.0 * gated, matmul_output=True))
    lowered.ops.append(Gemm("attention output", tokens, np.full_like(tokens, hidden), q_features, scatters_output=True))
    lowered.working_bytes.append(tokens * (q_features * (gate + 1.0) + 2.0 * kv_features) * width)
    return lowered


def lower_core(
    setting: Setting,
    split: Split,
    q_features: Column,
    k_features: Column,
    v_features: Column,
    heads: Column,
    head_dim: int,
    v_head_dim: int,
    causal: bool,
    window: int | None,
) -> Lowered:
    """Attention itself with its context parallelism, and what it keeps.

    A ring joins the partial output of each further step to an fp32 sum; backward it adds up the gradients of q, k, v.
    Fused: q, k, v, the output (which is the next product's input) and the log-sum-exp. Unfused, in addition:
    softmax's output - in fp32 too where softmax is not fused - and with dropout its mask and its output.
    Source: Korthikanti et al. 2022, section 4.1.
    """
    width, tokens = setting.activation_bytes, split.tokens
    out_features = heads * v_head_dim
    core = Attention(
        "core attention",
        batch=split.micro_batch_size,
        heads=np.maximum(heads / split.cp_ulysses, 1.0),
        seq_q=split.seq_len / split.cp_ring,
        seq_kv=np.full_like(tokens, split.seq_len),
        head_dim=head_dim,
        v_head_dim=v_head_dim,
        causal=causal,
        window=window,
        modules=("core_attn",),
    )
    lowered = Lowered(
        ops=[core],
        saved=[
            Saved(QUERY_KEY_VALUE, tokens * (q_features + k_features + v_features) * width, matmul_output=True),
            Saved("attention output", tokens * out_features * width, matmul_output=True, narrow="attention_output"),
        ],
    )
    pairs = split.micro_batch_size * heads / split.cp_ulysses * core.seq_q * core.seq_kv
    if setting.runtime.kernels.attention == "unfused":
        upcast = 0.0 if setting.runtime.kernels.fused_softmax or width >= 4.0 else 4.0
        kept = pairs * (width + upcast + (1.0 + width if setting.model.attention_dropout else 0.0))
        lowered.saved.append(Saved("attention scores", kept, core_attention=True, modules=("core_attn",)))
        # Beside what is kept: the gradients of the product's input and of softmax's, one of them in fp32 if upcast.
        lowered.working_bytes.append(pairs * np.maximum(width, 0.5 * (width + upcast)))
    else:
        lowered.saved.append(Saved("log-sum-exp", tokens * heads * 4.0, matmul_output=True, modules=("core_attn",)))
    merge = setting.runtime.kernels.ring_merge_bytes
    blocks = tokens * np.maximum(split.cp_ring - 1.0, 0.0)
    merged, grads = blocks * out_features * merge, blocks * (q_features + k_features + v_features) * 0.5 * merge
    lowered.ops.append(Elementwise("ring merge", merged, grads, modules=("core_attn",), as_run=True))
    lowered.transfers.append(_pass_round(setting, split, q_features, k_features + v_features, out_features, heads))
    exchanged = tokens * (q_features + k_features + v_features + out_features) * width
    lowered.transfers.append(
        Transfer("cp_ulysses", forward=(("all_to_all", exchanged),), backward=(("all_to_all", exchanged),))
    )
    return lowered


def _pass_round(
    setting: Setting, split: Split, q_features: Column, key_value_features: Column, out_features: Column, heads: Column
) -> Transfer:
    """What crosses the ring of context parallelism in cp_ring - 1 steps.

    Ring attention: keys and values; backward with their gradients. TokenRing: queries one way, partial outputs with
    their log-sum-exp (fp32) the other; backward queries, the output's gradient, log-sum-exp and row sums one way, the
    queries' gradient the other.
    Source: Liu et al. 2023 (Ring Attention), section 3; Wang et al. 2024 (TokenRing).
    """
    width = setting.activation_bytes
    moved = split.tokens * np.maximum(split.cp_ring - 1.0, 0.0)
    if setting.runtime.ring_moves == "keys-values":
        ring = moved * key_value_features * width
        return Transfer("cp_ring", forward=(("p2p", ring),), backward=(("p2p", 2.0 * ring),))
    queries, outputs, rows = moved * q_features * width, moved * out_features * width, moved * heads * 4.0
    return Transfer(
        "cp_ring",
        forward=(("p2p", queries), ("p2p", outputs + rows)),
        backward=(("p2p", queries + outputs + 2.0 * rows), ("p2p", queries)),
        both_ways=True,
    )
