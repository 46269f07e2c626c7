"""Runtime: what a training framework does with a layout - state, kernels, overlap, schedules, recomputation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat

from costmodel.schema.base import Spec
from costmodel.schema.layout import OptimizerFormat
from costmodel.schema.runtime_kernels import Fraction, KernelRules

Module = Literal["core_attn", "layernorm", "mla_up_proj", "mlp", "moe_act", "shared_experts", "moe"]
"""Parts of a layer that Megatron-Core recomputes by name (--recompute-modules)."""


class StateRules(Spec):
    """Which bytes are kept per parameter, and over which ranks.

    ``keeps_compute_copy``: low-precision parameters are stored beside the fp32 master (Megatron, DeepSpeed);
    otherwise the sharded master is cast while it is gathered (FSDP2).
    ``full_grads_under_pipeline``: no gradient is synchronised before the step's last micro-batch under pp > 1.
    ``bucket_params``: how many parameters one collective reduces or gathers; None: a layer's.
    ``bucket_copies``: buckets of gradients that exist twice, in the gradients and flattened for their reduction.
    ``reduces_every_microbatch``: stages 2 and 3 reduce-scatter after every micro-batch when pp = 1.
    ``optimizer_buffer_bytes``: what the optimizer keeps per parameter of its share beside master and moments.
    ``all_reduces_grads``: every rank gets the whole sum of the gradients even where the optimizer's state is split
    (stage 1); otherwise its share by a reduce-scatter.
    ``gathers_every_microbatch``: stage 3 gathers parameters for each forward and backward.
    ``prefetched_layers``: gathered ahead of the one that runs. ``shards_over_cp``: state is split over dp_shard · cp.
    ``broadcasts_owned``: with stage 1 each rank owns whole tensors, ``tensors_per_layer`` of them in a layer, and
    broadcasts them when they are updated, in pieces of ``broadcast_chunk_bytes``; otherwise all gather even shares.
    ``network_share``: of the rate of large collectives between nodes, what gathers and reductions reach.
    ``gather_copies``, ``reduce_copies``: passes over device memory, at stages 2 and 3, that put what was gathered or is
    to be reduced where the model or the collective wants it, and in its number format.
    ``shard_groups``: which state may be split over other ranks than dp_shard · cp: ``secondary`` - parameters once
    more, from forward to backward, over nearer ranks; ``params`` - over nearer ranks than gradients; ``optimizer`` -
    over all ranks where gradients are over fewer. ``secondary_beside_tensor``: the first also of what tensor
    parallelism splits.
    ``sums_replicas_once``: at stages 2 and 3 replicas sum their shards of the gradients once a step, not whenever these
    are reduced inside a replica.
    ``gather_jitter``: share of the step that stages 2 and 3 lose, in each layer's collective, to waiting for the
    slowest rank, for every factor of e in the number of ranks.
    """

    zero_stages: tuple[int, ...]
    keeps_compute_copy: bool
    full_grads_under_pipeline: bool = True
    reduces_every_microbatch: bool = True
    all_reduces_grads: bool = False
    gathers_every_microbatch: bool = True
    prefetched_layers: int = 1
    bucket_params: PositiveFloat | None = None
    bucket_copies: NonNegativeInt = 0
    optimizer_buffer_bytes: NonNegativeFloat = 0.0
    shards_over_cp: bool = True
    broadcasts_owned: bool = False
    tensors_per_layer: PositiveFloat = 9.0
    broadcast_chunk_bytes: PositiveFloat = 2.0**20
    network_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    gather_copies: NonNegativeFloat = 0.0
    reduce_copies: NonNegativeFloat = 0.0
    gather_jitter: NonNegativeFloat = 0.0
    shard_groups: tuple[Literal["secondary", "params", "optimizer"], ...] = ()
    secondary_beside_tensor: bool = True
    sums_replicas_once: bool = False


class OverlapRules(Spec):
    """For each kind of traffic the largest share that may hide behind compute, and what hiding costs.

    ``tensor``: gathers and scatters of sequence parallelism, chunked beside their own products, in both passes.
    ``tensor_backward``: what a column-parallel product's backward sends, whole and asynchronously beside the products
    of its input and weight gradients; an all-reduce can hide here, too.
    ``ladder``: what tensor-parallel blocks send, whole, behind the next block's compute: models whose blocks read the
    residual of two blocks before (Ladder Residual).
    ``pipeline``: of the time of a send between stages, the share in which the sending rank computes on; for the rest
    it waits until the message is over. ``pipeline_interleaved``: the same with several chunks a rank; None: as else.
    ``optimizer_offload``: of gradients on their way to the host, behind the last backward.
    ``activation_offload``, ``nvme_offload``: of the copies of saved activations to and from the host, or its drives.
    ``compute_slowdown``: factor on compute while a collective runs beside it (its SMs are taken).
    """

    tensor: Fraction
    tensor_backward: Fraction = 0.0
    ladder: Fraction = 0.0
    context: Fraction
    expert: Fraction
    pipeline: Fraction
    pipeline_interleaved: Fraction | None = None
    grad_reduce: Fraction
    param_gather: Fraction
    activation_offload: Fraction
    nvme_offload: Fraction = 0.0
    optimizer_offload: Fraction
    compute_slowdown: Annotated[float, Field(ge=1)] = 1.0


class MemoryRules(Spec):
    """What the allocator and the libraries add to the tensors.

    ``fragmentation_excess``: reserved over allocated, less 1, mean, of what comes and goes within a step; parameters,
    gradients and optimizer state are allocated once and leave no gaps. ``fragmentation_std``: spread of the ratio's
    logarithm.
    ``held_apart``: a layer's working memory and the loss's are never alive at once; of the smaller of the two the share
    that stays reserved all the same. A block that was split for something that lives longer - the input of a
    checkpointed layer in the block of its scores - is neither freed nor joined with another one. 0 where segments
    can grow (``expandable_segments``). Source: PyTorch, c10/cuda/CUDACachingAllocator.cpp.
    ``model_std``: spread of the logarithm of the allocated figure itself.
    ``communicator_bytes``: buffers of one communicator; a rank has one for each mesh axis that it shares.
    ``receives_every_microbatch``: pipeline ranks hold a receive buffer for each micro-batch of the step at once.
    """

    fragmentation_excess: NonNegativeFloat
    fragmentation_std: NonNegativeFloat
    model_std: NonNegativeFloat
    communicator_bytes: NonNegativeFloat
    workspace_bytes: NonNegativeFloat = 0.0
    receives_every_microbatch: bool = False
    held_apart: Fraction = 0.0

    @property
    def fragmentation(self) -> float:
        """Reserved over allocated of what comes and goes."""
        return 1.0 + self.fragmentation_excess


class VocabularyRules(Spec):
    """Embedding and output layer split by rows over the pipeline ranks.

    ``beside_tensor``: beside tensor parallelism as well. ``tied``: one table for both ends as well.
    ``zero_stages``: those that it goes with where data-parallel ranks share state.
    ``logit_bytes``, ``loss_traffic_bytes``: as in KernelRules, of each logit of a rank's rows.
    """

    beside_tensor: bool
    tied: bool
    zero_stages: tuple[int, ...]
    logit_bytes: NonNegativeFloat
    loss_traffic_bytes: NonNegativeFloat


class Runtime(Spec):
    """A framework at a version. ``spread``: standard deviation of log step time that its users should expect.

    ``uneven_stages``: stages may hold unlike numbers of layers. ``ends_without_layers``: the first stage of several may
    hold the embedding alone, the last one the head and the loss.
    ``scatters_pipeline_sends``: without sequence parallelism too, each tensor rank sends its share of an activation and
    the receivers gather (Narayanan et al. 2021, section 4.1).
    ``one_way_sends``: neighbouring stages send first one way, then the other; otherwise both ways at the same time.
    ``interleaves_any_number``: interleaved 1F1B also of micro-batches that are no multiple of the pipeline ranks.
    ``product_rate``: rate of matrix products and attention against what the device keeps inside a step: libraries of
    another age are slower or faster.
    ``recompute_modules``: what selective recomputation runs again where ``selective_recomputes`` is ``modules``.
    ``stops_recompute_early``: recomputation ends with the last tensor that the backward needs, so that a layer's last
    product is not run again (``torch.utils.checkpoint`` without re-entrance; a compiler that sees the whole step).
    ``defers_operands``: of a split backward only the put-off products' two operands stay until the weight gradient;
    otherwise all that the layer saved.
    ``activation_offload``: what a layer saves may wait in host memory; ``partial_offload``: also a share of it, and
    what recomputation leaves; ``nvme_offload``: also on the node's drives. ``int8_activations``: it may be kept in 8
    bits.
    ``partial_optimizer_offload``: any share of the optimizer state may live on the host, whose update runs beside the
    device's. ``streams_optimizer_state``: of what lives there, a share is updated on the device all the same.
    ``optimizer_formats``: in which the optimizer's moments can be kept.
    ``mixed_context_parallel``: groups of unlike context-parallel degree run side by side within one step.
    ``ring_moves``: what travels round the ring of context parallelism: keys and values (ring attention), or queries one
    way and their partial outputs the other (TokenRing).
    ``state_passing``: how context ranks hand on the states of linear attention: all to all (LASP-2), or from one
    to the next, head by head (ZeCO).
    ``compiled_kernels``: the kernels under the framework's compiler (``--compile``); None where it has none.
    ``vocab_parallel``: what vocabulary parallelism goes with, for schedules that have it; None: not with anything.
    ``frozen_fill``: a model's frozen parts may run in a pipeline's bubbles, for the next step's data.
    """

    name: str
    aliases: tuple[str, ...] = ()
    version: str
    schedules: tuple[str, ...]
    interleaves_any_number: bool = False
    recompute: tuple[Literal["none", "selective", "full"], ...]
    selective_recomputes: Literal["core-attention", "all-but-matmul", "every-second-matmul", "all-but-qkv", "modules"]
    recompute_modules: tuple[Module, ...] = ()
    per_layer_recompute: bool
    activation_offload: bool
    partial_offload: bool = False
    nvme_offload: bool = False
    int8_activations: bool = False
    optimizer_offload: bool
    partial_optimizer_offload: bool = False
    streams_optimizer_state: bool = False
    optimizer_formats: tuple[OptimizerFormat, ...] = ("fp32",)
    sequence_parallel: Literal["never", "optional", "always"]
    context_parallel: tuple[Literal["ring", "ulysses"], ...]
    mixed_context_parallel: bool = False
    ring_moves: Literal["keys-values", "queries-outputs"] = "keys-values"
    state_passing: Literal["all-gather", "all-scan"] = "all-gather"
    expert_parallel: bool = True
    expert_tensor_parallel: bool = True
    uneven_stages: bool = True
    ends_without_layers: bool = False
    scatters_pipeline_sends: bool = False
    one_way_sends: bool = False
    product_rate: PositiveFloat = 1.0
    stops_recompute_early: bool = False
    defers_operands: bool = False
    state: StateRules
    kernels: KernelRules
    compiled_kernels: KernelRules | None = None
    overlap: OverlapRules
    memory: MemoryRules
    vocab_parallel: VocabularyRules | None = None
    frozen_fill: bool = False
    spread: NonNegativeFloat = 0.1
    source: str
    date: str
