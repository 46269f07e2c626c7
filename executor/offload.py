"""How saved activations wait for the backward pass: on the device, or a share of them in host memory; as they are, or
in 8 bits.

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

from costmodel.offload import INT8_BLOCK
from costmodel.schema.layout import OffloadTarget
from executor.drive import DriveFile
from executor.memory import host_allocations
from executor.narrow import Narrow, narrow

SMALLEST_OFFLOADED_BYTES = 1024
"""Tensors below this stay on the device: a copy costs more than it frees."""


class _OnHost:
    """A tensor's values in host memory, and how to make the tensor again."""

    __slots__ = ("__weakref__", "fetched", "host", "like", "ready", "restored")

    def __init__(self, tensor: Tensor) -> None:
        self.like = _like(tensor)
        self.fetched: _Fetched | None = None
        self.restored: weakref.ref[Tensor] | None = None
        self.host, self.ready = _to_host(_local(tensor))

    def restore(self, device: torch.device) -> Tensor:
        """The tensor on the device again; uses that overlap in time share one copy."""
        if self.restored is not None and (alive := self.restored()) is not None:
            return alive
        self.fetch(device)
        assert self.fetched is not None
        tensor = _as_before(self.fetched.arrived(), self.like)
        self.fetched = None
        self.restored = weakref.ref(tensor)
        return tensor

    def fetch(self, device: torch.device) -> None:
        """Start the copy back, unless it is under way or its result is alive."""
        if self.fetched is None and (self.restored is None or self.restored() is None):
            self.fetched = _Fetched(self.host, self.ready, device)


class _OnDrive(_OnHost):
    """A tensor's values in a file; they pass through host memory both ways."""

    __slots__ = ("file",)

    def __init__(self, tensor: Tensor) -> None:
        super().__init__(tensor)
        self.file = DriveFile(self.host, self.ready)
        del self.host

    def restore(self, device: torch.device) -> Tensor:
        """As from the host, once it is there."""
        if self.restored is None or self.restored() is None:
            self.host, self.ready = self.file.read(), None
            on_cuda = device.type == "cuda"
            self.fetched = _Fetched(
                self.host, torch.cuda.current_stream(device).record_event() if on_cuda else None, device
            )
            del self.host
        return super().restore(device)

    def fetch(self, device: torch.device) -> None:
        """Start reading, unless the result is alive."""
        if self.fetched is None and (self.restored is None or self.restored() is None):
            self.file.fetch()


class _OnDevice:
    """A tensor that stays where it is."""

    __slots__ = ("tensor",)

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def restore(self, device: torch.device) -> Tensor:
        return self.tensor

    def fetch(self, device: torch.device) -> None:
        """Nothing to do."""


class _Narrowed:
    """A tensor's values in 8 bits, here or on the host, and how to make the tensor again."""

    __slots__ = ("__weakref__", "dtype", "like", "parts", "restored", "shape", "stride")

    def __init__(self, tensor: Tensor) -> None:
        self.like = _like(tensor)
        self.restored: weakref.ref[Tensor] | None = None
        local = _local(tensor)
        self.shape, self.dtype = local.shape, local.dtype
        self.stride = torch.empty_like(local, device="meta").stride()
        numbers = narrow(local, INT8_BLOCK)
        self.parts: list[_OnHost | _OnDevice] = [_OnDevice(numbers.values), _OnDevice(numbers.scales)]

    @property
    def num_bytes(self) -> int:
        return sum(part.tensor.nbytes for part in self.parts if isinstance(part, _OnDevice))

    def send_away(self, place: type[_OnHost]) -> None:
        self.parts = [place(part.tensor) for part in self.parts if isinstance(part, _OnDevice)]

    def restore(self, device: torch.device) -> Tensor:
        """The tensor again, each number to within 1/254 of the largest of its block; uses that overlap share it."""
        if self.restored is not None and (alive := self.restored()) is not None:
            return alive
        wide = Narrow(*(part.restore(device) for part in self.parts)).wide(self.shape, self.dtype)
        if wide.stride() != self.stride:
            wide = torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device=device).copy_(wide)
        tensor = _as_before(wide, self.like)
        self.restored = weakref.ref(tensor)
        return tensor

    def fetch(self, device: torch.device) -> None:
        """Start the copies back of what is on the host."""
        for part in self.parts:
            part.fetch(device)


