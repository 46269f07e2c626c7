"""Mixers whose cost is linear in the sequence: Mamba, Mamba-2, gated linear attention."""

from __future__ import annotations

import numpy as np

from costmodel.collectives import Collective
from costmodel.layouts import Column
from costmodel.lowering.region import cross_tensor_region
from costmodel.ops import Elementwise, Gemm, Lowered, Saved, Setting, Split, Transfer
from costmodel.schema.model import LinearAttentionBlock, Mamba1Block, Mamba2Block


def lower_mamba2(block: Mamba2Block, setting: Setting, split: Split) -> Lowered:
    """In-projection, short convolution, chunked state-space scan, gated norm, out-projection.

    Per chunk of Q tokens and head: scores Q x Q x N, values Q x Q x P, and the state N x P in and out.
    Source: Dao and Gu 2024 (Mamba-2), section 6.
    """
    tokens, hidden = split.tokens, np.full_like(split.tokens, setting.model.hidden_size)
    heads = block.num_heads / split.tp
    groups = np.maximum(block.n_groups / split.tp, 1.0)
    inner = heads * block.head_dim
    states = 2.0 * groups * block.state_size
    lowered = cross_tensor_region(setting, split)
    lowered.ops.append(Gemm("mixer in", tokens, 2.0 * inner + states + heads, hidden, gathers_input=True))
    lowered.extend(_convolution(tokens, inner + states, setting))
    chunk = min(float(block.chunk_size), split.seq_len)
    lowered.ops += _chunked(tokens, heads, groups, chunk, block.state_size, block.head_dim)
    lowered.ops.append(_pass_chunks(tokens, heads, groups, chunk, block.state_size, block.head_dim, setting))
    lowered.extend(_gated_output(tokens, inner, hidden, setting))
    _pass_state(lowered, setting, split, heads, np.full_like(heads, block.state_size * block.head_dim))
    return lowered


def lower_mamba1(block: Mamba1Block, setting: Setting, split: Split) -> Lowered:
    """In-projection, convolution, selective scan (memory-bound: state_size multiply-adds per element), out-projection.

    Source: Gu and Dao 2023 (Mamba), section 3.
    """
    tokens, hidden = split.tokens, np.full_like(split.tokens, setting.model.hidden_size)
    inner = block.inner_size / split.tp
    width = setting.activation_bytes
    lowered = cross_tensor_region(setting, split)
    lowered.ops.append(Gemm("mixer in", tokens, 2.0 * inner, hidden, gathers_input=True))
    lowered.extend(_convolution(tokens, inner, setting))
    low_rank = np.full_like(tokens, block.dt_rank + 2.0 * block.state_size)
    lowered.ops += [
        Gemm("scan parameters", tokens, low_rank, inner),
        Gemm("step size", tokens, inner, np.full_like(tokens, block.dt_rank)),
        Elementwise("scan", 4.0 * tokens * inner * width, 8.0 * tokens * inner * width),
    ]
    lowered.saved.append(Saved("scan input", 2.0 * tokens * inner * width))
    lowered.extend(_gated_output(tokens, inner, hidden, setting))
    _pass_state(lowered, setting, split, inner, np.full_like(inner, block.state_size))
    return lowered


def lower_linear_attention(block: LinearAttentionBlock, setting: Setting, split: Split) -> Lowered:
    """Projections, short convolution, chunked (gated delta) recurrence, gated norm, out-projection.

    Context parallelism passes one state of d_k x d_v a head.
    Source: Yang et al. 2024 (Gated DeltaNet), section 3.
    """
    tokens, hidden = split.tokens, np.full_like(split.tokens, setting.model.hidden_size)
    heads = block.num_value_heads / split.tp
    key = block.num_key_heads * block.key_head_dim / split.tp
    value = block.num_value_heads * block.value_head_dim / split.tp
    lowered = cross_tensor_region(setting, split)
    gate = value if block.output_gate else 0.0
    features = 2.0 * key + value + gate + 2.0 * heads
    lowered.ops.append(Gemm("mixer in", tokens, features, hidden, gathers_input=True))
    if block.conv_kernel:
        lowered.extend(_convolution(tokens, 2.0 * key + value, setting))
    chunk = min(float(block.chunk_size), split.seq_len)
    # The delta rule solves a triangular system per chunk: as much again as the scores.
    lowered.ops += _chunked(tokens, heads, heads, 2.0 * chunk, block.key_head_dim, block.value_head_dim)
    lowered.ops.append(_pass_chunks(tokens, heads, heads, chunk, block.key_head_dim, block.value_head_dim, setting))
    lowered.extend(_gated_output(tokens, value, hidden, setting))
    _pass_state(lowered, setting, split, heads, np.full_like(heads, block.key_head_dim * block.value_head_dim))
    return lowered


