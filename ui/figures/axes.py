"""Logarithmic axes with round numbers at their ticks."""

from __future__ import annotations

from math import floor, log10
from typing import Any

from planner.report.units import count


def log_axis(title: str, low: float, high: float) -> dict[str, Any]:
    """An axis that opens from ``low`` to ``high`` and is labelled beyond, for who zooms out."""
    steps = (1.0, 2.0, 5.0) if high / low > 20 else (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
    ticks = [step * 10.0**power for power in range(floor(log10(low)) - 1, floor(log10(high)) + 4) for step in steps]
    return {"title": title, "type": "log", "range": [log10(low), log10(high)], "tickvals": ticks,
            "ticktext": [count(tick) if tick >= 10_000 else f"{tick:,.10g}" for tick in ticks]}  # fmt: skip
