"""Saved activations in files: the same gradients, files gone after use, and one sentence where a drive fails."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from plans import build_plan
from test_parity import assert_parity
from worker_pool import WorkerPool

from costmodel.schema.errors import InvalidSpec
from costmodel.schema.layout import Layout
from executor import drive
from executor.memory import measure_peak_memory
from executor.offload import Keep

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(drive.FOLDER_VARIABLE, str(tmp_path))
    drive._folder.cache_clear()
    yield
    drive._folder.cache_clear()


@pytest.mark.parametrize("saved_dtype", ["as-computed", "int8"])
def test_what_comes_back_is_what_was_put_away_and_files_go(saved_dtype: str, tmp_path: Path) -> None:
    keep = Keep(1.0, CPU, to="nvme", narrow_from=1 if saved_dtype == "int8" else 0)
    tensors = [torch.randn(64, 50), torch.randn(50, 64, dtype=torch.float64).t()]
    with measure_peak_memory(CPU) as peaks:
        packed = [keep.pack(tensor) for tensor in tensors]
        for one, tensor in zip(reversed(packed), reversed(tensors), strict=True):
            back = keep.unpack(one)
            assert back.stride() == tensor.stride()
            assert (back - tensor).norm() <= (0.01 if saved_dtype == "int8" else 0.0) * tensor.norm()
    assert peaks[0].host_bytes > 0
    drive._threads().submit(gc.collect).result()
    assert list(tmp_path.glob("*/*"))
    del packed, one, keep
    gc.collect()
    assert not list(tmp_path.glob("*/*"))


def test_a_missing_folder_and_a_full_drive_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    keep = Keep(1.0, CPU, to="nvme")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        away = keep.pack(torch.randn(1000))
        with pytest.raises(InvalidSpec, match=f"cannot wait in {tmp_path}: No space left on device"):
            keep.unpack(away)
    drive._folder.cache_clear()
    monkeypatch.setenv(drive.FOLDER_VARIABLE, str(tmp_path / "missing"))
    with pytest.raises(InvalidSpec, match="missing: No such file or directory"):
        keep.pack(torch.randn(1000))


def test_gradients_do_not_depend_on_the_drive(workers: Callable[[int], WorkerPool]) -> None:
    layout = Layout(pp=2, num_microbatches=3)
    plan = build_plan(
        layout, schedule="zb-h1", recompute=("none", "selective"), offload=(1.0, 0.5), offload_to="nvme", seq_len=32
    )
    assert_parity(plan, workers(2))
