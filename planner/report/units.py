"""Figures as a person reads them: three digits and a unit. Times are SI, bytes binary (GiB), as memory is sold."""

from __future__ import annotations

_TIMES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
_BYTES = ((2.0**40, "TiB"), (2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"))
_COUNTS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def seconds(value: float) -> str:
    """0.01234 -> ``12.3 ms``; from two minutes on ``3 min 20 s``, from two hours ``5 h 12 min``, from two days days."""
    size = abs(value)
    if size < 1e-12:
        return "0"
    if size >= 2 * 86400:
        return f"{digits(value / 86400)} days"
    if size >= 2 * 3600:
        return f"{int(value // 3600)} h {int(value % 3600 // 60)} min"
    if size >= 120:
        return f"{int(value // 60)} min {int(value % 60)} s"
    factor, unit = next((pair for pair in _TIMES if size >= pair[0]), (1e-9, "ns"))
    return f"{digits(value / factor)} {unit}"


def size(value: float) -> str:
    """Bytes: 85899345920 -> ``80.0 GiB``."""
    factor, unit = next((pair for pair in _BYTES if abs(value) >= pair[0]), (1.0, "B"))
    return "0" if value == 0 else f"{digits(value / factor)} {unit}"


def gibibytes(value: float) -> str:
    """Bytes in GiB whatever their size, for columns that are compared: ``0.53``."""
    return f"{value / 2**30:.2f}" if abs(value) < 99.95 * 2**30 else f"{value / 2**30:.0f}"


def mebibytes(value: float) -> str:
    """Bytes in MiB: the same for small models."""
    return f"{value / 2**20:.1f}" if abs(value) < 99.95 * 2**20 else f"{value / 2**20:,.0f}"


def rate(value_bytes_per_s: float) -> str:
    """Bytes per second in decimal units, as networks are sold: 4e11 -> ``400 GB/s``."""
    return (
        f"{digits(value_bytes_per_s / 1e9)} GB/s"
        if value_bytes_per_s < 1e12
        else f"{digits(value_bytes_per_s / 1e12)} TB/s"
    )


def count(value: float) -> str:
    """70553706496 -> ``70.6B``."""
    factor, unit = next((pair for pair in _COUNTS if abs(value) >= pair[0]), (1.0, ""))
    return f"{digits(value / factor)}{unit}" if unit else f"{value:,.0f}"


def plural(number: int, noun: str) -> str:
    """``1 rank``, ``2 ranks``, ``8 micro-batches``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "es" if noun.endswith("ch") else "s")


def percent(share: float) -> str:
    """0.4567 -> ``45.7%``; anything that rounds to nothing is ``0%``, and only 1 itself is ``100%``."""
    if share == 0 or abs(share) < 5e-5:
        return "0%"
    if 0.9995 <= share < 1:
        return ">99.9%"
    return f"{share * 100:.1f}%" if abs(share) >= 0.001 else f"{share * 100:.2f}%"


def digits(value: float) -> str:
    """Three significant digits, no exponent: 1234.5 -> ``1,234``, 12.345 -> ``12.3``, 1.2345 -> ``1.23``."""
    if abs(value) >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 9.995 else f"{value:.2f}"
