"""Every pipeline schedule's closed forms: one entry a schedule.

Where stages live is exact. What is kept alive is exact where a closed form is, elsewhere an upper bound that a test
holds against the generated orders; the planner takes finalists' figures from the order itself.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np

from costmodel.schedule_form import Form, ScheduleForm, nothing


def _one_stage(p: Any, m: Any, v: Any) -> Any:
    return (p >= 1) & (m >= 1) & (v == 1)


def _one_split_stage(p: Any, m: Any, v: Any) -> Any:
    return (p >= 2) & (m >= 1) & (v == 1)


def _v_shaped(p: Any, m: Any, v: Any) -> Any:
    return (p >= 2) & (m >= 1) & (v == 2)


def _both_ways(p: Any, m: Any, v: Any) -> Any:
    return (p >= 2) & (p % 2 == 0) & (m >= 2) & (v == 1)


def _depth(p: Any, r: Any) -> Any:
    """Ranks between a rank and the nearer end."""
    return np.minimum(r, p - 1.0 - r)


def _rounds(m: Any, least: Any) -> Any:
    """As many rounds of at least ``least`` micro-batches as there can be."""
    return np.maximum(m // least, 1.0)


def _first_round(p: Any, m: Any, v: Any, r: Any) -> Any:
    return np.ceil(m / _rounds(m, p)) + 0.0 * r


def _interleaved(p: Any, m: Any, v: Any, r: Any) -> Any:
    ahead = 2.0 * (p - r - 1.0) + (v - 1.0) * _first_round(p, m, v, r) + 1.0
    return np.minimum(m * v, ahead) / v


def _wave(p: Any, m: Any, v: Any, r: Any) -> Any:
    unit = np.minimum(m, p)
    return unit - np.maximum(unit - 1.0 - r, 0.0) / v


def _unit_both_ways(p: Any, m: Any, v: Any, r: Any) -> Any:
    return np.minimum(m, p - (0.5 * p - 1.0 - _depth(p, r)) / v)


def _half_both_ways(p: Any, m: Any, v: Any, r: Any) -> Any:
    """Of fewer than p micro-batches each copy has half: of these all are alive, and one of the others."""
    whole = _unit_both_ways(p, m, v, r)
    return np.where(m >= p, whole, np.minimum(whole, m // 2.0 + 1.0))


def _zeropp_unit(p: Any, m: Any, v: Any, r: Any) -> Any:
    return np.ceil(m / _rounds(m, 2.0 * p - 1.0)) + 0.0 * r


def _zeropp_least_pending(p: Any, m: Any, v: Any, r: Any) -> Any:
    return np.where(m >= 2.0 * p - 1.0, (2.0 * r + 1.0) / v, 0.0)


def _filled(pending: Form) -> Form:
    """What ``pending`` says once there are micro-batches for both warm-up and drain, and nothing before."""
    return lambda p, m, v, r: np.where(m >= 2.0 * p, pending(p, m, v, r), 0.0)


def _dualpipe_pending(p: Any, m: Any, v: Any, r: Any) -> Any:
    return np.minimum(m, _depth(p, r) + 1.0)


def _dualpipe_v_pending(p: Any, m: Any, v: Any, r: Any) -> Any:
    return np.minimum(m, 0.5 * (r + 1.0))


def _vocabulary_parallel(barriers: int) -> ScheduleForm:
    """1F1B with the vocabulary split over all ranks. Source: Yeung et al. 2024, section 5."""
    return ScheduleForm(
        _one_split_stage, lambda p, m, v, r: np.minimum(m, p - r + barriers), crossings=2.0, barriers=barriers
    )


_FORMS: dict[str, ScheduleForm] = {
    # Huang et al. 2019, section 2.3.
    "gpipe": ScheduleForm(_one_stage, lambda p, m, v, r: m + 0.0 * r, forwards_first=True),
    # Narayanan et al. 2021, section 2.2.
    "1f1b": ScheduleForm(_one_stage, lambda p, m, v, r: np.minimum(m, p - r)),
    "interleaved-1f1b": ScheduleForm(lambda p, m, v: (p >= 2) & (v >= 2) & (m >= 1), _interleaved, round=_first_round),
    # Qi et al. 2023, section 2: every rank keeps p micro-batches, of which p - r wait for their input gradient.
    "zb-h1": ScheduleForm(
        _one_split_stage,
        lambda p, m, v, r: np.minimum(m, p) + 0.0 * r,
        pending=lambda p, m, v, r: np.minimum(m, r + 1.0),
        fill=(1.0, 1.0, -1.0),
        crossings=4.0,
        splits_backward=True,
    ),
    # Qi et al. 2023, sections 2.2 and 3.1: 2p - 1 micro-batches; where the order follows unequal times,
    # from 2p - 1 - r to 2p, and as few as 2(p - r) + 1 where sends take longer than passes.
    "zb-h2": ScheduleForm(
        _one_split_stage,
        lambda p, m, v, r: np.minimum(m, 2.0 * p) + 0.0 * r,
        least_in_flight=lambda p, m, v, r: np.where(
            m >= 2.0 * p, np.minimum(2.0 * p - 1.0 - r, 2.0 * (p - r) + 1.0), np.minimum(m, p - r)
        ),
        pending=lambda p, m, v, r: np.minimum(m, 2.0 * p) + 0.0 * r,
        least_pending=_filled(lambda p, m, v, r: np.minimum(r + 1.0, 3.0)),
        fill=(1.0, 0.0, 0.0),
        splits_backward=True,
    ),
    # Qi et al. 2023, section 6; Qi et al. 2024, section 3.3: limits of the building blocks.
    "zb-v": ScheduleForm(
        _v_shaped,
        lambda p, m, v, r: np.minimum(m, p) + 0.0 * r,
        least_in_flight=lambda p, m, v, r: np.where(m >= 2.0 * p, p, 0.5 * (np.minimum(m, p) + 1.0)) + 0.0 * r,
        pending=lambda p, m, v, r: np.minimum(m, p) + 0.0 * r,
        least_pending=nothing,
        fill=(1.0, 0.0, 0.0),
        placement="zigzag",
        splits_backward=True,
    ),
    "v-half": ScheduleForm(
        _v_shaped,
        lambda p, m, v, r: np.minimum(m, 0.5 * p + 1.0) + 0.0 * r,
        pending=lambda p, m, v, r: np.minimum(m, 0.5 * p + 1.0) + 0.0 * r,
        least_pending=nothing,
        fill=(1.0, 1.0, 1.0),
        placement="zigzag",
        splits_backward=True,
    ),
    "v-min": ScheduleForm(
        _v_shaped,
        lambda p, m, v, r: np.minimum(m, (p + 4.0) // 3.0) + 0.0 * r,
        least_in_flight=lambda p, m, v, r: np.maximum(np.minimum(0.5 * (m + 1.0), (p + 1.0) // 3.0), 1.0) + 0.0 * r,
        pending=lambda p, m, v, r: np.minimum(m, (p + 4.0) // 3.0) + 0.0 * r,
        least_pending=nothing,
        fill=(1.0, 1.0, 2.0),
        tripled=True,
        placement="zigzag",
        splits_backward=True,
    ),
    # Lamy-Poirier 2022, section 4: a stage is used in one run of forwards and one of backwards.
    "breadth-first": ScheduleForm(
        lambda p, m, v: (p >= 1) & (v >= 2) & (m >= 1),
        lambda p, m, v, r: m + 0.0 * r,
        gathers=lambda p, m, v, r: 1.0 + 0.0 * r,
        round=lambda p, m, v, r: m + 0.0 * r,
        forwards_first=True,
    ),
    # Liu et al. 2023, section 3.
    "hanayo": ScheduleForm(
        lambda p, m, v: (p >= 2) & (v >= 2) & (v % 2 == 0) & (m >= 1),
        _wave,
        fill=(2.0, 0.0, 0.0),
        slack=2.0,
        placement="zigzag",
    ),
    # Li and Hoefler 2021, table 2.
    "chimera": ScheduleForm(
        _both_ways, _unit_both_ways, least_in_flight=_half_both_ways, fill=(1.0, 0.0, 0.0), slack=1.0, copies=2
    ),
    # Wu et al. 2024, section 3.
    "bitpipe": ScheduleForm(
        lambda p, m, v: (p >= 2) & (p % 2 == 0) & (v >= 2) & (m >= 2),
        _unit_both_ways,
        least_in_flight=_half_both_ways,
        fill=(1.0, 0.0, 0.0),
        slack=1.0,
        placement="zigzag",
        copies=2,
    ),
    # DeepSeek-AI 2024, section 3.2.1: bubble (p/2 - 1)(F&B + B - 3W).
    "dualpipe": ScheduleForm(
        _both_ways,
        lambda p, m, v, r: np.minimum(m, p + 1.0) + 0.0 * r,
        least_in_flight=lambda p, m, v, r: np.minimum(m // 2.0 + 1.0, 0.5 * p + 1.0) + 0.0 * r,
        pending=_dualpipe_pending,
        least_pending=_filled(lambda p, m, v, r: np.where(m % 2 == 0, _depth(p, r), 0.0)),
        fill=(0.5, 1.0, -0.5),
        copies=2,
        splits_backward=True,
    ),
    # Qi et al. 2025: the same cut in half.
    "dualpipe-v": ScheduleForm(
        _v_shaped,
        lambda p, m, v, r: np.minimum(m, p + 0.5) + 0.0 * r,
        least_in_flight=lambda p, m, v, r: np.minimum(0.5 * (m + 1.0), 0.5 * (p + 1.0)) + 0.0 * r,
        pending=_dualpipe_v_pending,
        least_pending=_filled(lambda p, m, v, r: 0.5 * r),
        fill=(1.0, 2.0, -1.0),
        placement="zigzag",
        splits_backward=True,
    ),
    # Tang et al. 2024: every stage is gathered twice for each unit.
    "zeropp": ScheduleForm(
        lambda p, m, v: (p >= 2) & (v >= 1) & (m >= 1),
        _zeropp_unit,
        pending=_zeropp_unit,
        least_pending=_zeropp_least_pending,
        gathers=lambda p, m, v, r: _rounds(m, 2.0 * p - 1.0) + 0.0 * r,
        round=_zeropp_unit,
        fill=(1.0, 0.0, 0.0),
        splits_backward=True,
    ),
    "1f1b-vocab-1": _vocabulary_parallel(2),
    "1f1b-vocab-2": _vocabulary_parallel(1),
}

_DEFERRED_FILL = {
    "gpipe": (1.0, 1.0, 0.0),
    "1f1b": (1.0, 1.0, -1.0),
    "interleaved-1f1b": (1.0, 1.0, -1.0),
    "breadth-first": (1.0, 1.0, 0.0),
    "hanayo": (1.0, 0.0, 0.0),
    "chimera": (0.5, 0.0, 0.0),
    "bitpipe": (0.5, 0.0, 0.0),
}
"""Schedules of full backwards -> their ``fill`` once weight gradients run where a rank would wait."""


def _deferred(name: str) -> ScheduleForm:
    """2BP of a schedule: as many of its weight gradients as one for each of p micro-batches wait on a rank.

    Source: Rae, Lee and Richings 2024.
    """
    form = _FORMS[name]
    plain = form.in_flight
    return replace(
        form,
        in_flight=lambda p, m, v, r: np.minimum(m, plain(p, m, v, r) + p + 1.0 / v),
        least_in_flight=form.least_in_flight or plain,
        pending=lambda p, m, v, r: np.minimum(m, p + 1.0 / v) + 0.0 * r,
        least_pending=nothing,
        ahead=plain,
        fill=_DEFERRED_FILL[name],
        slack=0.0,
        splits_backward=True,
    )


SCHEDULES: MappingProxyType[str, ScheduleForm] = MappingProxyType(
    {**_FORMS, **{f"{name}+2bp": _deferred(name) for name in _DEFERRED_FILL}}
)
"""Canonical name -> form."""
