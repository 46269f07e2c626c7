"""A runtime's kernels: what is fused, what each unfused piece moves and keeps, what launching takes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from costmodel.schema.base import Spec

Fraction = Annotated[float, Field(ge=0, le=1)]


class NarrowSaves(Spec):
    """Bytes per element, scales included, that 8-bit training keeps for the backward of what is otherwise kept whole.

    ``product_inputs``: what narrow products read, for their weight gradients; the gradients at their outputs likewise,
    where a split backward puts those off. ``activation_inputs``: what the activation between two products reads.
    ``attention_output``: what attention's own backward reads, and the product behind it.
    """

    product_inputs: PositiveFloat
    activation_inputs: PositiveFloat
    attention_output: PositiveFloat


class KernelRules(Spec):
    """What is fused, and what each unfused piece moves.

    ``flash_version``: the generation of the fused attention kernel; 3 is the newest that the device has.
    ``elementwise_bytes_factor``: bytes that norms, activations, residuals and rotary move, over the least possible.
    ``saves_gathered_inputs``: under sequence parallelism the gathered input of a column-parallel matmul is kept for
    its weight gradient (DTensor); otherwise the shard is kept and gathered again (Megatron).
    ``sequence_copies``: passes that lay a tensor out around each gather and scatter of sequence parallelism, which runs
    along the second dimension of (batch, sequence, hidden) while collectives join along the first.
    ``ring_merge_bytes``: moved for each block of keys after a ring's first, per element of attention's output, to join
    its result with what is there; in the backward, per element of queries, keys and values, half of that.
    ``attention_reductions``, ``gated_reductions``: all-reduces of its input's gradient in the backward of a
    tensor-parallel attention block and of a gated feed-forward block: one where a single product holds all
    projections; where each is a column-parallel product of its own, every one of them reduces for itself.
    ``fused_activation``: the gated activation keeps its two inputs and no intermediate.
    ``deduplicates_dispatch``: a token crosses once to each node that holds some of its experts, and is copied there
    (DeepEP, HybridEP); otherwise once for each of its experts. ``limited``: so where the model's routing is limited to
    groups of experts.
    ``grouped_issue_s``: host time to issue one expert's product where each is a kernel of its own; 0: one for all.
    ``logit_bytes``: bytes alive per logit at the loss's worst moment, over all copies and dtypes.
    ``cast_bytes``: bytes that narrowing one element to 8 or 4 bits moves, its transposed copy included.
    ``gathers_narrow``: under sequence parallelism what 8- and 4-bit products read is narrowed on its shard and gathered
    so, the gradients at their outputs likewise; otherwise gathers carry 16 bits and casts follow them.
    ``narrow_saves``: what 8-bit training keeps for the backward in fewer bits; None: all of it at 16.
    ``weighs_expert_outputs``: routing weights multiply the experts' outputs, which are kept for the weights' gradient;
    otherwise they multiply the down products' inputs, as part of the activation.
    ``moe_host_s``: time of one pass through a dropless mixture-of-experts block in which the device waits: the host
    reads how many tokens each expert got before it can launch the experts' products, so it cannot run ahead.
    ``launches_per_expert``: kernels of one forward pass launched for each local expert, where products are not grouped
    into one kernel.
    ``biases_each_expert``: biases of the experts' down products are added expert by expert, in fp32 and by single
    operations.
    ``norm_bytes_factor``: the same for RMS norms alone, where they are written in single operations; None: as for the
    rest. Layer norms are one kernel everywhere.
    ``norm_extra_bytes``: bytes that an RMS norm keeps per element beside its input: fp32 copies that autograd saves
    when the norm is written in PyTorch operations; 0 for a fused kernel.
    ``loss_traffic_bytes``: bytes that the loss reads and writes per logit, forward and backward together.
    ``fused_softmax``: unfused attention masks, scales and normalises its scores in one 16-bit kernel, where that takes
    the shape; otherwise kernel by kernel, on an fp32 copy, whose result autograd keeps beside its 16-bit copy.
    ``eager_softmax_bytes``: bytes that the latter moves per score, forward: cast up 6, mask 9, softmax 8, cast down 6.
    ``accumulation_bytes``: bytes per weight that a pass of its own moves to add a micro-batch's gradient to the sum; 0
    where products add to it themselves, or every micro-batch is reduced.
    ``wide_accumulation_bytes``: the same where the sum is kept in fp32 beside 16-bit gradients; None: no different.
    ``optimizer_bytes_factor``: bytes that the update moves, over one fused pass.
    ``launches_per_layer``: kernels of a layer's forward; a launch costs the device's ``kernel_launch_s``.
    ``host_s_per_layer``: what the host needs for a layer's forward beside the launches; ``host_backward_ratio`` times
    both for its backward. ``host_s_per_collective``: for each call of a collective inside a layer.
    ``host_exposed``: share of the host's time that adds to the device's where both need as long.
    ``host_s_per_step``: once a step: loss scale, gradient norm, the optimizer's launches, logging.
    """

    attention: Literal["flash", "unfused"]
    fused_softmax: bool = True
    eager_softmax_bytes: NonNegativeFloat = 29.0
    flash_version: Literal[1, 2, 3] = 3
    elementwise_bytes_factor: Annotated[float, Field(ge=1)]
    norm_bytes_factor: Annotated[float, Field(ge=1)] | None = None
    norm_extra_bytes: NonNegativeFloat = 0.0
    logit_bytes: NonNegativeFloat
    loss_traffic_bytes: NonNegativeFloat = 36.0
    loss_parallel: bool
    saves_gathered_inputs: bool = False
    sequence_copies: NonNegativeFloat = 0.0
    ring_merge_bytes: NonNegativeFloat = 0.0
    attention_reductions: PositiveInt = 1
    gated_reductions: PositiveInt = 1
    fused_activation: bool = True
    deduplicates_dispatch: Literal["never", "limited", "always"] = "never"
    grouped_issue_s: NonNegativeFloat = 0.0
    accumulation_bytes: NonNegativeFloat = 0.0
    wide_accumulation_bytes: NonNegativeFloat | None = None
    optimizer_bytes_factor: Annotated[float, Field(ge=1)] = 1.0
    launches_per_layer: NonNegativeFloat
    cuda_graphs: bool = False
    host_s_per_layer: NonNegativeFloat = 0.0
    cast_bytes: NonNegativeFloat = 4.0
    gathers_narrow: bool = False
    narrow_saves: NarrowSaves | None = None
    weighs_expert_outputs: bool = True
    moe_host_s: NonNegativeFloat = 0.0
    launches_per_expert: NonNegativeFloat = 0.0
    biases_each_expert: bool = False
    host_backward_ratio: PositiveFloat = 2.0
    host_s_per_collective: NonNegativeFloat = 0.0
    host_exposed: Fraction = 0.3
    host_s_per_step: NonNegativeFloat = 0.0
