"""The cost model's answer for a measured operation: the same functions that price a layout, asked for one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from costmodel.attention import estimate_flash_attention_s
from costmodel.collectives import Collective, Network, estimate_collective_s
from costmodel.gemm import estimate_gemm_s
from costmodel.layouts import Column
from costmodel.schema.calibration import Measurement
from costmodel.schema.cluster import ClusterSpec, DeviceSpec
from costmodel.schema.errors import InvalidSpec
from costmodel.schema.workload import DTYPE_BYTES


@dataclass(frozen=True)
class Batch:
    """Measurements of one operation in one precision: sizes as columns [r], ``rows`` their places in the list."""

    op: str
    precision: str
    rows: Column
    sizes: dict[str, Column]


class Operation(NamedTuple):
    """How one kind of operation is predicted, and which of its sizes its valid range is told in."""

    predict: Callable[[DeviceSpec, ClusterSpec, Batch], Column]
    size: str
    needs: tuple[str, ...]


def _gemm(device: DeviceSpec, _: ClusterSpec, batch: Batch) -> Column:
    sizes, out_bytes = batch.sizes, DTYPE_BYTES[batch.precision]
    return _on_device(device, estimate_gemm_s(device, sizes["m"], sizes["n"], sizes["k"], batch.precision, out_bytes))


def _attention(backward: bool) -> Callable[[DeviceSpec, ClusterSpec, Batch], Column]:
    def predict(device: DeviceSpec, _: ClusterSpec, batch: Batch) -> Column:
        sizes, head_dim = batch.sizes, int(batch.sizes["head_dim"][0])
        samples, heads, length = sizes["batch"], sizes["heads"], sizes["seq_len"]
        seconds = estimate_flash_attention_s(
            device, samples, heads, length, length, head_dim, head_dim, batch.precision, backward=backward
        )
        return _on_device(device, seconds)

    return predict


def _streamed(device: DeviceSpec, _: ClusterSpec, batch: Batch) -> Column:
    return _on_device(device, batch.sizes["bytes"] / (device.memory_bytes_per_s * device.memory_fraction))


def _launch(device: DeviceSpec, _: ClusterSpec, batch: Batch) -> Column:
    return _on_device(device, np.zeros(len(batch.rows)))


def _on_device(device: DeviceSpec, seconds: Column) -> Column:
    """With what starting it costs: added where the host computes, hidden behind the previous one on a GPU's queue."""
    start_s = device.kernel_launch_s
    return seconds + start_s if device.vendor == "cpu" else np.maximum(seconds, start_s)


def _host_link(_: DeviceSpec, cluster: ClusterSpec, batch: Batch) -> Column:
    return batch.sizes["bytes"] / cluster.groups[0].host.copy_bytes_per_s


def _collective(kind: Collective) -> Callable[[DeviceSpec, ClusterSpec, Batch], Column]:
    def predict(device: DeviceSpec, cluster: ClusterSpec, batch: Batch) -> Column:
        sizes, launch_s = batch.sizes, device.kernel_launch_s
        return estimate_collective_s(Network.from_cluster(cluster), kind, sizes["bytes"], sizes["group"], 1, launch_s)

    return predict


_ATTENTION = ("batch", "seq_len", "heads", "head_dim")
_COLLECTIVES: tuple[Collective, ...] = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "p2p")

OPERATIONS: dict[str, Operation] = {
    "gemm": Operation(_gemm, "k", ("m", "n", "k")),
    "attention_forward": Operation(_attention(backward=False), "seq_len", _ATTENTION),
    "attention_backward": Operation(_attention(backward=True), "seq_len", _ATTENTION),
    **{op: Operation(_streamed, "bytes", ("bytes",)) for op in ("copy", "add", "adamw")},
    "launch": Operation(_launch, "elements", ("elements",)),
    **{op: Operation(_host_link, "bytes", ("bytes",)) for op in ("host_to_device", "device_to_host")},
    **{op: Operation(_collective(op), "bytes", ("bytes", "group")) for op in _COLLECTIVES},
}  # fmt: skip
"""Every kind of operation that can be measured, by ``Measurement.op``."""


def group_measurements(measurements: Sequence[Measurement]) -> list[Batch]:
    """Measurements as columns, one batch per operation, precision and head size.

    Raises InvalidSpec for an operation that the cost model does not know, a missing size, or a time of zero or less.
    """
    rows: dict[tuple[str, str, float], list[int]] = {}
    for row, measurement in enumerate(measurements):
        _check(measurement, row)
        key = (measurement.op, measurement.precision, measurement.shape.get("head_dim", 0.0))
        rows.setdefault(key, []).append(row)
    batches = []
    for (op, precision, _), members in rows.items():
        sizes = {name: np.array([measurements[row].shape[name] for row in members]) for name in OPERATIONS[op].needs}
        sizes["ranks"] = np.array([measurements[row].shape.get("ranks", 1.0) for row in members])
        batches.append(Batch(op, precision, np.array(members), sizes))
    return batches


def _check(measurement: Measurement, row: int) -> None:
    where = f"measurement {row}"
    if measurement.op not in OPERATIONS:
        raise InvalidSpec(f"{where}: op = {measurement.op!r} is none of {', '.join(OPERATIONS)}")
    missing = [name for name in OPERATIONS[measurement.op].needs if name not in measurement.shape]
    if missing:
        raise InvalidSpec(f"{where} ({measurement.op}): shape lacks {', '.join(missing)}")
    if not measurement.seconds > 0:
        raise InvalidSpec(f"{where} ({measurement.op}): seconds = {measurement.seconds} must be above 0")
    if measurement.precision not in DTYPE_BYTES:
        raise InvalidSpec(f"{where}: precision = {measurement.precision!r} is none of {', '.join(DTYPE_BYTES)}")


def predict_seconds(device: DeviceSpec, cluster: ClusterSpec, batches: Sequence[Batch]) -> Column:
    """Predicted seconds of every measurement [n], in the list's order.

    Where devices share processor cores, an operation that ``ranks`` of them run at once takes ranks / cores times
    as long. A collective's own figures already hold for ranks that share cores.
    """
    seconds = np.empty(sum(len(batch.rows) for batch in batches))
    for batch in batches:
        alone_s = OPERATIONS[batch.op].predict(device, cluster, batch)
        if cluster.shared_cores is not None and "group" not in batch.sizes:
            alone_s = alone_s * np.maximum(1.0, batch.sizes["ranks"] / cluster.shared_cores)
        seconds[batch.rows] = alone_s
    return seconds


def measured_ranges(measurements: Sequence[Measurement]) -> dict[str, tuple[float, float]]:
    """For each operation the least and the greatest size measured: K of a product, sequence length, or bytes."""
    found: dict[str, list[float]] = {}
    for measurement in measurements:
        found.setdefault(measurement.op, []).append(measurement.shape[OPERATIONS[measurement.op].size])
    return {op: (min(sizes), max(sizes)) for op, sizes in found.items()}
