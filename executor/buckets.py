"""Many tensors summed over ranks in few all-reduces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

BUCKET_BYTES = 2**25
"""What one all-reduce carries: 32 MiB, near DistributedDataParallel's default of 25."""


def sum_over(group: dist.ProcessGroup, tensors: Sequence[Tensor], scale: float = 1.0) -> None:
    """Replace each tensor by ``scale`` times its sum over ``group``; every rank gives the same shapes in order."""
    for bucket in buckets(tensors, BUCKET_BYTES):
        flat = torch.cat([tensor.flatten() for tensor in bucket])
        dist.all_reduce(flat, group=group)
        flat *= scale
        for tensor, total in zip(bucket, flat.split([tensor.numel() for tensor in bucket]), strict=True):
            tensor.copy_(total.view_as(tensor))


def buckets(tensors: Sequence[Tensor], most_bytes: int) -> Iterator[list[Tensor]]:
    """Runs of tensors of one type and at most ``most_bytes`` together; a larger tensor is a run of its own."""
    bucket: list[Tensor] = []
    num_bytes = 0
    for tensor in tensors:
        if bucket and (num_bytes + tensor.nbytes > most_bytes or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket, num_bytes = [], 0
        bucket.append(tensor)
        num_bytes += tensor.nbytes
    if bucket:
        yield bucket
