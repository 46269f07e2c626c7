"""Prediction: step time and memory with their parts, each with an interval, and what was assumed."""

from __future__ import annotations

from costmodel.schema.base import Spec


class Interval(Spec):
    """A figure with its 90% interval."""

    mean: float
    low: float
    high: float


class StageMemory(Spec):
    """One pipeline rank at its worst moment, in bytes. ``parts`` sum to ``allocated_bytes``.

    ``device``, ``capacity_bytes``: what the rank runs on, where ranks run on unlike devices.
    """

    rank: int
    allocated_bytes: float
    reserved_bytes: float
    device_bytes: float
    parts: dict[str, float]
    device: str | None = None
    capacity_bytes: float | None = None


class MemoryPrediction(Spec):
    """Never mixed: allocated (tensors), reserved (allocator), device (driver), each the largest over the ranks; and
    what one device's rank keeps in host memory and on the node's drives, likewise.

    ``capacity_bytes``: of the device that is fullest for its size.
    """

    peak_bytes_per_device: float
    allocated_bytes: float
    reserved_bytes: float
    capacity_bytes: float
    fits_probability: float
    per_stage: tuple[StageMemory, ...]
    host_bytes: float
    nvme_bytes: float = 0.0


class Prediction(Spec):
    """``breakdown``: ``<term>_exposed_s`` and ``<term>_total_s``; the exposed ones sum to the mean step time.

    ``network``: bytes that one device sends per step, by network level.
    """

    step_time_s: Interval
    tokens_per_s_per_device: float
    mfu: float
    hfu: float
    model_flops_per_step: float
    breakdown: dict[str, float]
    memory: MemoryPrediction
    network: dict[str, float]
    assumptions: tuple[str, ...] = ()
