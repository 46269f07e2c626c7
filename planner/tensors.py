"""Where a layout puts every tensor, in the algebra of split, broadcast and partial values: DTensor's ``Shard(d)``,
``Replicate`` and ``Partial``.

Source: Yuan et al. 2021 (OneFlow), section 3.1, for the algebra; Shoeybi et al. 2019 and Korthikanti et al. 2022 for
tensor and sequence parallelism in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from costmodel.ops import Setting
from costmodel.schema.layout import Layout
from costmodel.schema.model import (
    AnyBlock,
    AttentionBlock,
    LinearAttentionBlock,
    Mamba1Block,
    Mamba2Block,
    MLABlock,
    MLPBlock,
    MoEBlock,
    ProjectionBlock,
)
from costmodel.schema.plan import TensorPlacement

REPLICATE, PARTIAL = "Replicate", "Partial"
COLUMN, ROW = "Shard(0)", "Shard(1)"
"""Of a weight (out, in): split over what it puts out, over what it takes in."""

DENSE_AXES = ("tp", "cp_ulysses", "cp_ring", "dp_shard", "dp_replicate")
EXPERT_AXES = ("etp", "ep", "edp")


@dataclass(frozen=True)
class _Weight:
    """One matrix and its placement over tp, or, ``expert``, over etp beside the experts' own axis."""

    name: str
    shape: tuple[int, ...]
    over_tp: str = REPLICATE
    expert: bool = False


def place_tensors(setting: Setting, layout: Layout) -> tuple[TensorPlacement, ...]:
    """The matrices of each layer kind and of the two ends, then gradients, moments and activations.

    Matrices as the forward finds them between micro-batches: at stage 3 split over the ranks that share state, below it
    whole. Names are kind, block and matrix.

    Leaves out: vectors (norms, biases), which tensor parallelism replicates unless they belong to a split output.
    """
    model, placed = setting.model, []
    weights = [_Weight("embedding", (max(model.vocab_size, 1), model.hidden_size), COLUMN)]
    for kind in model.kinds:
        for block in kind.blocks:
            weights += [
                _Weight(f"{kind.name}.{block.kind}.{weight.name}", weight.shape, weight.over_tp, weight.expert)
                for weight in _weights(block, model.hidden_size, layout.tp)
            ]
    if model.has_head and not model.tie_word_embeddings:
        weights.append(_Weight("head", (model.vocab_size, model.hidden_size), COLUMN))
    for weight in weights:
        placed.append(
            TensorPlacement(tensor=weight.name, shape=weight.shape, placements=_of_weight(weight, setting, layout))
        )
    return (*placed, *_states(setting, layout), *_activations(setting, layout))


def _weights(block: AnyBlock, hidden: int, tp: int) -> Iterator[_Weight]:
    match block:
        case AttentionBlock():
            queries, keys = block.num_heads * block.head_dim, block.num_key_value_heads * block.head_dim
            split = COLUMN if block.num_key_value_heads % tp == 0 else REPLICATE
            yield _Weight("q", (queries * (2 if block.output_gate else 1), hidden), COLUMN)
            yield _Weight("k", (keys, hidden), split)
            yield _Weight("v", (keys, hidden), split)
            yield _Weight("o", (hidden, queries), ROW)
        case MLABlock():
            queries = block.num_heads * (block.qk_nope_head_dim + block.qk_rope_head_dim)
            if block.q_lora_rank is None:
                yield _Weight("q", (queries, hidden), COLUMN)
            else:
                yield _Weight("q down", (block.q_lora_rank, hidden))
                yield _Weight("q up", (queries, block.q_lora_rank), COLUMN)
            keys_values = block.num_heads * (block.qk_nope_head_dim + block.v_head_dim)
            yield _Weight("kv down", (block.kv_lora_rank + block.qk_rope_head_dim, hidden))
            yield _Weight("kv up", (keys_values, block.kv_lora_rank), COLUMN)
            yield _Weight("o", (hidden, block.num_heads * block.v_head_dim), ROW)
        case MLPBlock():
            yield from _feed_forward("", block.intermediate_size, hidden, block.gated)
        case MoEBlock():
            width, experts, inner = block.latent_size or hidden, block.num_experts, block.intermediate_size
            yield _Weight("router", (experts, hidden))
            for name in ("gate", "up") if block.gated else ("up",):
                yield _Weight(f"experts {name}", (experts, inner, width), "Shard(1)", expert=True)
            yield _Weight("experts down", (experts, width, inner), "Shard(2)", expert=True)
            if block.latent_size:
                yield _Weight("latent down", (width, hidden))
                yield _Weight("latent up", (hidden, width))
            if block.shared_intermediate_size:
                yield from _feed_forward("shared ", block.shared_intermediate_size, hidden, block.gated)
        case ProjectionBlock():
            yield _Weight("weight", (block.out_features, block.in_features))
        case LinearAttentionBlock():
            values = block.num_value_heads * block.value_head_dim
            mixed = 2 * block.num_key_heads * block.key_head_dim + values * (2 if block.output_gate else 1)
            yield _Weight("in", (mixed + 2 * block.num_value_heads, hidden), COLUMN)
            yield _Weight("out", (hidden, values), ROW)
        case Mamba2Block():
            inner = block.num_heads * block.head_dim
            yield _Weight("in", (2 * inner + block.num_heads, hidden), COLUMN)
            yield _Weight("B and C", (2 * block.n_groups * block.state_size, hidden))
            yield _Weight("out", (hidden, inner), ROW)
        case Mamba1Block():
            yield _Weight("in", (2 * block.inner_size, hidden), COLUMN)
            yield _Weight("scan parameters", (block.dt_rank + 2 * block.state_size, block.inner_size), ROW)
            yield _Weight("step size", (block.inner_size, block.dt_rank), COLUMN)
            yield _Weight("out", (hidden, block.inner_size), ROW)


