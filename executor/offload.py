"""Where saved activations wait for the backward pass: on the device, or a share of them in host memory.

On CUDA the copies run on streams of their own, one each way, to and from pinned memory; on the CPU backend they are
plain copies, counted as host memory (see ``executor.memory``), so that plans with offload run the same code everywhere.
When a layer's backward begins, what the layer before it put away is fetched, so that its copy hides behind this one.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor
from torch.distributed._functional_collectives import AsyncCollectiveTensor
from torch.distributed.tensor import DTensor

from executor.memory import host_allocations

SMALLEST_OFFLOADED_BYTES = 1024
"""Tensors below this stay on the device: a copy costs more than it frees."""


class _OnHost:
    """A tensor's values in host memory, and how to make the tensor again."""

    __slots__ = ("__weakref__", "fetched", "host", "like", "ready", "restored")

    def __init__(self, tensor: Tensor) -> None:
        self.like = (
            (tensor.device_mesh, tensor.placements, tensor.shape, tensor.stride())
            if isinstance(tensor, DTensor)
            else None
        )
        self.fetched: _Fetched | None = None
        self.restored: weakref.ref[Tensor] | None = None
        self.host, self.ready = _to_host(_local(tensor))

    def restore(self, device: torch.device) -> Tensor:
        """The tensor on the device again; uses that overlap in time share one copy."""
        if self.restored is not None and (alive := self.restored()) is not None:
            return alive
        self.fetch(device)
        assert self.fetched is not None
        local = self.fetched.arrived()
        self.fetched = None
        tensor = local
        if self.like is not None:
            mesh, placements, shape, stride = self.like
            tensor = DTensor.from_local(local, mesh, placements, run_check=False, shape=shape, stride=stride)
        self.restored = weakref.ref(tensor)
        return tensor

    def fetch(self, device: torch.device) -> None:
        """Start the copy back, unless it is under way or its result is alive."""
        if self.fetched is None and (self.restored is None or self.restored() is None):
            self.fetched = _Fetched(self.host, self.ready, device)


class _OnDevice:
    """A tensor that stays where it is."""

    __slots__ = ("tensor",)

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


class Keep:
    """Keeps what one layer saves in one forward pass, about ``share`` of its bytes on the host. Parameters stay.

    ``pack`` and ``unpack`` are also the pair of hooks that ``torch.autograd.graph.saved_tensors_hooks`` takes.
    ``earlier``: what the layer before keeps of the same micro-batch; its backward comes next.
    """

    packed_types = (_OnHost, _OnDevice)

    def __init__(
        self, share: float, device: torch.device, parameters: Iterable[Tensor] = (), earlier: Keep | None = None
    ) -> None:
        self.share, self.device = share, device
        self.earlier = None if earlier is None else weakref.ref(earlier)
        self.seen_bytes = self.host_bytes = 0
        self.parameter_pointers = {_storage(parameter).data_ptr() for parameter in parameters} if share else set()
        self.copies: dict[tuple[Any, ...], tuple[weakref.ref[torch.UntypedStorage], weakref.ref[_OnHost]]] = {}

    def pack(self, tensor: Tensor) -> _OnHost | _OnDevice:
        """Put ``tensor`` away; equal views of one storage are put away once."""
        num_bytes = tensor.numel() * tensor.element_size()
        if not self.share or num_bytes < SMALLEST_OFFLOADED_BYTES or not tensor.is_floating_point():
            return _OnDevice(tensor)
        storage = _storage(tensor)
        if storage.data_ptr() in self.parameter_pointers:
            return _OnDevice(tensor)
        key = (storage.data_ptr(), tensor.storage_offset(), tensor.shape, tensor.stride(), tensor._version)
        if key in self.copies:
            source, known = self.copies[key]
            copy = known()
            if source() is storage and copy is not None:  # an address alone may have been used again
                return copy
        self.seen_bytes += num_bytes
        if self.host_bytes + num_bytes > self.share * self.seen_bytes + num_bytes / 2:
            return _OnDevice(tensor)
        self.host_bytes += num_bytes
        copy = _OnHost(tensor)
        self.copies[key] = (weakref.ref(storage), weakref.ref(copy))
        return copy

    def unpack(self, packed: _OnHost | _OnDevice) -> Tensor:
        """The tensor that ``pack`` put away. The first one asked for also fetches what the layer before put away."""
        earlier, self.earlier = self.earlier, None
        if earlier is not None and (keep := earlier()) is not None:
            keep.fetch()
        return packed.tensor if isinstance(packed, _OnDevice) else packed.restore(self.device)

    def fetch(self) -> None:
        """Start all copies back to the device, in the order in which a backward pass asks for them."""
        for _, reference in reversed(self.copies.values()):
            if (copy := reference()) is not None:
                copy.fetch(self.device)


class Chain:
    """The layers of one stage in order: each forward pass tells what it keeps to the next layer's."""

    def __init__(self) -> None:
        self.length = 0
        self.last: weakref.ref[Keep] | None = None

    def add_layer(self) -> int:
        """One layer more; its position."""
        self.length += 1
        return self.length - 1

    def append(self, keep: Keep) -> None:
        """What a layer keeps of the micro-batch that passes through it."""
        self.last = weakref.ref(keep)

    def before(self, position: int) -> Keep | None:
        """What the layer before ``position`` keeps of the same micro-batch."""
        return None if position == 0 or self.last is None else self.last()


def _local(tensor: Tensor) -> Tensor:
    """The plain tensor on this device: a DTensor's local part, a collective's result once it has arrived."""
    with torch.no_grad():
        local = tensor.to_local() if isinstance(tensor, DTensor) else tensor.detach()
        return local.wait() if isinstance(local, AsyncCollectiveTensor) else local


def _storage(tensor: Tensor) -> torch.UntypedStorage:
    return _local(tensor).untyped_storage()


@cache
def _copy_stream(device: torch.device, direction: Literal["out", "in"]) -> torch.cuda.Stream:
    """One stream each way: a pipeline's forwards put away while its backwards fetch."""
    del direction
    return torch.cuda.Stream(device)


def _to_host(tensor: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    on_cuda = tensor.is_cuda
    with host_allocations():
        host = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cpu", pin_memory=on_cuda)
    if not on_cuda:
        host.copy_(tensor)
        return host, None
    stream = _copy_stream(tensor.device, "out")
    stream.wait_stream(torch.cuda.current_stream(tensor.device))
    with torch.cuda.stream(stream):
        host.copy_(tensor, non_blocking=True)
    tensor.record_stream(stream)
    return host, stream.record_event()


class _Fetched:
    """A tensor on its way from host memory to the device."""

    __slots__ = ("ready", "tensor")

    def __init__(self, host: Tensor, ready: torch.cuda.Event | None, device: torch.device) -> None:
        self.ready: torch.cuda.Event | None = None
        if ready is None:
            self.tensor = host.clone()
            return
        stream = _copy_stream(device, "in")
        stream.wait_event(ready)
        with torch.cuda.stream(stream):
            self.tensor = host.to(device, non_blocking=True)
        self.ready = stream.record_event()

    def arrived(self) -> Tensor:
        """The tensor, once work queued from now on may read it."""
        if self.ready is not None:
            current = torch.cuda.current_stream(self.tensor.device)
            current.wait_event(self.ready)
            self.tensor.record_stream(current)
        return self.tensor
