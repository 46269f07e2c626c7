"""Pipeline: one step of this rank's stages in the plan's own order."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from costmodel.passes.actions import ActionKind
from costmodel.passes.lower import lower
from costmodel.schema.schedule import Schedule
from executor.clock import PassClock, PassUnits
from executor.pipeline.runtime import Runtime
from executor.pipeline.shapes import StageShapes
from executor.pipeline.stage import Stage
from executor.vocabulary import VocabularyPasses

LossFunction = Callable[[Tensor, Tensor], Tensor]

ExtraAction = Callable[[int, int], None]
"""Runs one action of a kind that PyTorch does not know; takes the action's stage and micro-batch."""


class Pipeline:
    """This rank's stages and the schedule that drives them.

    ``stages``: {stage index: module}; ``units``: what each stage's passes are made of. ``vocabulary``: the passes on
    this rank's part of it, where the schedule splits it.
    """

    def __init__(
        self,
        stages: Mapping[int, nn.Module],
        schedule: Schedule,
        shapes: StageShapes,
        loss_function: LossFunction,
        group: ProcessGroup,
        device: torch.device,
        clock: PassClock,
        units: Mapping[int, PassUnits],
        vocabulary: VocabularyPasses | None = None,
    ) -> None:
        self.loss_function = loss_function
        self.stages = [
            Stage(module, index, schedule, shapes, group, device, clock, units[index], vocabulary)
            for index, module in sorted(stages.items())
        ]
        self.vocabulary = vocabulary
        self.takes_tokens = vocabulary is None and any(schedule.is_first(index) for index in stages)
        self.takes_targets = vocabulary is None and any(schedule.is_last(index) for index in stages)
        self.follow(schedule, {})

    def follow(self, schedule: Schedule, extra: Mapping[ActionKind, ExtraAction]) -> None:
        """Run this order from the next step on: the stages' same passes, and others among them.

        ``extra``: how to run kinds that neither PyTorch nor a split vocabulary knows, such as FROZEN_F. Raises
        InvalidSpec for an order that cannot run. All ranks call it together.
        """

        def share_of_loss(logits: Tensor, targets: Tensor) -> Tensor:
            return self.loss_function(logits, targets) / schedule.num_microbatches

        functions = {**(self.vocabulary.actions if self.vocabulary else {}), **extra}
        self.runtime = Runtime(self.stages, schedule, lower(schedule, gathers=True), share_of_loss, functions)

    def step(self, tokens: Tensor, targets: Tensor) -> Tensor | None:
        """Run every pass of one step on ``tokens`` and ``targets`` [micro-batches · B, T], leaving averaged gradients.

        Returns, on a rank that holds a last stage, the sum over the micro-batches that end there of
        loss / micro-batches - summed over ranks, the mean loss; None elsewhere.
        """
        if self.vocabulary:
            self.vocabulary.begin(tokens, targets)
        inputs = (tokens,) if self.takes_tokens else ()
        self.runtime.step(*inputs, target=targets if self.takes_targets else None, return_outputs=False)
        losses = self.vocabulary.end() if self.vocabulary else self.runtime.take_losses()
        return torch.stack(losses).sum() if losses else None
