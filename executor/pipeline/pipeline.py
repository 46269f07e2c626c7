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
from executor.pipeline.runtime import Runtime, Stage
from executor.pipeline.shapes import StageShapes

LossFunction = Callable[[Tensor, Tensor], Tensor]

ExtraAction = Callable[[int, int], None]
"""Runs one action of a kind that PyTorch does not know; takes the action's stage and micro-batch."""


class Pipeline:
    """This rank's stages and the schedule that drives them.

    ``stages``: {stage index: module}; ``units``: what each stage's passes are made of. ``extra``: how to run actions of
    kinds that PyTorch does not know.
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
        extra: Mapping[ActionKind, ExtraAction] | None = None,
    ) -> None:
        def share_of_loss(logits: Tensor, targets: Tensor) -> Tensor:
            return loss_function(logits, targets) / schedule.num_microbatches

        wrapped = [
            Stage(module, index, schedule, shapes, group, device, clock, units[index])
            for index, module in sorted(stages.items())
        ]
        self.takes_tokens = any(schedule.is_first(index) for index in stages)
        self.takes_targets = any(schedule.is_last(index) for index in stages)
        self.runtime = Runtime(wrapped, schedule, lower(schedule, gathers=True), share_of_loss, extra or {})

    def step(self, tokens: Tensor, targets: Tensor) -> Tensor | None:
        """Run every pass of one step on ``tokens`` and ``targets`` [micro-batches · B, T], leaving averaged gradients.

        Returns, on a rank that holds a last stage, the sum over the micro-batches that end there of
        loss / micro-batches - summed over ranks, the mean loss; None elsewhere.
        """
        inputs = (tokens,) if self.takes_tokens else ()
        self.runtime.step(*inputs, target=targets if self.takes_targets else None, return_outputs=False)
        losses = self.runtime.take_losses()
        return torch.stack(losses).sum() if losses else None
