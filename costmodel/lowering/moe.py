"""Mixture of experts: router, dispatch, grouped products, combine, shared experts - on a mesh of their own."""

from __future__ import annotations

import numpy as np

from costmodel.collectives.volumes import count_reached
from costmodel.layouts import Column
from costmodel.lowering.feedforward import lower_intermediate
from costmodel.lowering.region import cross_tensor_region
from costmodel.ops import Elementwise, Gemm, Lowered, Saved, Setting, Split, Transfer
from costmodel.schema.model import MoEBlock


def lower_moe(block: MoEBlock, setting: Setting, split: Split) -> Lowered:
    """Routed and shared experts of one layer.

    A rank holds num_experts / ep experts, each split over etp. It sends its resident tokens, experts_per_token
    times, through an all-to-all over ep, and gathers them over etp; the busiest rank sees ``moe_imbalance`` times
    the mean (a capacity factor bounds it). Dropless, the host waits to hear how many tokens each expert got.
    Source: MoE Parallel Folding (Liu et al. 2025), sections 3.1-3.2.
    """
    hidden, width = setting.model.hidden_size, setting.activation_bytes
    workload = setting.workload
    resident = split.resident_tokens
    # Without sequence parallelism every tensor rank holds the same tokens; each dispatches its own share of them.
    own = split.tokens / split.tp
    features = np.full_like(resident, block.latent_size or hidden)
    imbalance = np.where(split.ep > 1, workload.moe_capacity_factor or workload.moe_imbalance, 1.0)
    routed = own * block.experts_per_token
    received = routed * split.etp * imbalance
    local_experts = block.num_experts / split.ep
    per_expert = np.maximum(received / local_experts, 1.0)
    inner = block.intermediate_size / split.etp
    inputs = 2.0 if block.gated else 1.0

    kernels = setting.runtime.kernels
    lowered = Lowered(launches=kernels.launches_per_expert * local_experts)
    if workload.moe_capacity_factor is None:
        lowered.waits_s = kernels.moe_host_s
    lowered.ops.append(
        Gemm("router", resident, np.full_like(resident, block.num_experts), np.full_like(resident, hidden), wide=True)
    )
    permuted = routed * features * width
    moved = _permute_passes(block, setting, split) * permuted
    lowered.ops.append(Elementwise("permute", moved, moved))
    lowered.saved.append(Saved("router logits", resident * block.num_experts * 4.0, matmul_output=True))
    lowered.transfers.append(
        Transfer(
            "ep",
            (("all_to_all", permuted), ("all_to_all", permuted)),
            (("all_to_all", permuted), ("all_to_all", permuted)),
            copies=float(block.experts_per_token) if _deduplicates(block, setting) else 1.0,
            groups=(block.n_group, block.topk_group),
        )
    )
    gathered = received * features * width
    lowered.transfers.append(
        Transfer(
            "etp",
            (("all_gather", gathered), ("reduce_scatter", gathered)),
            (("all_gather", gathered), ("reduce_scatter", gathered)),
        )
    )
    lowered.ops += [
        Gemm("experts up", per_expert, inputs * inner, features, batch=local_experts, grouped=True),
        Gemm("experts down", per_expert, features, inner, batch=local_experts, grouped=True),
    ]
    if block.bias and kernels.biases_each_expert:
        lowered.extend(_add_biases(received * features, local_experts))
    expert_inner = received * inner * width
    lowered.ops.append(
        Elementwise(
            "experts activation",
            (inputs + 1.0) * expert_inner,
            (2.0 * inputs + 1.0) * expert_inner,
            modules=("moe_act",),
        )
    )
    lowered.saved += [
        Saved("expert input", gathered, narrow="product_inputs"),
        Saved("expert activation input", inputs * expert_inner, matmul_output=True, narrow="activation_inputs"),
        Saved("expert down input", expert_inner, modules=("moe_act",), narrow="product_inputs"),
    ]
    if kernels.weighs_expert_outputs:
        lowered.saved.append(Saved("expert output", permuted, matmul_output=True))
    lowered.working_bytes.append(2.0 * gathered + (inputs + 1.0) * expert_inner)
    if block.latent_size:
        down = Gemm("latent down", resident, features, np.full_like(resident, hidden))
        up = Gemm("latent up", resident, np.full_like(resident, hidden), features)
        lowered.ops += [down, up]
    if block.shared_intermediate_size:
        experts = cross_tensor_region(setting, split)
        shared = block.shared_intermediate_size / split.tp
        experts.extend(lower_intermediate("shared expert", split.tokens, shared, block.gated, setting))
        lowered.extend(experts.within("shared_experts"))
    return lowered.within("moe")


def _deduplicates(block: MoEBlock, setting: Setting) -> bool:
    """Whether a token crosses once to each node that holds some of its experts."""
    rule = setting.runtime.kernels.deduplicates_dispatch
    return rule == "always" or (rule == "limited" and block.topk_group < block.n_group)


def _permute_passes(block: MoEBlock, setting: Setting, split: Split) -> Column | float:
    """Reads and writes of a routed token's features while tokens are laid out for their experts and back, forward.

    A plain exchange: copied per expert, exchanged, sorted by expert; and the same back: 8. Where a token crosses once
    for all its experts on a rank: laid out on arrival from the copies that came, and summed into as many.
    Source: Megatron-Core, megatron/core/transformer/moe/token_dispatcher.py (all-to-all and flex), 2026.
    """
    if not _deduplicates(block, setting):
        return 8.0
    arrived = count_reached(split.ep, float(block.experts_per_token), (block.n_group, block.topk_group))
    return np.asarray(2.0 + 2.0 * arrived / block.experts_per_token)


def _add_biases(elements: Column, local_experts: Column) -> Lowered:
    """The down products' biases, weighted by each token's probability and added expert by expert.

    Bytes per element, probabilities and so their products being fp32. Forward: product 4 written; sum 2 + 4 read, 4
    written; concatenation 4 and 4; cast 4 and 2. Backward: cast 2 and 4; the sum's 16-bit gradient 4 and 2; gradients
    of bias and of probability, each 4 read, 4 written and 4 read; pieces joined 2 and 2. Two kernels each, forward.
    Source: Megatron-Core, megatron/core/transformer/moe/experts.py (TEGroupedMLP._apply_bias), 2026.
    """
    passes = Elementwise("expert biases", 28.0 * elements, 40.0 * elements, as_run=True)
    return Lowered(ops=[passes], launches=2.0 * local_experts)
