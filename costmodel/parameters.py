"""Exact parameter counts: per block, per layer, per model - the same sums a checkpoint's tensors give.

Every count is split three ways, by what tensor and expert parallelism do with it: *sharded* over tp,
*replicated* on each tp rank, and *expert* (routed experts, over ep x etp).
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from costmodel.schema.model import (
    AnyBlock,
    AttentionBlock,
    LayerKind,
    LinearAttentionBlock,
    LoRA,
    Mamba1Block,
    Mamba2Block,
    MLABlock,
    MLPBlock,
    ModelSpec,
    MoEBlock,
    ProjectionBlock,
)

_NORM_PARAMS = {"rmsnorm": 1, "layernorm": 2, "layernorm_no_bias": 1, "unparametrised": 0}


class BlockParams(NamedTuple):
    """Parameters of a block or a layer, by how tensor and expert parallelism treat them.

    ``sharded``: matmul weights, and biases of column-parallel maps, that tp splits.
    ``replicated``: norms, row-parallel biases, routers, MLA down-projections, Mamba-2's B and C.
    ``expert``: routed experts, all of them, that ep x etp split.
    """

    sharded: int
    replicated: int
    expert: int

    @property
    def total(self) -> int:
        return self.sharded + self.replicated + self.expert


class ModelParams(NamedTuple):
    """Parameters of a model. total = embedding + head + layers + other; ``mtp`` is not in ``total``.

    ``embedding``: token table and learned positions. ``head``: output matrix and bias; only the bias when tied.
    ``layers``: of all layers but multi-token-prediction ones. ``other``: embedding and final norms, and extras.
    ``mtp``: multi-token-prediction layers without their shared embedding and head. A checkpoint holds total + mtp.
    ``active``: what one token uses: ``total`` with routed experts counted experts_per_token of num_experts.
    It includes the embedding table and the head, as most published figures do.
    ``matmul_active``: ``active`` without lookups (token table unless tied, positions): 6 x it is a token's FLOP.
    ``by_kind``: for each layer kind, in the order of ``ModelSpec.kinds``, the parameters of one layer.
    """

    total: int
    active: int
    embedding: int
    head: int
    layers: int
    other: int
    mtp: int
    matmul_active: int
    by_kind: tuple[BlockParams, ...]


def norm_params(model: ModelSpec) -> int:
    """Parameters of one hidden-size norm: hidden_size weights, and as many biases for ``layernorm``."""
    return _NORM_PARAMS[model.norm] * model.hidden_size


@cache
def trainable_share(model: ModelSpec) -> float:
    """Parameters that train, over all of them: 1, 0 of a frozen part, or rank · (in + out) of all maps with adapters.

    Targets are ``q``, ``k``, ``v``, ``o`` of attention. Source: Hu et al. 2021 (LoRA), section 4.1.
    """
    if not isinstance(model.trains, LoRA):
        return float(model.trains == "full")
    kinds = {kind.name: kind for kind in model.kinds}
    adapters = 0
    for run in model.runs:
        for block in kinds[run.kind].blocks:
            if isinstance(block, AttentionBlock):
                wide, narrow = block.num_heads * block.head_dim, block.num_key_value_heads * block.head_dim
                out = {"q": wide, "k": narrow, "v": narrow, "o": wide}
                targeted = (model.hidden_size + out[name] for name in model.trains.targets if name in out)
                adapters += run.count * model.trains.rank * sum(targeted)
    return adapters / count_model(model).total


@cache
def count_block(block: AnyBlock, hidden_size: int, norm_params_per_norm: int) -> BlockParams:
    """Parameters of one block, its hidden-size norms included.

    ``norm_params_per_norm``: ``norm_params`` of the model; norms of other widths scale with their width.
    """
    norms = block.norms * norm_params_per_norm
    per_channel = norm_params_per_norm // hidden_size
    sharded, replicated, expert = _count_body(block, hidden_size, per_channel)
    return BlockParams(sharded, replicated + norms, expert)


def count_layer(kind: LayerKind, model: ModelSpec) -> BlockParams:
    """Parameters of one layer of ``kind``; its ``extra_params`` are replicated."""
    counts = [count_block(block, model.hidden_size, norm_params(model)) for block in kind.blocks]
    return BlockParams(
        sharded=sum(count.sharded for count in counts),
        replicated=sum(count.replicated for count in counts) + kind.extra_params,
        expert=sum(count.expert for count in counts),
    )


def count_active(kind: LayerKind, model: ModelSpec) -> int:
    """Parameters of one layer that one token uses: experts_per_token of num_experts routed experts."""
    active = kind.extra_params
    for block in kind.blocks:
        sharded, replicated, expert = count_block(block, model.hidden_size, norm_params(model))
        active += sharded + replicated
        if isinstance(block, MoEBlock):
            active += expert * block.experts_per_token // block.num_experts
    return active


def count_model(model: ModelSpec) -> ModelParams:
    """Parameters of a whole model; see ``ModelParams`` for what each figure includes."""
    kinds = {kind.name: kind for kind in model.kinds}
    by_kind = {name: count_layer(kind, model) for name, kind in kinds.items()}
    layers = sum(by_kind[run.kind].total * run.count for run in model.runs if not kinds[run.kind].mtp)
    mtp = sum(by_kind[run.kind].total * run.count for run in model.runs if kinds[run.kind].mtp)
    idle = sum(
        (by_kind[run.kind].total - count_active(kinds[run.kind], model)) * run.count
        for run in model.runs
        if not kinds[run.kind].mtp
    )
    table = model.vocab_size * model.hidden_size
    positions = model.learned_positions * model.hidden_size
    head = 0
    if model.has_head:
        head = (0 if model.tie_word_embeddings else table) + (model.vocab_size if model.head_bias else 0)
    other = (model.embedding_norms + model.final_norms) * norm_params(model) + model.extra_params
    total = table + positions + head + layers + other
    lookups = positions + (0 if model.has_head and model.tie_word_embeddings else table)
    return ModelParams(
        total=total,
        active=total - idle,
        embedding=table + positions,
        head=head,
        layers=layers,
        other=other,
        mtp=mtp,
        matmul_active=total - idle - lookups,
        by_kind=tuple(by_kind[kind.name] for kind in model.kinds),
    )


def _count_body(block: AnyBlock, hidden: int, per_channel: int) -> tuple[int, int, int]:
    """(sharded, replicated, expert) without the block's hidden-size norms."""
    match block:
        case AttentionBlock():
            return *_attention(block, hidden, per_channel), 0
        case MLABlock():
            return *_mla(block, hidden, per_channel), 0
        case LinearAttentionBlock():
            return *_linear_attention(block, hidden), 0
        case Mamba2Block():
            return *_mamba2(block, hidden), 0
        case Mamba1Block():
            return *_mamba1(block, hidden), 0
        case MLPBlock():
            return *_mlp(hidden, block.intermediate_size, block.gated, block.bias), 0
        case MoEBlock():
            return _moe(block, hidden)
        case ProjectionBlock():
            weights = block.in_features * block.out_features
            return weights, block.out_features if block.bias else 0, 0


