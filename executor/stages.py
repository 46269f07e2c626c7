"""This rank's stages of a model: which layers, their values, split and sharded as the plan says."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh

from costmodel.schema.plan import Plan, PlanLayer
from costmodel.schema.schedule import VOCAB_KINDS, Schedule
from executor.activations import keep_activations, narrow_from
from executor.initialise import materialise
from executor.offload import Chain
from executor.sharding import Sharding
from executor.tensor_parallel import split_embedding, split_head, split_layer
from executor.vocabulary import VocabularyPart


@dataclass(frozen=True)
class StageBuilder:
    """Builds stages of ``plan``. ``schedule``: its order of passes; None without a pipeline, where the whole model is
    stage 0. ``loss_parallel``: logits stay split over the vocabulary. ``seed``: of parameters on the meta device.
    """

    plan: Plan
    schedule: Schedule | None
    mesh: DeviceMesh
    sharding: Sharding
    device: torch.device
    seed: int
    loss_parallel: bool

    def build(self, model: nn.Module) -> dict[int, nn.Module]:
        """{stage index: module} of this rank's stages. ``model`` is taken apart.

        A parameter that two of them hold is two parameters of equal value.
        """
        taken = {index: self._take(model, index) for index in self._own_stages()}
        return {index: self._prepare(stage, index) for index, stage in taken.items()}

    @property
    def splits_vocabulary(self) -> bool:
        """Whether embedding and output layer are split over the pipeline ranks instead of being on its end stages."""
        return self.schedule is not None and not self.schedule.kinds.isdisjoint(VOCAB_KINDS)

    def build_vocabulary(self, model: Any) -> VocabularyPart | None:
        """This rank's part of the vocabulary where it is split; call it before ``build``."""
        if not self.splits_vocabulary:
            return None
        for name in ("embed_tokens", "lm_head"):
            self._materialise(getattr(model, name), name)
        return VocabularyPart(model.embed_tokens, model.lm_head, self.mesh["pp"])

    def layers(self, index: int) -> list[PlanLayer]:
        """The layers on a stage; copies of the model hold the same."""
        if self.schedule is None:
            return list(self.plan.layers)
        return [layer for layer in self.plan.layers if layer.stage == index % self.schedule.stages_per_copy]

    def _own_stages(self) -> list[int]:
        if self.schedule is None:
            return [0]
        rank = self.mesh["pp"].get_local_rank()
        return [stage for stage, owner in enumerate(self.schedule.stage_to_rank) if owner == rank]

    def _ends(self, index: int) -> tuple[bool, bool]:
        """Whether a stage is the first of its copy of the model, and whether the last."""
        return (self.schedule.is_first(index), self.schedule.is_last(index)) if self.schedule else (True, True)

    def _take(self, model: Any, index: int) -> Any:
        first, last = self._ends(index)
        embeds = first and not self.splits_vocabulary
        stage = model.stage([layer.index for layer in self.layers(index)], first=embeds, last=last)
        if last and self.splits_vocabulary:
            stage.lm_head = nn.Identity()
        if self.schedule and index >= self.schedule.stages_per_copy:
            return deepcopy(stage)
        if last and not first and self.plan.model.tie_word_embeddings:
            stage.lm_head = deepcopy(stage.lm_head)
        return stage

    def _prepare(self, stage: Any, index: int) -> nn.Module:
        first, last = self._ends(index)
        first = first and not self.splits_vocabulary
        tied = first and last and stage.embed_tokens.weight is stage.lm_head.weight
        if first:
            self._prepare_embedding(stage, tied)
        chain = Chain()
        for layer in self.layers(index):
            self._prepare_layer(stage.layers[str(layer.index)], layer, chain)
        if last:
            self._prepare_head(stage, tied)
        self.sharding.shard(stage)
        return stage

    def _prepare_embedding(self, stage: Any, tied: bool) -> None:
        self._materialise(stage.embed_tokens, "embed_tokens")
        if self.plan.layout.tp > 1:
            split_embedding(stage.embed_tokens, self.mesh["tp"], sequence_parallel=self.plan.layout.sequence_parallel)
        if not tied:
            self.sharding.shard(stage.embed_tokens)

    def _prepare_layer(self, module: nn.Module, layer: PlanLayer, chain: Chain) -> None:
        self._materialise(module, f"layers.{layer.index}")
        if self.plan.layout.tp > 1:
            split_layer(module, self.mesh["tp"], sequence_parallel=self.plan.layout.sequence_parallel)
        narrow = narrow_from(layer, self.plan)
        keep_activations(module, layer.recompute, layer.offload, self.device, chain, narrow, layer.offload_to)
        self.sharding.shard(module)

    def _prepare_head(self, stage: Any, tied: bool) -> None:
        self._materialise(stage.norm, "norm")
        self._materialise(stage.lm_head, "embed_tokens" if self.plan.model.tie_word_embeddings else "lm_head")
        if self.plan.layout.tp > 1:
            split_head(
                stage.norm,
                stage.lm_head,
                self.mesh["tp"],
                sequence_parallel=self.plan.layout.sequence_parallel,
                loss_parallel=self.loss_parallel,
            )
        if tied:
            stage.lm_head.weight = stage.embed_tokens.weight
        else:
            self.sharding.shard(stage.norm, stage.lm_head)

    def _materialise(self, module: nn.Module, prefix: str) -> None:
        materialise(module, prefix, self.seed, self.sharding.numerics.stored, self.device)
