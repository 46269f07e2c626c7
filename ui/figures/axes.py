"""Units of axes: logarithmic ones with round numbers at their ticks, and memory in GiB or MiB."""

from __future__ import annotations

from math import floor, log10
from typing import Any

from planner.report.units import count

MIB, GIB = 2.0**20, 2.0**30


def memory_unit(largest_bytes: float) -> tuple[str, float]:
    """(name, bytes) of the unit for amounts up to ``largest_bytes``: GiB, or MiB where they are less than one."""
    return ("GiB", GIB) if largest_bytes >= GIB else ("MiB", MIB)


def log_axis(title: str, low: float, high: float) -> dict[str, Any]:
    """An axis that opens from ``low`` to ``high`` and is labelled beyond, for who zooms out."""
    steps = (1.0, 2.0, 5.0) if high / low > 20 else (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
    ticks = [step * 10.0**power for power in range(floor(log10(low)) - 1, floor(log10(high)) + 4) for step in steps]
    return {"title": title, "type": "log", "range": [log10(low), log10(high)], "tickvals": ticks,
            "ticktext": [count(tick) if tick >= 10_000 else f"{tick:,.10g}" for tick in ticks]}  # fmt: skip
