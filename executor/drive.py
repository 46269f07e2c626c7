"""Saved activations on the node's drive: one file a tensor, written and read by threads beside the passes.

Files lie in a folder of this process's own, in the one that ``PARLAY_NVME`` names or where temporary files go, and are
removed once read.
Source: Wu et al. 2024 (SSDTrain), section III.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from itertools import count
from pathlib import Path

import torch
from torch import Tensor

from costmodel.schema.errors import InvalidSpec
from executor.memory import host_allocations

FOLDER_VARIABLE = "PARLAY_NVME"

NUM_THREADS = 4
"""Files that are written or read at once: enough to keep a drive's queue filled, few beside the passes' own threads."""

_numbers = count()


class DriveFile:
    """The values of one tensor in host memory, put into a file; ``ready``: after which they are there."""

    def __init__(self, host: Tensor, ready: torch.cuda.Event | None) -> None:
        self.shape, self.stride, self.dtype = host.shape, host.stride(), host.dtype
        self.num_bytes, self.pinned = host.untyped_storage().nbytes(), host.is_pinned() if ready else False
        self.path = _folder() / str(next(_numbers))
        self.written = _threads().submit(_write, self.path, host, ready)
        weakref.finalize(self, _remove, self.path, self.written)
        self.reading: Future[Tensor] | None = None

    def fetch(self) -> None:
        """Start reading, unless that is under way."""
        if self.reading is None:
            with host_allocations():
                buffer = torch.empty(self.num_bytes, dtype=torch.uint8, pin_memory=self.pinned)
            self.reading = _threads().submit(_read, self.path, buffer, self.written)

    def read(self) -> Tensor:
        """The tensor in host memory. Raises InvalidSpec where the drive did not take or give it."""
        self.fetch()
        assert self.reading is not None
        buffer, self.reading = self.reading.result(), None
        whole = torch.empty(0, dtype=self.dtype)
        return whole.set_(buffer.untyped_storage(), 0, self.shape, self.stride)


def _write(path: Path, host: Tensor, ready: torch.cuda.Event | None) -> None:
    if ready is not None:
        ready.synchronize()
    try:
        path.write_bytes(_bytes(host).numpy())
    except OSError as error:
        raise _failed(error) from error


def _read(path: Path, buffer: Tensor, written: Future[None]) -> Tensor:
    written.result()
    view = memoryview(buffer.numpy())
    try:
        with path.open("rb", buffering=0) as file:
            while len(view) and (got := file.readinto(view)):
                view = view[got:]
    except OSError as error:
        raise _failed(error) from error
    return buffer


def _bytes(host: Tensor) -> Tensor:
    return torch.empty(0, dtype=torch.uint8).set_(host.untyped_storage())


def _remove(path: Path, written: Future[None]) -> None:
    written.add_done_callback(lambda _: path.unlink(missing_ok=True))


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="drive")


@cache
def _folder() -> Path:
    try:
        folder = tempfile.mkdtemp(prefix="parlay-", dir=os.environ.get(FOLDER_VARIABLE))
    except OSError as error:
        raise _failed(error) from error
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _failed(error: OSError) -> InvalidSpec:
    where = os.environ.get(FOLDER_VARIABLE) or tempfile.gettempdir()
    return InvalidSpec(
        f"saved activations cannot wait in {where}: {error.strerror}",
        f"set {FOLDER_VARIABLE} to a folder on a drive with room for them",
    )
