"""The one file that knows PyTorch's private pipelining runtime. Tests pin every private name used here.

The runtime is handed, for every schedule alike, the passes with their sends, receives, gathers and reductions as
``costmodel.passes.lower`` places them, and executes them one after the other. What is ours:

* a stage is first or last in its own copy of the model, whatever its number, so that two copies may run through the
  ranks in opposite directions, and nothing passes from the last stage of one copy to the first of the next;
* losses are kept by micro-batch, for a micro-batch may end on any rank and in any order;
* the first stage splits its backward as every other does: the runtime leaves all of it to W there;
* actions of kinds that PyTorch does not know run through functions of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.distributed.fsdp import FSDPModule
from torch.distributed.pipelining import PipelineStage
from torch.distributed.pipelining.schedules import _Action, _ComputationType, _PipelineScheduleRuntime

from costmodel.passes.actions import Action, ActionKind
from costmodel.schema.schedule import NO_MICROBATCH, PassKind, Schedule
from executor.clock import PassClock, PassUnits
from executor.pipeline.shapes import StageShapes


class Stage(PipelineStage):
    """A stage that knows its ends and its micro-batches, times its passes, and finds its parameters gathered for them.

    The runtime looks parameters up by identity for I and W, and a layer that a forward pass freed (ZeRO-3) would show
    it the sharded ones. A first stage that splits its backward is cut behind its embedding, whose output takes the
    place of the tokens, which have no gradient: I goes down to it, W does the rest and the embedding.
    """

    def __init__(
        self,
        module: nn.Module,
        index: int,
        schedule: Schedule,
        shapes: StageShapes,
        group: ProcessGroup,
        device: torch.device,
        clock: PassClock,
        units: PassUnits,
    ) -> None:
        self._first, self._last = schedule.is_first(index), schedule.is_last(index)
        self.clock, self.units = clock, units
        order = schedule.orders[schedule.stage_to_rank[index]]
        own = [part for step in order for part in step.work if part.stage == index]
        self.microbatches = {part.microbatch for part in own if part.kind is PassKind.FORWARD}
        self._embeds = self._first and any(part.kind is PassKind.INPUT_GRAD for part in own)
        if self._embeds:
            module.embed_tokens.register_forward_hook(self._cut_after_embedding)
        self._cut: list[tuple[Tensor, Tensor]] = []
        self._embedded: dict[int, Tensor] = {}
        entry, out = shapes.ends(first=self._first, last=self._last)
        super().__init__(module, index, schedule.num_stages, device, input_args=entry, output_args=out, group=group)

    @property
    def is_first(self) -> bool:
        return self._first

    @property
    def is_last(self) -> bool:
        return self._last

    def forward_one_chunk(
        self, fwd_chunk_id: int, args: Any, kwargs: dict[str, Any] | None = None, save_forward_output: bool = True
    ) -> Any:
        with self._passing("F", fwd_chunk_id):
            out = super().forward_one_chunk(fwd_chunk_id, args, kwargs, save_forward_output=save_forward_output)
        if self._embeds:
            outputs, _ = self.fwd_cache[fwd_chunk_id]
            self._embedded[fwd_chunk_id], entry = self._cut.pop()
            self.fwd_cache[fwd_chunk_id] = outputs, [entry]
        return out

    def backward_one_chunk(
        self, bwd_chunk_id: int, loss: Tensor | None = None, full_backward: bool = True, last_backward: bool = False
    ) -> None:
        with self._passing("B" if full_backward else "I", bwd_chunk_id):
            if not full_backward:
                self._gather()
            if self._embeds and not full_backward:
                self._input_gradient(bwd_chunk_id, loss)
                return
            super().backward_one_chunk(
                bwd_chunk_id, loss=loss, full_backward=full_backward, last_backward=last_backward
            )
            if self._embeds:
                self._embedding_gradient(bwd_chunk_id, *self.bwd_cache.pop(bwd_chunk_id))

    def backward_weight_one_chunk(self, bwd_chunk_id: int, last_backward: bool = False) -> None:
        with self._passing("W", bwd_chunk_id):
            self._gather()
            if not self._embeds:
                super().backward_weight_one_chunk(bwd_chunk_id, last_backward=last_backward)
                return
            groups, gradient = self.backward_state.pop(bwd_chunk_id)
            self.backward_maybe_with_nosync("weight", {"param_groups": groups})
            self._embedding_gradient(bwd_chunk_id, gradient)

    def _cut_after_embedding(self, _module: nn.Module, _args: Any, embedded: Tensor) -> Tensor:
        entry = embedded.detach().requires_grad_()
        self._cut.append((embedded, entry))
        return entry

    def _input_gradient(self, microbatch: int, loss: Tensor | None) -> None:
        """I of a first stage: down to what the embedding gave out."""
        output, inputs = self.fwd_cache.pop(microbatch)
        gradients = None if self.is_last else self._retrieve_recv_grads(microbatch)
        work = {"stage_output": (loss,) if self.is_last else output, "output_grads": gradients, "input_values": inputs}
        (gradient,), groups = self.backward_maybe_with_nosync("input", work)
        self.backward_state[microbatch] = groups, gradient

    def _embedding_gradient(self, microbatch: int, gradient: Tensor) -> None:
        self._embedded.pop(microbatch).backward(gradient)

    def set_local_fwd_input(self, prev_stage_outputs: Any, mb_index: int) -> None:
        if not self.is_first:
            super().set_local_fwd_input(prev_stage_outputs, mb_index)

    def get_local_bwd_output(self, mb_index: int) -> Any:
        return self.bwd_cache.pop(mb_index, ())

    def set_local_bwd_input(self, next_stage_bwd_outputs: Any, mb_index: int) -> None:
        if not self.is_last:
            super().set_local_bwd_input(next_stage_bwd_outputs, mb_index)

    def _setup_backward_recv_info(self, num_microbatches: int) -> None:
        """Buffers for this copy's micro-batches only."""
        super()._setup_backward_recv_info(num_microbatches)
        for received in (self.args_recv_info, self.grad_recv_info):
            for microbatch in received.keys() - self.microbatches:
                for info in received[microbatch]:
                    info.buffer = None

    def _passing(self, kind: str, microbatch: int) -> AbstractContextManager[None]:
        return self.clock.passing(f"{self.stage_index}{kind}{microbatch}", self.units.of(kind))

    def _gather(self) -> None:
        for module in self.submod.modules():
            if isinstance(module, FSDPModule):
                module.unshard()


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
        for kind, function in extra.items():
            # register_custom_function takes PyTorch's own kinds only.
            self._comp_type_to_function_map[kind] = _on_action(function)
        # What _prepare_schedule_with_comms sets for "compute_comms", without its check: that wants every micro-batch on
        # every stage, which copies contradict.
        self.pipeline_order_with_comms = {rank: list(map(torch_action, order)) for rank, order in enumerate(actions)}
        self.stage_index_to_group_rank = dict(enumerate(schedule.stage_to_rank))
        for stage in stages:
            stage.stage_index_to_group_rank = self.stage_index_to_group_rank

    def take_losses(self) -> list[Tensor]:
        """The losses of the last step's micro-batches that ended on this rank, detached."""
        losses = list(self.losses.values())
        self.losses.clear()
        return losses

    def _maybe_compute_loss(
        self, stage: Any, output: Any, target_mbs: Any, mb_index: int, loss_kwargs: Any = None
    ) -> None:
        if stage.is_last:
            self.losses[mb_index] = self._compute_loss(output, target_mbs[mb_index], loss_kwargs)

    def _maybe_get_loss(self, stage: Any, mb_index: int) -> Tensor | None:
        if not stage.is_last:
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
