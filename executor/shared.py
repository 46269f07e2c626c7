"""Parameters that several stages hold, kept equal by giving each the sum of all their gradients.

Two things make a parameter shared: a schedule of two directions, where every layer stands once in each copy of the
model, and a tied embedding, which the first and the last stage hold. Each holder starts from the same values and sees
other micro-batches or another use; the sum of the gradients is the whole one, and equal updates keep the values equal.
Source: Li and Hoefler 2021, "Chimera", section 3.2 (copies); Shoeybi et al. 2019, "Megatron-LM" (tied ends).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cache

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor

from costmodel.schema.schedule import Schedule
from executor.buckets import sum_over

EMBEDDING = "embed_tokens.weight"
HEAD = "lm_head.weight"


class SharedParameters:
    """Which pipeline ranks hold a parameter. ``group``: this rank's pipeline group."""

    def __init__(self, schedule: Schedule, *, tied: bool, group: dist.ProcessGroup) -> None:
        self.schedule, self.tied = schedule, tied
        self.global_ranks = dist.get_process_group_ranks(group)

    def name_of(self, name: str) -> str:
        """The parameter's name in the whole model: a tied head is its embedding."""
        return EMBEDDING if self.tied and name == HEAD else name

    def holders(self, stage: int, name: str) -> tuple[int, ...]:
        """The pipeline rank of every stage that holds what ``stage`` calls ``name``, in ascending order."""
        schedule = self.schedule
        per_copy = schedule.stages_per_copy
        at_both_ends = self.tied and name in (EMBEDDING, HEAD)
        positions = {0, per_copy - 1} if at_both_ends else {stage % per_copy}
        stages = (copy * per_copy + position for copy in range(schedule.copies) for position in positions)
        return tuple(sorted(schedule.stage_to_rank[stage] for stage in stages))

    def sum_gradients(self, parameters: Iterable[tuple[int, str, nn.Parameter]]) -> None:
        """Give every holder the sum of all holders' gradients. ``parameters``: this rank's, with stage and name.

        All ranks of the pipeline call it together.
        """
        held: dict[tuple[int, ...], dict[str, list[torch.Tensor]]] = defaultdict(lambda: defaultdict(list))
        for stage, name, parameter in parameters:
            holders = self.holders(stage, name)
            if len(holders) > 1:
                held[holders][self.name_of(name)].append(_local_gradient(parameter))
        for holders, by_name in sorted(held.items()):
            copies = [by_name[name] for name in sorted(by_name)]
            for first, *others in copies:
                for other in others:
                    first += other
            if len(ranks := sorted(set(holders))) > 1:
                sum_over(_group(tuple(self.global_ranks[rank] for rank in ranks)), [first for first, *_ in copies])
            for first, *others in copies:
                for other in others:
                    other.copy_(first)


def _local_gradient(parameter: nn.Parameter) -> torch.Tensor:
    if parameter.grad is None:  # no micro-batch crossed this copy
        parameter.grad = torch.zeros_like(parameter)
    gradient = parameter.grad
    return gradient.to_local() if isinstance(gradient, DTensor) else gradient


@cache
def _group(ranks: Sequence[int]) -> dist.ProcessGroup:
    return dist.new_group(list(ranks), use_local_synchronization=True)
