"""The one file that knows PyTorch's private pipelining runtime: it runs the plan's own order of passes.

The plan's passes ("0F0 0F1 0I0 0W0 …" per rank) become the runtime's actions; the runtime adds sends, receives,
gathers and the reduction of gradients, and executes them. Tests pin every private name used here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.distributed.fsdp import FSDPModule
from torch.distributed.pipelining import PipelineStage
from torch.distributed.pipelining.schedules import _Action, _ComputationType, _PipelineScheduleRuntime

from costmodel.schema.schedule import Schedule
from executor.clock import PassClock, PassUnits

LossFunction = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class StageShapes:
    """One rank's micro-batch at a stage's ends: tokens [B, T], hidden [B, T / split, H], logits [B, T, V / split]."""

    tokens: tuple[int, int]
    hidden: tuple[int, int, int]
    logits: tuple[int, int, int]
    dtype: torch.dtype

    def ends(self, *, first: bool, last: bool) -> tuple[Tensor, Tensor]:
        """A stage's input and output as meta tensors."""
        hidden = torch.empty(self.hidden, dtype=self.dtype, device="meta", requires_grad=True)
        tokens = torch.empty(self.tokens, dtype=torch.int64, device="meta")
        logits = torch.empty(self.logits, dtype=self.dtype, device="meta", requires_grad=True)
        return tokens if first else hidden, logits if last else hidden


class _Stage(PipelineStage):
    """A stage whose passes are timed, and whose split backward finds its parameters gathered.

    The runtime looks parameters up by identity for I and W, and a layer that a forward pass freed (ZeRO-3) would show
    it the sharded ones.
    """

    clock: PassClock
    units: PassUnits

    def forward_one_chunk(
        self, fwd_chunk_id: int, args: Any, kwargs: dict[str, Any] | None = None, save_forward_output: bool = True
    ) -> Any:
        with self._passing("F", fwd_chunk_id):
            return super().forward_one_chunk(fwd_chunk_id, args, kwargs, save_forward_output=save_forward_output)

    def backward_one_chunk(
        self, bwd_chunk_id: int, loss: Tensor | None = None, full_backward: bool = True, last_backward: bool = False
    ) -> None:
        with self._passing("B" if full_backward else "I", bwd_chunk_id):
            if not full_backward:
                self._gather()
            super().backward_one_chunk(
                bwd_chunk_id, loss=loss, full_backward=full_backward, last_backward=last_backward
            )

    def backward_weight_one_chunk(self, bwd_chunk_id: int, last_backward: bool = False) -> None:
        with self._passing("W", bwd_chunk_id):
            self._gather()
            super().backward_weight_one_chunk(bwd_chunk_id, last_backward=last_backward)

    def _passing(self, kind: str, microbatch: int) -> AbstractContextManager[None]:
        return self.clock.passing(f"{self.stage_index}{kind}{microbatch}", self.units.of(kind))

    def _gather(self) -> None:
        for module in self.submod.modules():
            if isinstance(module, FSDPModule):
                module.unshard()


class Pipeline:
    """This rank's stages and the schedule that drives them."""

    def __init__(
        self,
        stages: dict[int, nn.Module],
        schedule: Schedule,
        shapes: StageShapes,
        loss_function: LossFunction,
        group: ProcessGroup,
        device: torch.device,
        clock: PassClock,
        units: dict[int, PassUnits],
    ) -> None:
        wrapped = []
        for index, module in sorted(stages.items()):
            entry, out = shapes.ends(first=index == 0, last=index == schedule.num_stages - 1)
            stage = _Stage(module, index, schedule.num_stages, device, input_args=entry, output_args=out, group=group)
            stage.clock, stage.units = clock, units[index]
            wrapped.append(stage)
        self.is_first = 0 in stages
        self.is_last = schedule.num_stages - 1 in stages
        self.runtime = _PipelineScheduleRuntime(wrapped, schedule.num_microbatches, loss_fn=loss_function)
        self.runtime._prepare_schedule_with_comms(lower(schedule))

    def step(self, tokens: Tensor, targets: Tensor) -> Tensor | None:
        """Run every pass of one step on ``tokens`` and ``targets`` [micro-batches · B, T], leaving averaged gradients.

        Returns the mean loss on the rank that holds the last stage, None elsewhere.
        """
        losses: list[Tensor] = []
        inputs = (tokens,) if self.is_first else ()
        self.runtime.step(*inputs, target=targets if self.is_last else None, losses=losses, return_outputs=False)
        return torch.stack([loss.detach() for loss in losses]).mean() if losses else None


def lower(schedule: Schedule) -> dict[int, list[Any]]:
    """The schedule's passes as the runtime's compute actions, by pipeline rank."""
    return {rank: [_action(step) for step in order] for rank, order in enumerate(schedule.orders)}


def _action(step: Sequence[Any]) -> _Action:
    kind, stage, microbatch = step[:3]
    return _Action(stage, _ComputationType.from_str(kind.value), microbatch)
