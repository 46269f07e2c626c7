"""Stage: one of this rank's stages on PyTorch's pipelining runtime, whose private parts it knows as runtime.py does.

What is ours:

* a stage is first or last in its own copy of the model, whatever its number, so that two copies may run through the
  ranks in opposite directions, and nothing passes from the last stage of one copy to the first of the next;
* a buffer is allocated when its receive is issued and let go when its pass has used it, an output when it has been
  sent, what a backward took in when it is done: the runtime holds buffers for every micro-batch of the step;
* the first stage splits its backward as every other does: the runtime leaves all of it to W there;
* with the vocabulary split over the ranks, hidden states and their gradients come and go at both ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.distributed.fsdp import FSDPModule
from torch.distributed.pipelining import PipelineStage

from costmodel.schema.schedule import PassKind, Schedule
from executor.clock import PassClock, PassUnits
from executor.pipeline.shapes import StageShapes


class Ends(Protocol):
    """What stands before the first stage and behind the last where they take in and put out hidden states.

    The ``take_`` methods wait until a micro-batch's tensor is there and let go of it.
    """

    def take_embedded(self, microbatch: int) -> Tensor:
        """What the first stage takes in: a leaf that requires its gradient."""

    def give_hidden(self, microbatch: int, hidden: Tensor) -> None:
        """What the last stage put out, without its graph."""

    def take_output_gradient(self, microbatch: int) -> Tensor:
        """The gradient of what the last stage put out."""

    def give_input_gradient(self, microbatch: int, gradient: Tensor) -> None:
        """The gradient of what the first stage took in."""


class Stage(PipelineStage):
    """A stage that knows its ends and its micro-batches, times its passes, and finds its parameters gathered for them.

    The runtime looks parameters up by identity for I and W, and a layer that a forward pass freed (ZeRO-3) would show
    it the sharded ones. A first stage that splits its backward is cut behind its embedding, whose output takes the
    place of the tokens, which have no gradient: I goes down to it, W does the rest and the embedding.

    ``ends``: what stands around the stages, None where the first one takes tokens and the last one ends in the loss.
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
        ends: Ends | None = None,
    ) -> None:
        self._first, self._last = schedule.is_first(index), schedule.is_last(index)
        self.clock, self.units, self.ends = clock, units, ends
        own = [part for step in schedule.orders[schedule.stage_to_rank[index]] for part in step.work]
        splits = any(part.stage == index and part.kind is PassKind.INPUT_GRAD for part in own)
        self._embeds = self._first and splits and ends is None
        if self._embeds:
            module.embed_tokens.register_forward_hook(self._cut_after_embedding)
        self._cut: list[tuple[Tensor, Tensor]] = []
        self._embedded: dict[int, Tensor] = {}
        entry, out = shapes.ends(first=self._first and ends is None, last=self._last and ends is None)
        super().__init__(module, index, schedule.num_stages, device, input_args=entry, output_args=out, group=group)

    @property
    def is_first(self) -> bool:
        return self._first

    @property
    def is_last(self) -> bool:
        return self._last

    @property
    def ends_in_loss(self) -> bool:
        return self._last and self.ends is None

    def forward_one_chunk(
        self, fwd_chunk_id: int, args: Any, kwargs: dict[str, Any] | None = None, save_forward_output: bool = True
    ) -> Any:
        if self.ends is not None and self._first:
            args = (self.ends.take_embedded(fwd_chunk_id),)
        with self._passing("F", fwd_chunk_id):
            out = super().forward_one_chunk(fwd_chunk_id, args, kwargs, save_forward_output=save_forward_output)
        _let_go(self.args_recv_info[fwd_chunk_id])
        if self._embeds:
            outputs, _ = self.fwd_cache[fwd_chunk_id]
            self._embedded[fwd_chunk_id], entry = self._cut.pop()
            self.fwd_cache[fwd_chunk_id] = outputs, [entry]
        if self.ends is not None and self._last:
            self.ends.give_hidden(fwd_chunk_id, out.detach())
        return out

    def backward_one_chunk(
        self, bwd_chunk_id: int, loss: Tensor | None = None, full_backward: bool = True, last_backward: bool = False
    ) -> None:
        gradients = self._output_gradients(bwd_chunk_id)
        with self._passing("B" if full_backward else "I", bwd_chunk_id):
            output, inputs = self.fwd_cache.pop(bwd_chunk_id)
            work = {"stage_output": output, "output_grads": gradients, "input_values": inputs}
            if full_backward:
                if gradients is None:
                    work["stage_output"] = loss
                taken, _ = self.backward_maybe_with_nosync("full", work)
                if self._embeds:
                    self._embedded.pop(bwd_chunk_id).backward(taken[0])
            else:
                if gradients is None:
                    work["stage_output"] = (loss,)
                self._gather()
                taken, groups = self.backward_maybe_with_nosync("input", work)
                self.backward_state[bwd_chunk_id] = groups, taken[0] if self._embeds else None
                for each in inputs:
                    each.grad = None  # nor keep what has been sent until W
        self._give_input_gradients(bwd_chunk_id, taken)

    def backward_weight_one_chunk(self, bwd_chunk_id: int, last_backward: bool = False) -> None:
        with self._passing("W", bwd_chunk_id):
            self._gather()
            groups, gradient = self.backward_state.pop(bwd_chunk_id)
            self.backward_maybe_with_nosync("weight", {"param_groups": groups})
            if self._embeds:
                self._embedded.pop(bwd_chunk_id).backward(gradient)

    def _cut_after_embedding(self, _module: nn.Module, _args: Any, embedded: Tensor) -> Tensor:
        entry = embedded.detach().requires_grad_()
        self._cut.append((embedded, entry))
        return entry

    def _output_gradients(self, microbatch: int) -> tuple[Tensor, ...] | None:
        """The gradients of what the stage put out; None where that went into the loss."""
        if self.ends_in_loss:
            return None
        if self._last:
            assert self.ends is not None
            return (self.ends.take_output_gradient(microbatch),)
        gradients: tuple[Tensor, ...] = self._retrieve_recv_grads(microbatch)
        _let_go(self.grad_recv_info[microbatch])
        return gradients

    def _give_input_gradients(self, microbatch: int, gradients: tuple[Any, ...]) -> None:
        if not self._first:
            self.bwd_cache[microbatch] = gradients
        elif self.ends is not None:
            self.ends.give_input_gradient(microbatch, gradients[0])

    def set_local_fwd_input(self, prev_stage_outputs: Any, mb_index: int) -> None:
        if not self.is_first:
            super().set_local_fwd_input(prev_stage_outputs, mb_index)
            _drop_values((prev_stage_outputs,))

    def get_local_bwd_output(self, mb_index: int) -> Any:
        return self.bwd_cache.pop(mb_index, ())

    def set_local_bwd_input(self, next_stage_bwd_outputs: Any, mb_index: int) -> None:
        if not self.is_last:
            super().set_local_bwd_input(next_stage_bwd_outputs, mb_index)

    def get_fwd_send_ops(self, fwd_chunk_id: int) -> list[dist.P2POp]:
        ops: list[dist.P2POp] = super().get_fwd_send_ops(fwd_chunk_id)
        _drop_values(self.fwd_cache[fwd_chunk_id][0])
        return ops

    def get_fwd_recv_ops(self, fwd_chunk_id: int) -> list[dist.P2POp]:
        self._allocate(self.args_recv_info[fwd_chunk_id])
        return super().get_fwd_recv_ops(fwd_chunk_id)

    def get_bwd_recv_ops(self, bwd_chunk_id: int) -> list[dist.P2POp]:
        self._allocate(self.grad_recv_info[bwd_chunk_id])
        return super().get_bwd_recv_ops(bwd_chunk_id)

    def _allocate(self, infos: Sequence[Any]) -> None:
        for info in infos:
            info.buffer = torch.empty(info.tensor_meta.shape, dtype=info.tensor_meta.dtype, device=self.device)

    def _setup_forward_recv_info(self, num_microbatches: int, has_backward: bool) -> None:
        self._without_buffers(super()._setup_forward_recv_info, num_microbatches, has_backward)
        for infos in self.args_recv_info.values():
            _let_go(infos)

    def _setup_backward_recv_info(self, num_microbatches: int) -> None:
        self._without_buffers(super()._setup_backward_recv_info, num_microbatches)
        for infos in self.grad_recv_info.values():
            _let_go(infos)

    def _without_buffers(self, set_up: Callable[..., None], *arguments: Any) -> None:
        """Call what allocates every micro-batch's buffer, on a device where that takes no memory."""
        device, self.device = self.device, torch.device("meta")
        try:
            set_up(*arguments)
        finally:
            self.device = device

    def _passing(self, kind: str, microbatch: int) -> AbstractContextManager[None]:
        return self.clock.passing(f"{self.stage_index}{kind}{microbatch}", self.units.of(kind))

    def _gather(self) -> None:
        for module in self.submod.modules():
            if isinstance(module, FSDPModule):
                module.unshard()


def _let_go(infos: Sequence[Any]) -> None:
    for info in infos:
        info.buffer = None


def _drop_values(outputs: Sequence[Tensor]) -> None:
    """Keep of outputs that are on their way what their backward needs: graph, shape and type.

    Source: Megatron-LM, ``--deallocate-pipeline-outputs`` does the same.
    """
    for out in outputs:
        if out.grad_fn is not None and not out._is_view():
            out.data = out.new_empty(()).expand(out.shape)