def _chunked(tokens: Column, heads: Column, groups: Column, chunk: float, state: int, head_dim: int) -> list[Gemm]:
    """The products inside chunks, in 16 bits whatever the workload's precision: no kernel narrows them."""
    chunks = tokens / chunk
    full = np.full_like(tokens, chunk)
    wide, deep = np.full_like(tokens, head_dim), np.full_like(tokens, state)
    return [
        Gemm("chunk scores", full, full, deep, batch=chunks * groups, trains=False, wide=True),
        Gemm("chunk values", full, wide, full, batch=chunks * heads, trains=False, wide=True),
        Gemm("chunk state in", deep, wide, full, batch=chunks * heads, trains=False, wide=True),
        Gemm("chunk state out", full, wide, deep, batch=chunks * heads, trains=False, wide=True),
    ]


def _pass_chunks(
    tokens: Column, heads: Column, groups: Column, chunk: float, state: int, head_dim: int, setting: Setting
) -> Elementwise:
    """What the scan's kernels hand one another through memory: scores per group and states per head, in fp32.

    Scores are written and read once; a chunk's state is written, carried on (read and written) and read; the inputs
    are read for the states and again for the outputs, which are written. The backward makes states and scores again,
    and then as much for their gradients as the forward moved, twice.
    Source: Dao and Gu 2024 (Mamba-2), section 6, and the kernels of the mamba-ssm package (chunk_state, state_passing,
    bmm_chunk, chunk_scan).
    """
    scores = tokens * groups * chunk * 4.0
    states = tokens / chunk * heads * state * head_dim * 4.0
    streams = tokens * (3.0 * heads * head_dim + 4.0 * groups * state) * setting.activation_bytes
    moved = 2.0 * scores + 4.0 * states + streams
    return Elementwise("chunked scan", moved, 3.0 * moved)


def _convolution(tokens: Column, features: Column, setting: Setting) -> Lowered:
    size = tokens * features * setting.activation_bytes
    return Lowered(
        ops=[Elementwise("convolution", 2.0 * size, 3.0 * size)],
        saved=[Saved("convolution input", size, matmul_output=True), Saved("convolution output", size)],
    )


def _gated_output(tokens: Column, inner: Column, hidden: Column, setting: Setting) -> Lowered:
    size = tokens * inner * setting.activation_bytes
    return Lowered(
        ops=[
            Elementwise("gated norm", 3.0 * size, 5.0 * size),
            Gemm("mixer out", tokens, hidden, inner, scatters_output=True),
        ],
        saved=[
            Saved("mixer output and gate", 2.0 * size, matmul_output=True),
            Saved("mixer out input", size, narrow="product_inputs"),
        ],
        working_bytes=[3.0 * size],
    )


def _pass_state(lowered: Lowered, setting: Setting, split: Split, heads: Column, elements: Column) -> None:
    """States of all local ``heads``, of ``elements`` each in fp32, between the ranks that share a sequence.

    All-gather: every rank gets every rank's. All-scan: from each rank to the next, head by head, so that the last rank
    waits for one state and the heads of one for each rank between: state · (1 + (cp - 2) / heads).
    Source: Sun et al. 2025 (LASP-2), section 3; Chou et al. 2025 (ZeCO).
    """
    state = heads * elements * 4.0 * split.micro_batch_size
    for axis, size in (("cp_ring", split.cp_ring), ("cp_ulysses", split.cp_ulysses)):
        passed: tuple[tuple[Collective, Column], ...] = (("all_gather", state * size),)
        if setting.runtime.state_passing == "all-scan":
            passed = (("p2p", state * (1.0 + np.maximum(size - 2.0, 0.0) / heads)),)
        lowered.transfers.append(Transfer(axis, passed, passed))  # type: ignore[arg-type]
