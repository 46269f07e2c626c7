"""Runtime: lowered actions run one after the other by PyTorch's private pipelining runtime.

This file and stage.py are the ones that know it; tests pin every private name they use. The runtime is handed, for
every schedule alike, the passes with their sends, receives, gathers, reductions and collectives as
``costmodel.passes.lower`` places them. What is ours:

* losses are kept by micro-batch, for a micro-batch may end on any rank and in any order;
* of a stage's sends in one direction the last two are under way; the runtime holds what all of them carry until the
  step ends;
* actions of kinds that PyTorch does not know run through functions of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.distributed.pipelining.schedules import (
    _Action,
    _batch_p2p,
    _ComputationType,
    _PipelineScheduleRuntime,
    _wait_batch_p2p,
)

from costmodel.passes.actions import Action, ActionKind
from costmodel.schema.schedule import NO_MICROBATCH, Schedule
from executor.pipeline.stage import Stage


class _Sends:
    """Sends under way. A send is waited for when the next one of its stage and direction has been issued."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self.stages = {stage.stage_index: stage for stage in stages}
        self.under_way: dict[tuple[int, _ComputationType], list[dist.Work]] = {}

    def __call__(self, action: _Action, _: object) -> None:
        kind, stage = action.computation_type, self.stages[action.stage_index]
        activation = kind is _ComputationType.SEND_F
        operations = stage.get_fwd_send_ops if activation else stage.get_bwd_send_ops
        work = _batch_p2p(operations(action.microbatch_index))
        key = action.stage_index, kind
        _wait_batch_p2p(self.under_way.pop(key, []))
        self.under_way[key] = work

    def wait(self) -> None:
        for work in self.under_way.values():
            _wait_batch_p2p(work)
        self.under_way.clear()


class Runtime(_PipelineScheduleRuntime):
    """Runs lowered actions. ``loss_function`` gives a micro-batch's share of the loss: gradients are not scaled."""

    def __init__(
        self,
        stages: list[Stage],
        schedule: Schedule,
        actions: Sequence[Sequence[Action]],
        loss_function: Callable[[Tensor, Tensor], Tensor],
        extra: Mapping[ActionKind, Callable[[int, int], None]],
    ) -> None:
        super().__init__(stages, schedule.num_microbatches, loss_fn=loss_function, scale_grads=False)
        self.losses: dict[int, Tensor] = {}
        self.sends = _Sends(stages)
        for send in (_ComputationType.SEND_F, _ComputationType.SEND_B):
            self._comp_type_to_function_map[send] = self.sends
        for kind, function in extra.items():
            # register_custom_function takes PyTorch's own kinds only.
            self._comp_type_to_function_map[kind] = _on_action(function)
        # What _prepare_schedule_with_comms sets for "compute_comms", without its check: that wants every micro-batch on
        # every stage, which copies contradict.
        self.pipeline_order_with_comms = {rank: list(map(torch_action, order)) for rank, order in enumerate(actions)}
        self.stage_index_to_group_rank = dict(enumerate(schedule.stage_to_rank))
        for stage in stages:
            stage.stage_index_to_group_rank = self.stage_index_to_group_rank

    def step(self, *args: Any, **kwargs: Any) -> None:
        super().step(*args, **kwargs)
        self.sends.wait()

    def take_losses(self) -> list[Tensor]:
        """The losses of the last step's micro-batches that ended on this rank, detached."""
        losses = list(self.losses.values())
        self.losses.clear()
        return losses

    def _maybe_compute_loss(
        self, stage: Any, output: Any, target_mbs: Any, mb_index: int, loss_kwargs: Any = None
    ) -> None:
        if stage.ends_in_loss:
            self.losses[mb_index] = self._compute_loss(output, target_mbs[mb_index], loss_kwargs)

    def _maybe_get_loss(self, stage: Any, mb_index: int) -> Tensor | None:
        if not stage.ends_in_loss:
            return None
        loss = self.losses[mb_index]
        self.losses[mb_index] = loss.detach()  # lets go of the graph once the backward is done
        return loss

    def _update_losses(self, stages: Any, losses: Any) -> None:
        """Losses stay here until they are taken."""


_KNOWN = frozenset(kind.value for kind in _ComputationType)


def torch_action(action: Action) -> _Action:
    """The action as the runtime's own; a kind that it does not know keeps our name."""
    known = action.kind in _KNOWN
    kind = _ComputationType(action.kind.value) if known else action.kind
    microbatch = None if action.microbatch == NO_MICROBATCH else action.microbatch
    return _Action(action.stage, kind, microbatch, tuple(map(torch_action, action.parts)) or None)


def _on_action(function: Callable[[int, int], None]) -> Callable[[_Action, object], None]:
    return lambda action, _: function(action.stage_index, action.microbatch_index)
