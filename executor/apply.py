"""A plan applied to a model: its stages on this rank, split, sharded and ready to run one training step at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from costmodel.schema.errors import InvalidSpec
from costmodel.schema.plan import Plan
from costmodel.schema.schedule import VOCAB_KINDS
from executor.capabilities import check_runnable
from executor.clock import PassClock, PassUnits
from executor.loss import cross_entropy, loss_context
from executor.mesh import build_mesh, data_rank
from executor.pipeline import LossFunction, Pipeline, StageShapes
from executor.sharding import Numerics, Sharding
from executor.shared import SharedParameters
from executor.stages import StageBuilder
from executor.vocabulary import VocabularyPasses


def apply_plan(
    model: nn.Module,
    plan: Plan,
    *,
    loss_function: LossFunction = cross_entropy,
    device: torch.device | None = None,
    numerics: Numerics | None = None,
    seed: int = 0,
) -> ParallelModel:
    """Lay ``model`` out over the ranks of the default process group exactly as ``plan`` says.

    ``model`` has ``executor.model.Llama``'s shape: ``embed_tokens``, ``layers`` (by index), ``norm``, ``lm_head``,
    projections under Hugging Face's names, and ``stage(indices, first=, last=)``. It is taken apart: use the result.
    Every rank must hold equal weights; parameters on the meta device are initialised from ``seed``, on this rank only
    as far as it needs them. ``numerics`` overrides the workload's types.
    Raises InvalidSpec when the plan asks for what the executor cannot run, or for another number of ranks.
    """
    check_runnable(plan)
    if loss_function is not cross_entropy and plan.layout.pp > 1 and plan.schedule().kinds & VOCAB_KINDS:
        raise InvalidSpec(
            f"schedule {plan.pipeline.schedule!r} computes cross-entropy in parts, and takes no loss_function",
            "leave loss_function out, or take a schedule that does not split the vocabulary",
        )
    if dist.get_world_size() != plan.world_size:
        raise InvalidSpec(
            f"the plan is for {plan.world_size} ranks, the process group has {dist.get_world_size()}",
            f"start torchrun with --nproc-per-node {plan.world_size} on one node",
        )
    return ParallelModel(
        model, plan, loss_function, device or _default_device(), numerics or Numerics.of(plan.workload), seed
    )


def _default_device() -> torch.device:
    on_cuda = "nccl" in dist.get_backend()
    return torch.device("cuda", torch.cuda.current_device()) if on_cuda else torch.device("cpu")


class ParallelModel:
    """This rank's share of a model under a plan.

    ``stages``: {stage index: module}; of a schedule of two directions the stages of both copies, numbered through.
    ``data_rank``, ``data_ranks``: which slice of the global batch this rank reads.
    ``clock``: when its pipeline passes ran. ``is_first_replica``: whether it is the first of its stage's ranks.
    """

    def __init__(
        self,
        model: nn.Module,
        plan: Plan,
        loss_function: LossFunction,
        device: torch.device,
        numerics: Numerics,
        seed: int,
    ) -> None:
        self.plan, self.device, self.numerics = plan, device, numerics
        self.mesh = build_mesh(plan.layout, device.type)
        self.data_rank, self.data_ranks = data_rank(self.mesh)
        self.sharding = Sharding(self.mesh, plan.layout.zero_stage, numerics, plan.layout.reshard_after_forward)
        self.is_first_replica = self.data_rank == 0 and self.mesh["tp"].get_local_rank() == 0
        self.clock = PassClock(self.mesh["pp"].get_local_rank())
        self.loss_function = loss_function
        self.splits_vocabulary = plan.layout.tp > 1 and plan.runtime_spec.kernels.loss_parallel
        self.schedule = plan.schedule() if plan.layout.pp > 1 else None
        self.builder = StageBuilder(
            plan, self.schedule, self.mesh, self.sharding, device, seed, loss_parallel=self.splits_vocabulary
        )
        self.vocabulary = self.builder.build_vocabulary(model)
        self.stages = self.builder.build(model)
        self.shared = self._share_parameters()
        self.pipeline = self._build_pipeline() if self.schedule else None

    def step(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Forward and backward of this rank's share of one global batch; gradients are left as the whole batch's mean.

        ``tokens``, ``targets``: [micro-batches · micro-batch size, T], the same on all ranks with one ``data_rank``.
        Returns the mean loss of the global batch, on every rank.
        """
        with loss_context(self.splits_vocabulary):
            loss = self.pipeline.step(tokens, targets) if self.pipeline else self._accumulate(tokens, targets)
        for stage in self.stages.values():
            self.sharding.settle_gradients(stage)
        if self.shared:
            self.shared.sum_gradients(self._parameters_by_stage())
        for stage in self.stages.values():
            self.sharding.average_gradients(stage)
        if self.vocabulary:
            self.vocabulary.average_gradients(self.mesh["dp_replicate"])
        return self._global_mean(loss)

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """This rank's parameters under the whole model's names; DTensors where they are split.

        A name comes twice where this rank holds a parameter in two stages: copies of a layer, or both ends of a tied
        model. Both then have the same value, gradient and update.
        """
        for _, name, parameter in self._parameters_by_stage():
            yield self.shared.name_of(name) if self.shared else name, parameter
        if self.vocabulary:
            yield from self.vocabulary.named_parameters()

    def parameters_and_holders(self) -> Iterator[tuple[nn.Parameter, float]]:
        """Each of this rank's parameters, and how many ranks hold the same part of it."""
        ranks_per_stage = self.plan.world_size // self.plan.layout.pp
        for index, name, parameter in self._parameters_by_stage():
            stages = len(self.shared.holders(index, name)) if self.shared else 1
            yield parameter, stages * ranks_per_stage / _shards(parameter)
        for parameter in self.vocabulary.parameters() if self.vocabulary else ():
            yield parameter, self.plan.world_size / _shards(parameter)

    def _parameters_by_stage(self) -> Iterator[tuple[int, str, nn.Parameter]]:
        for index, stage in self.stages.items():
            for name, parameter in stage.named_parameters():
                yield index, name, parameter

    def _share_parameters(self) -> SharedParameters | None:
        tied = self.plan.model.tie_word_embeddings
        if self.schedule is None or (self.schedule.copies == 1 and not tied):
            return None
        return SharedParameters(self.schedule, tied=tied, group=self.mesh["pp"].get_group())

    def _build_pipeline(self) -> Pipeline:
        assert self.schedule is not None
        layout, workload, model = self.plan.layout, self.plan.workload, self.plan.model
        split = layout.tp if layout.sequence_parallel else 1
        batch, tokens = layout.micro_batch_size, workload.seq_len
        shapes = StageShapes(
            tokens=(batch, tokens),
            hidden=(batch, tokens // split, model.hidden_size),
            logits=(batch, tokens, model.vocab_size // (layout.tp if self.splits_vocabulary else 1)),
            dtype=self.numerics.compute,
        )
        units = {
            index: PassUnits(len(layers), sum(layer.recompute == "full" for layer in layers))
            for index, layers in ((index, self.builder.layers(index)) for index in self.stages)
        }
        group = self.mesh["pp"].get_group()
        vocabulary = None
        if self.vocabulary:
            vocabulary = VocabularyPasses(self.vocabulary, self.schedule, group, self.numerics.compute, self.clock)
        return Pipeline(
            self.stages, self.schedule, shapes, self.loss_function, group, self.device, self.clock, units, vocabulary
        )

    def _accumulate(self, tokens: Tensor, targets: Tensor) -> Tensor:
        microbatches = self.plan.layout.num_microbatches
        (stage,) = self.stages.values()
        total = torch.zeros((), dtype=torch.promote_types(self.numerics.compute, torch.float32), device=self.device)
        for index, (inputs, labels) in enumerate(
            zip(tokens.chunk(microbatches), targets.chunk(microbatches), strict=True)
        ):
            self.sharding.before_microbatch(stage, is_last=index == microbatches - 1)
            loss = self.loss_function(stage(inputs), labels) / microbatches
            loss.backward()
            total += _local(loss.detach())
        return total

    def _global_mean(self, loss: Tensor | None) -> Tensor:
        copies = self.data_ranks * self.plan.layout.tp
        mean = (
            torch.zeros((), dtype=torch.float64, device=self.device) if loss is None else _local(loss).double() / copies
        )
        dist.all_reduce(mean)
        return mean


def _shards(parameter: Tensor) -> int:
    """How many ranks of a stage hold different parts of ``parameter``."""
    shards = 1
    if isinstance(parameter, DTensor):
        for size, placement in zip(parameter.device_mesh.shape, parameter.placements, strict=True):
            shards *= 1 if placement.is_replicate() else size
    return shards


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