def _attention(block: AttentionBlock, hidden: int, per_channel: int) -> tuple[int, int]:
    queries = block.num_heads * block.head_dim
    keys = block.num_key_value_heads * block.head_dim
    projected = queries + 2 * keys + (queries if block.output_gate else 0)
    sharded = hidden * (projected + queries)
    if block.qkv_bias:
        sharded += projected
    if block.sinks:
        sharded += block.num_heads
    normed = {"none": 0, "head": 2 * block.head_dim, "hidden": queries + keys}[block.qk_norm]
    return sharded, normed * per_channel + (hidden if block.out_bias else 0)


def _mla(block: MLABlock, hidden: int, per_channel: int) -> tuple[int, int]:
    """Source: DeepSeek-V2, arXiv 2405.04434, section 2.1 and appendix C."""
    queries = block.num_heads * (block.qk_nope_head_dim + block.qk_rope_head_dim)
    keys_values = block.num_heads * (block.qk_nope_head_dim + block.v_head_dim)
    sharded = block.kv_lora_rank * keys_values + block.num_heads * block.v_head_dim * hidden
    replicated = hidden * (block.kv_lora_rank + block.qk_rope_head_dim) + block.kv_lora_rank * per_channel
    if block.q_lora_rank is None:
        return sharded + hidden * queries, replicated
    return sharded + block.q_lora_rank * queries, replicated + block.q_lora_rank * (hidden + per_channel)


