"""Prediction: step time and memory with their parts, each with an interval, and what was assumed."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, model_validator

from costmodel.schema.base import Spec

Probability = Annotated[float, Field(ge=0, le=1)]


class Interval(Spec):
    """A time with its 90% interval, in seconds."""

    mean: PositiveFloat
    low: PositiveFloat
    high: PositiveFloat

    @model_validator(mode="after")
    def _in_order(self) -> Interval:
        if not self.low <= self.mean <= self.high:
            raise ValueError(f"mean = {self.mean} must lie between low = {self.low} and high = {self.high}")
        return self


class StageMemory(Spec):
    """One pipeline rank at its worst moment, in bytes. ``parts`` sum to ``allocated_bytes``.

    ``device``, ``capacity_bytes``: what the rank runs on, where ranks run on unlike devices.
    """

    rank: NonNegativeInt
    allocated_bytes: NonNegativeFloat
    reserved_bytes: NonNegativeFloat
    device_bytes: NonNegativeFloat
    parts: dict[str, NonNegativeFloat]
    device: str | None = None
    capacity_bytes: PositiveFloat | None = None


class MemoryPrediction(Spec):
    """Never mixed: allocated (tensors), reserved (allocator), device (driver), each the largest over the ranks; and
    what one device's rank keeps in host memory and on the node's drives, likewise.

    ``capacity_bytes``: of the device that is fullest for its size.
    """

    peak_bytes_per_device: NonNegativeFloat
    allocated_bytes: NonNegativeFloat
    reserved_bytes: NonNegativeFloat
    capacity_bytes: PositiveFloat
    fits_probability: Probability
    per_stage: tuple[StageMemory, ...]
    host_bytes: NonNegativeFloat
    nvme_bytes: NonNegativeFloat = 0.0


class Prediction(Spec):
    """``breakdown``: ``<term>_exposed_s`` and ``<term>_total_s``; the exposed ones sum to the mean step time.

    ``network``: bytes that one device sends per step, by network level.
    """

    step_time_s: Interval
    tokens_per_s_per_device: PositiveFloat
    mfu: NonNegativeFloat
    hfu: NonNegativeFloat
    model_flops_per_step: NonNegativeFloat
    breakdown: dict[str, float]
    memory: MemoryPrediction
    network: dict[str, NonNegativeFloat]
    assumptions: tuple[str, ...] = ()