_Put = _OnHost | _Narrowed


class Keep:
    """Keeps what one layer saves in one forward pass, about ``share`` of its bytes on the host or on a drive (``to``).
    Parameters stay.

    ``narrow_from``: tensors of as many elements and more are kept in 8 bits; 0: none. Smaller ones are statistics of a
    row - a norm's root mean square, attention's log-sum-exp - in which an error counts for the whole row.
    ``pack`` and ``unpack`` are also the pair of hooks that ``torch.autograd.graph.saved_tensors_hooks`` takes.
    ``earlier``: what the layer before keeps of the same micro-batch; its backward comes next.
    """

    packed_types = (_OnHost, _OnDrive, _OnDevice, _Narrowed)

    def __init__(
        self,
        share: float,
        device: torch.device,
        parameters: Iterable[Tensor] = (),
        earlier: Keep | None = None,
        narrow_from: int = 0,
        to: OffloadTarget = "host",
    ) -> None:
        self.place = _OnDrive if to == "nvme" else _OnHost
        self.share, self.device, self.narrow_from = share, device, narrow_from
        self.takes = bool(share or narrow_from)
        self.earlier = None if earlier is None else weakref.ref(earlier)
        self.seen_bytes = self.host_bytes = 0
        self.parameter_pointers = {_storage(parameter).data_ptr() for parameter in parameters} if self.takes else set()
        self.copies: dict[tuple[Any, ...], tuple[weakref.ref[torch.UntypedStorage], weakref.ref[_Put]]] = {}

    def pack(self, tensor: Tensor) -> _Put | _OnDevice:
        """Put ``tensor`` away; equal views of one storage are put away once."""
        num_bytes = tensor.numel() * tensor.element_size()
        if not self.takes or num_bytes < SMALLEST_OFFLOADED_BYTES or not tensor.is_floating_point():
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
        put = self._put(tensor)
        if not isinstance(put, _OnDevice):
            self.copies[key] = (weakref.ref(storage), weakref.ref(put))
        return put

    def _put(self, tensor: Tensor) -> _Put | _OnDevice:
        if self.narrow_from and tensor.numel() >= self.narrow_from:
            narrowed = _Narrowed(tensor)
            if self._goes_away(narrowed.num_bytes):
                narrowed.send_away(self.place)
            return narrowed
        return self.place(tensor) if self._goes_away(tensor.numel() * tensor.element_size()) else _OnDevice(tensor)

    def _goes_away(self, num_bytes: int) -> bool:
        """Whether another ``num_bytes`` on the host come nearest to the share of all bytes seen; counts them."""
        self.seen_bytes += num_bytes
        if self.host_bytes + num_bytes > self.share * self.seen_bytes + num_bytes / 2:
            return False
        self.host_bytes += num_bytes
        return True

    def unpack(self, packed: _Put | _OnDevice) -> Tensor:
        """The tensor that ``pack`` put away. The first one asked for also fetches what the layer before put away."""
        earlier, self.earlier = self.earlier, None
        if earlier is not None and (keep := earlier()) is not None:
            keep.fetch()
        return packed.restore(self.device)

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


def _like(tensor: Tensor) -> tuple[Any, ...] | None:
    """What beside its local part makes a DTensor; None of a plain tensor."""
    if not isinstance(tensor, DTensor):
        return None
    return tensor.device_mesh, tensor.placements, tensor.shape, tensor.stride()


def _as_before(local: Tensor, like: tuple[Any, ...] | None) -> Tensor:
    if like is None:
        return local
    mesh, placements, shape, stride = like
    return DTensor.from_local(local, mesh, placements, run_check=False, shape=shape, stride=stride)


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