def _linear_attention(block: LinearAttentionBlock, hidden: int) -> tuple[int, int]:
    """Gated DeltaNet: q, k, v, gate, two scalars per value head, short convolution, norm per head.

    Source: Gated Delta Networks, arXiv 2412.06464, section 3.
    """
    keys = block.num_key_heads * block.key_head_dim
    values = block.num_value_heads * block.value_head_dim
    mixed = 2 * keys + values
    projected = mixed + (values if block.output_gate else 0) + 2 * block.num_value_heads
    sharded = hidden * projected + mixed * block.conv_kernel + 2 * block.num_value_heads + values * hidden
    return sharded, block.value_head_dim


def _mamba2(block: Mamba2Block, hidden: int) -> tuple[int, int]:
    """Input projection to z, x, B, C, dt; convolution over x, B, C; A, D and dt bias per head; gated norm.

    Source: Transformers are SSMs, arXiv 2405.21060, section 7.
    """
    inner = block.num_heads * block.head_dim
    shared = 2 * block.n_groups * block.state_size
    taps = block.conv_kernel + (1 if block.conv_bias else 0)
    sharded = hidden * (2 * inner + block.num_heads) + inner * taps + 3 * block.num_heads + inner + inner * hidden
    replicated = shared * (hidden + taps)
    if block.proj_bias:
        sharded += 2 * inner + block.num_heads
        replicated += shared + hidden
    return sharded, replicated


def _mamba1(block: Mamba1Block, hidden: int) -> tuple[int, int]:
    """Source: Mamba, arXiv 2312.00752, section 3."""
    inner, low_rank = block.inner_size, block.dt_rank
    taps = block.conv_kernel + (1 if block.conv_bias else 0)
    sharded = hidden * 2 * inner + inner * taps + inner * (low_rank + 2 * block.state_size)
    sharded += (low_rank + 1) * inner + inner * block.state_size + inner + inner * hidden
    replicated = low_rank + 2 * block.state_size if block.inner_norms else 0
    if block.proj_bias:
        sharded += 2 * inner
        replicated += hidden
    return sharded, replicated


def _mlp(hidden: int, intermediate: int, gated: bool, bias: bool) -> tuple[int, int]:
    inputs = 2 if gated else 1
    sharded = hidden * intermediate * (inputs + 1) + (inputs * intermediate if bias else 0)
    return sharded, hidden if bias else 0


def _moe(block: MoEBlock, hidden: int) -> tuple[int, int, int]:
    """Router over num_experts, shared experts as one MLP, routed experts (in the latent width where there is one)."""
    width = block.latent_size or hidden
    expert = block.num_experts * sum(_mlp(width, block.intermediate_size, block.gated, block.bias))
    replicated = block.num_experts * (hidden + (1 if block.router_bias else 0))
    if block.latent_size is not None:
        replicated += 2 * hidden * width
    if block.shared_intermediate_size == 0:
        return 0, replicated, expert
    shared, shared_bias = _mlp(hidden, block.shared_intermediate_size, block.gated, block.bias)
    return shared, replicated + shared_bias + (hidden if block.shared_gate else 0), expert
