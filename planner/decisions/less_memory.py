"""The same question with less memory on each device: what the third axis of the Pareto front is made of."""

from __future__ import annotations

from dataclasses import replace

from planner.decisions.question import Ask
from planner.request import Request

SHARES = (1.0, 0.75, 0.5, 0.25)
"""Parts of each device's memory that plans are searched in; less is only tried where more sufficed."""


def with_memory_share(ask: Ask, share: float) -> Ask:
    """``ask`` for plans in a part of each device's memory; the rest is held free, as by ``--free-memory``."""
    if share == 1.0:
        return ask

    def asking(devices: int | None, batch: int | None) -> Request:
        request = ask(devices, batch)
        device, *others = (
            each.model_copy(update={"memory_bytes": share * each.memory_bytes})
            for each in (request.device, *request.other_devices)
        )
        held = request.free_bytes + (1.0 - share) * request.device.memory_bytes
        said = f"{held / 2**30:.3g} GiB of each device are held free; the rest counts as its memory."
        return replace(
            request,
            device=device,
            other_devices=tuple(others),
            free_bytes=held,
            assumptions=(*request.assumptions, said),
        )

    return asking
