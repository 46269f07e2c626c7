"""Collectives over the pipeline ranks that run beside the passes and are waited for by what takes their result."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup, Work


@dataclass(frozen=True)
class Coming:
    """A tensor that is there once ``work`` has ended."""

    tensor: Tensor
    work: Work

    def take(self) -> Tensor:
        """Wait, on CUDA the current stream only."""
        self.work.wait()
        return self.tensor


class Collectives:
    """Issues collectives, which all ranks of ``group`` do in the same order, and keeps them until they have ended."""

    def __init__(self, group: ProcessGroup) -> None:
        self.group = group
        self.rank = dist.get_rank(group)
        self.under_way: list[Work] = []

    def broadcast(self, tensor: Tensor, root: int) -> Coming:
        """``tensor`` of the rank ``root`` of the group, into the others'."""
        return self._issued(tensor, dist.broadcast(tensor, group=self.group, group_src=root, async_op=True))

    def add_onto(self, tensor: Tensor, root: int) -> Coming:
        """The sum over ranks in ``root``'s ``tensor``; the others' are spoiled."""
        return self._issued(tensor, dist.reduce(tensor, group=self.group, group_dst=root, async_op=True))

    def gather(self, tensor: Tensor) -> Coming:
        """All ranks' tensors, [ranks, ...], on all of them."""
        out = tensor.new_empty((dist.get_world_size(self.group), *tensor.shape))
        return self._issued(out, dist.all_gather(list(out.unbind()), tensor, group=self.group, async_op=True))

    def wait(self) -> None:
        """Until all have ended."""
        for work in self.under_way:
            work.wait()
        self.under_way.clear()

    def _issued(self, tensor: Tensor, work: Work) -> Coming:
        self.under_way = [each for each in self.under_way if not each.is_completed()]
        self.under_way.append(work)
        return Coming(tensor, work)


def second_group(group: ProcessGroup) -> ProcessGroup:
    """Another group of the same ranks, whose collectives keep an order of their own."""
    return _group_of(tuple(dist.get_process_group_ranks(group)))


@cache
def _group_of(ranks: tuple[int, ...]) -> ProcessGroup:
    return dist.new_group(list(ranks), use_local_synchronization=True)


def empty_like_hidden(tokens: Tensor, hidden_size: int, dtype: torch.dtype) -> Tensor:
    """[B, T, H] for tokens [B, T]."""
    return torch.empty((*tokens.shape, hidden_size), dtype=dtype, device=tokens.device)
