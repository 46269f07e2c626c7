"""What the papers say of their schedules, to hold the generated orders against; for Hanayo, V-Half, V-Min and ZeroPP,
and for units at B = 2F beyond the first, what the generators derive.

Bubbles are times, makespan - m(F + I + W) with F, I, W the times of all of a rank's layers for one micro-batch and no
delay between ranks: a published ratio R is the bubble R / (1 - R) · m(F + I + W). A full backward takes I + W. Peaks
are those of the rank that keeps most, in micro-batches of all of a rank's layers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

Times = tuple[float, float, float]

SPLIT_EVENLY: Times = (1.0, 1.0, 1.0)
"""F = I = W, so B = 2F."""

AS_FORWARD: Times = (1.0, 0.5, 0.5)
"""B = F."""


@dataclass(frozen=True)
class ClosedForm:
    """``times``: (F, I, W) that the formula assumes. ``bubble(p, m, v)``: in the unit of these times. ``peak(p, m,
    v)``. ``holds(p, m)``: the sizes it is stated for. ``exact``: whether the generated order meets it; it is better
    otherwise. ``note``: what to know about either.
    """

    times: Times
    bubble: Callable[[int, int, int], float]
    peak: Callable[[int, int, int], float]
    holds: Callable[[int, int], bool]
    exact: bool = True
    note: str = ""


def _always(p: int, m: int) -> bool:
    del p, m
    return True


def _filled(p: int, m: int) -> bool:
    return m >= p


def _doubled(p: int, m: int) -> bool:
    return m >= 2 * p


def _doubled_in_a_v(p: int, m: int) -> bool:
    return p > 2 and m >= 2 * p


def _whole_units(p: int, m: int) -> bool:
    return m % p == 0


def _interleaved_peak(p: int, m: int, v: int) -> float:
    return min(2 * (p - 1) + (v - 1) * ceil(m / max(1, m // p)) + 1, m * v) / v


def _zeropp_peak(p: int, m: int, v: int) -> float:
    del v
    return ceil(m / max(1, m // (2 * p - 1)))


def _units(ends: Callable[[int], int]) -> tuple[ClosedForm, ClosedForm]:
    """Units of p micro-batches: ``ends(p)`` slots of a chunk's forward are idle, see units.py."""
    return (
        ClosedForm(AS_FORWARD, lambda p, m, v: ends(p) / v, lambda p, m, v: p, _whole_units),
        ClosedForm(
            SPLIT_EVENLY,
            lambda p, m, v: (m // p + 1) * ends(p) / v,
            lambda p, m, v: p,
            _whole_units,
            note="at B = 2F the papers' formula is that of m = p; each further unit waits anew (units.py)",
        ),
    )


CLOSED_FORMS: dict[str, tuple[ClosedForm, ...]] = {
    "gpipe": (ClosedForm(SPLIT_EVENLY, lambda p, m, v: 3 * (p - 1), lambda p, m, v: m, _always),),
    "1f1b": (ClosedForm(SPLIT_EVENLY, lambda p, m, v: 3 * (p - 1), lambda p, m, v: min(p, m), _always),),
    "interleaved-1f1b": (ClosedForm(SPLIT_EVENLY, lambda p, m, v: 3 * (p - 1) / v, _interleaved_peak, _filled),),
    "breadth-first": (ClosedForm(SPLIT_EVENLY, lambda p, m, v: 3 * (p - 1) / v, lambda p, m, v: m, _filled),),
    "hanayo": _units(lambda p: 2 * (p - 1)),
    "chimera": _units(lambda p: p - 2),
    "bitpipe": _units(lambda p: p - 2),
    "zb-h1": (ClosedForm(SPLIT_EVENLY, lambda p, m, v: p - 1, lambda p, m, v: p, _doubled),),
    "zb-h2": (ClosedForm(SPLIT_EVENLY, lambda p, m, v: p - 1, lambda p, m, v: 2 * p - 1, _doubled),),
    "zb-v": (ClosedForm(SPLIT_EVENLY, lambda p, m, v: (p - 1) / 2, lambda p, m, v: p, _doubled),),
    "v-half": (
        ClosedForm(
            SPLIT_EVENLY, lambda p, m, v: (3 * p - (6 if p % 2 else 7)) / 2, lambda p, m, v: p / 2 + 1, _doubled_in_a_v
        ),
    ),
    "v-min": (
        ClosedForm(
            SPLIT_EVENLY, lambda p, m, v: (4 * p - (7, 5, 9)[p % 3]) / 2, lambda p, m, v: (p + 4) // 3, _doubled_in_a_v
        ),
    ),
    "dualpipe": (
        ClosedForm(
            SPLIT_EVENLY,
            lambda p, m, v: 2 * (p / 2 - 1),
            lambda p, m, v: p + 1,
            lambda p, m: m >= 2 * p and m % 2 == 0,
        ),
    ),
    "dualpipe-v": (ClosedForm(SPLIT_EVENLY, lambda p, m, v: p - 1, lambda p, m, v: p + 0.5, lambda p, m: m >= 2 * p),),
    "zeropp": (ClosedForm(SPLIT_EVENLY, lambda p, m, v: (p - 1) / v, _zeropp_peak, _filled),),
    "gpipe+2bp": (ClosedForm(SPLIT_EVENLY, lambda p, m, v: 2 * (p - 1), lambda p, m, v: m, _always),),
    "1f1b+2bp": (
        ClosedForm(
            SPLIT_EVENLY,
            lambda p, m, v: 2 * (p - 1),
            lambda p, m, v: m,
            _filled,
            exact=False,
            note="W fills the drain and at most p wait; published: all W after the last I",
        ),
    ),
}
"""Canonical name -> its formulas, whose sources the generators name. A pair of DualPipe takes F + B."""