def _feed_forward(prefix: str, inner: int, hidden: int, gated: bool) -> Iterator[_Weight]:
    for name in ("gate", "up") if gated else ("up",):
        yield _Weight(f"{prefix}{name}", (inner, hidden), COLUMN)
    yield _Weight(f"{prefix}down", (hidden, inner), ROW)


def _of_weight(weight: _Weight, setting: Setting, layout: Layout) -> dict[str, str]:
    if weight.expert:
        own = {"etp": weight.over_tp, "ep": COLUMN, "edp": COLUMN if layout.zero_stage == 3 else REPLICATE}
        return _present(own, layout)
    return _present({"tp": weight.over_tp} | _state(setting, layout, layout.zero_stage == 3), layout)


def _state(setting: Setting, layout: Layout, split: bool) -> dict[str, str]:
    """Over the ranks that share state: dp_shard and, where the runtime does so, context parallelism."""
    over_cp = COLUMN if split and setting.runtime.state.shards_over_cp else REPLICATE
    return {
        "cp_ulysses": over_cp,
        "cp_ring": over_cp,
        "dp_shard": COLUMN if split else REPLICATE,
        "dp_replicate": REPLICATE,
    }


def _states(setting: Setting, layout: Layout) -> Iterator[TensorPlacement]:
    """Gradients before and after their reduction, and the optimizer's state, of a matrix that tp splits by columns."""
    shape = (setting.model.hidden_size, setting.model.hidden_size)
    summed = dict.fromkeys(DENSE_AXES, PARTIAL)
    for name, placements in (
        ("gradient of a micro-batch", summed),
        ("gradient of a step", _state(setting, layout, layout.zero_stage >= 1)),
        ("optimizer state", _state(setting, layout, layout.zero_stage >= 1)),
    ):
        yield TensorPlacement(tensor=name, shape=shape, placements=_present(placements | {"tp": COLUMN}, layout))


def _activations(setting: Setting, layout: Layout) -> Iterator[TensorPlacement]:
    """(batch, sequence, features) of the ranks' micro-batches together."""
    model, workload = setting.model, setting.workload
    batch = layout.micro_batch_size * layout.dp
    ranks = {"cp_ulysses": "Shard(1)", "cp_ring": "Shard(1)", "dp_shard": "Shard(0)", "dp_replicate": "Shard(0)"}
    hidden = (batch, workload.seq_len, model.hidden_size)
    between = "Shard(1)" if layout.sequence_parallel else REPLICATE
    yield TensorPlacement(tensor="hidden states", shape=hidden, placements=_present(ranks | {"tp": between}, layout))
    yield TensorPlacement(
        tensor="a block's output before its sum", shape=hidden, placements=_present(ranks | {"tp": PARTIAL}, layout)
    )
    if model.has_head:
        over_tp = "Shard(2)" if setting.runtime.kernels.loss_parallel else REPLICATE
        logits = (batch, workload.seq_len, model.vocab_size)
        yield TensorPlacement(tensor="logits", shape=logits, placements=_present(ranks | {"tp": over_tp}, layout))


def _present(placements: dict[str, str], layout: Layout) -> dict[str, str]:
    """Axes of more than one rank, innermost first."""
    return {
        axis: placements[axis]
        for axis in (*DENSE_AXES, *EXPERT_AXES)
        if axis in placements and getattr(layout, axis) > 1
    }
