"""Amounts as people write them: 15T tokens, 30d, 2TB/s."""

from __future__ import annotations

import math
import re

from costmodel.schema.errors import InvalidSpec

_NUMBER = re.compile(r"([0-9][0-9_,]*(?:\.[0-9]*)?|\.[0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE)

_COUNTS = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12, "ki": 2.0**10, "mi": 2.0**20}
_TIMES = {
    "s": 1.0, "sec": 1.0, "second": 1.0, "min": 60.0, "minute": 60.0, "h": 3600.0, "hr": 3600.0, "hour": 3600.0,
    "d": 86400.0, "day": 86400.0, "w": 604800.0, "week": 604800.0, "y": 31557600.0, "year": 31557600.0,
}  # fmt: skip
_BYTES = {"b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12, "kib": 2.0**10, "mib": 2.0**20, "gib": 2.0**30,
          "tib": 2.0**40}  # fmt: skip


def parse_tokens(option: str, text: str) -> float:
    """``15T``, ``1.5e13``, ``300B``, ``4Mi``, ``15T tokens`` -> tokens. Raises InvalidSpec."""
    number, unit = _split(option, text, "like 15T, 300B or 1.5e13")
    unit = unit.removesuffix("tokens").removesuffix("token").strip()
    return number * _factor(option, text, unit, _COUNTS, "K, M, B or T")


def parse_duration_s(option: str, text: str) -> float:
    """``30d``, ``12h``, ``6w``, ``90 min``, ``2 years`` -> seconds. Raises InvalidSpec, for a bare number too."""
    number, unit = _split(option, text, "like 30d, 12h or 6w")
    return number * _factor(option, text, unit, _TIMES, "s, min, h, d, w or y")


def parse_bytes_per_s(option: str, text: str) -> float:
    """``2TB/s``, ``40 GB/s``, ``1.5 GiB/s`` -> bytes per second. Raises InvalidSpec."""
    number, unit = _split(option, text, "like 2TB/s")
    if not unit.endswith("/s"):
        raise InvalidSpec(f"{option} {text}: must end in bytes per second", "like 2TB/s or 40GB/s")
    return number * _factor(option, text, unit.removesuffix("/s").strip(), _BYTES, "MB/s, GB/s or TB/s")


def parse_positive(option: str, text: str, like: str) -> float:
    """A plain number above 0, a currency sign before it allowed. Raises InvalidSpec."""
    number, unit = _split(option, text.strip().lstrip("$€£¥"), like)
    if unit:
        raise InvalidSpec(f"{option} {text}: must be a number", like)
    return number


def duration(value_s: float) -> str:
    """For sentences: ``41.7 minutes``, ``14.7 hours``, ``30 days``."""
    units = ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes"))
    factor, unit = next((pair for pair in units if value_s >= 2 * pair[0]), (1.0, "s"))
    value = value_s / factor
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"


def amount(value: float) -> str:
    """For sentences: ``15T``, ``300B``, ``1.5M``; below a million every digit."""
    factor, unit = next((pair for pair in ((1e12, "T"), (1e9, "B"), (1e6, "M")) if value >= pair[0]), (1.0, ""))
    return f"{value / factor:.4g}{unit}" if unit else f"{value:,.0f}"


def _split(option: str, text: str, like: str) -> tuple[float, str]:
    found = _NUMBER.match(text.strip())
    if found is None:
        raise InvalidSpec(f"{option} {text}: must begin with a number above 0", like)
    number = float(found[0].replace(",", "").replace("_", ""))
    if not 0 < number < math.inf:
        raise InvalidSpec(f"{option} {text}: must be more than 0 and finite", like)
    return number, text.strip()[found.end() :].strip().lower()


def _factor(option: str, text: str, unit: str, known: dict[str, float], names: str) -> float:
    factor = known.get(unit, known.get(unit.removesuffix("s")) if len(unit) > 1 else None)
    if factor is None:
        said = f"unit {unit!r} is none of" if unit else "the unit is missing:"
        raise InvalidSpec(f"{option} {text}: {said} {names}")
    return factor
