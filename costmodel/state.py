"""Parameters, gradients and optimizer state: how many bytes a rank keeps, and of what."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from costmodel.frozen import estimate_param_bytes
from costmodel.layouts import Assignment, Column, Layouts
from costmodel.moments import moment_bytes
from costmodel.ops import Setting
from costmodel.parameters import count_layer, norm_params, trainable_share
from costmodel.schema.workload import DTYPE_BYTES
from costmodel.shards import keeps_full_grads, shard_groups


@dataclass(frozen=True)
class LocalParams:
    """Parameter elements on one rank before data-parallel sharding, [n, S].

    ``dense`` is shared by the ranks of dp x cp, ``expert`` by those of edp. ``largest``: the biggest unit that
    is gathered as one (a layer where the rank has any, the embedding or the head). ``ends``: of ``dense``, what is in
    no layer.
    """

    dense: Column
    expert: Column
    largest: Column
    ends: Column | float = 0.0

    @property
    def total(self) -> Column:
        return self.dense + self.expert


@dataclass(frozen=True)
class StateBytes:
    """Bytes on one rank, [n, S].

    ``gathered``: what stage 3 gathers, and a layer's gradients while they are reduced. ``buffers``: what flattening
    gradients into buckets takes beyond that, and the optimizer beside master and moments. ``host``: what optimizer
    offload moved away.
    """

    params: Column
    grads: Column
    optimizer: Column
    gathered: Column
    buffers: Column
    host: Column


def estimate_local_params(setting: Setting, layouts: Layouts, assignment: Assignment) -> LocalParams:
    """Over a rank's layers: sharded / tp + replicated for dense parameters, expert / (ep · etp) for routed experts; and
    the ends it holds, or its share of both where the vocabulary is split over pipeline ranks.
    """
    model = setting.model
    tp = layouts.tp[:, None].astype(np.float64)
    experts_over = (layouts.ep * layouts.etp)[:, None].astype(np.float64)
    per_kind = [count_layer(kind, model) for kind in model.kinds]
    layers = assignment.counts.sum(axis=3)
    sharded, replicated, expert = (
        np.array([getattr(count, name) for count in per_kind], np.float64)
        for name in ("sharded", "replicated", "expert")
    )
    one_dense = sharded / tp + replicated
    one_expert = expert / experts_over
    dense = np.einsum("nsk,nk->ns", layers, one_dense)
    routed = np.einsum("nsk,nk->ns", layers, one_expert)
    table = model.vocab_size * model.hidden_size / tp
    norm = norm_params(model)
    first = table + model.learned_positions * model.hidden_size + model.embedding_norms * norm
    # Tied weights need a second copy where the two ends live on different ranks.
    vocab_over = layouts.vocab_over[:, None].astype(np.float64)
    own_head = (not model.tie_word_embeddings) | (layouts.pp[:, None] > vocab_over)
    last = (table * own_head * model.has_head) + model.final_norms * norm + model.extra_params
    first, last = first / vocab_over, last / vocab_over
    ends = assignment.embedding * first + assignment.head * last
    dense = dense + ends
    one_layer = np.where(layers.sum(axis=2) > 0, (one_dense + one_expert).max(axis=1)[:, None], 0.0)
    largest = np.maximum(one_layer, np.where(assignment.embedding, first, np.where(assignment.head, last, 0.0)))
    return LocalParams(dense, routed, np.broadcast_to(largest, dense.shape), ends)


def estimate_state_bytes(setting: Setting, layouts: Layouts, params: LocalParams) -> StateBytes:
    """Where the 18, 16 or 12 bytes per parameter live.

    With a compute copy (Megatron, DeepSpeed): parameters 2, gradients, fp32 master 4 and moments 8; stage 1 splits
    master and moments, stage 2 gradients, stage 3 parameters. Without (FSDP2): the sharded fp32 parameter is the
    master; below stage 3, and under a pipeline, the gathered low-precision copy stays; at stage 3 only
    1 + prefetched layers of it do. Optimizer state that is split further than parameters has a master of its own, and
    the low-precision shard stays. Beside them, what a reduction works on: a layer's gradients before and after, or the
    buckets that are flattened for it. A second shard (``reshard_after_forward`` = k) keeps a k-th of the parameters.
    Under LoRA only adapters have gradients, master and moments; the frozen rest is kept at the parameters' width.
    Frozen parts are whole on every rank.
    Source: Rajbhandari et al. 2020 (ZeRO), section 3 and figure 1; PyTorch FSDP2 documentation.
    """
    workload, rules = setting.workload, setting.runtime.state
    stage = layouts.zero_stage[:, None]
    dense, expert = shard_groups(setting, layouts)
    full_grads = keeps_full_grads(setting, layouts)[:, None]
    param_bytes = DTYPE_BYTES[workload.param_dtype]
    needs_master = workload.master_dtype == "fp32" and (workload.param_dtype != "fp32" or not rules.keeps_compute_copy)
    share = trainable_share(setting.model)
    master_bytes = 4.0 if needs_master else 0.0
    of_layers, of_ends = moment_bytes(workload, layouts)

    def split(kind: str) -> Column:
        return np.asarray(params.dense / getattr(dense, kind) + params.expert / getattr(expert, kind))

    owned, stored = split("optimizer"), split("params")
    optimizer = share * ((master_bytes + of_layers) * owned + (of_ends - of_layers) * params.ends / dense.optimizer)
    offload = layouts.optimizer_offload[:, None]
    host = optimizer * offload
    buffers = share * rules.optimizer_buffer_bytes * owned
    grads = share * DTYPE_BYTES[workload.grad_dtype] * split("grads")
    if rules.keeps_compute_copy:
        kept = param_bytes * stored
        gathered = np.where(stage >= 3, (1.0 + rules.prefetched_layers) * params.largest * param_bytes, 0.0)
    else:
        stays = (stage < 3) | ((layouts.pp[:, None] > 1) & rules.full_grads_under_pipeline)
        apart = (stage >= 3) & (dense.optimizer > dense.params)
        kept = np.where(apart, param_bytes, (1.0 - share) * param_bytes) * stored
        units = (1.0 + rules.prefetched_layers) * params.largest
        gathered = np.where(stays, params.total * param_bytes, np.minimum(units, params.total) * param_bytes)
    if layouts.reshard_after_forward.any():
        kept = kept + np.where(dense.between < dense.params, param_bytes * split("between"), 0.0)
    reduced = np.where(full_grads, 0.0, params.largest * (param_bytes + DTYPE_BYTES[workload.grad_reduce_dtype]))
    copied = share * np.minimum(rules.bucket_copies * (rules.bucket_params or params.largest), params.total)
    reduces = (layouts.dp * layouts.cp > 1)[:, None]
    if setting.model.frozen_parts:
        kept = kept + estimate_param_bytes(setting, layouts)[:, None]
    buckets = np.where(reduces, np.maximum(copied * DTYPE_BYTES[workload.grad_reduce_dtype] - reduced, 0.0), 0.0)
    return StateBytes(kept, grads, optimizer * (1.0 - offload), gathered + reduced, buckets + buffers, host)
