"""What the cost model knows of each pipeline schedule without its order of passes: one entry a schedule.

Where stages live is exact. What is kept alive is exact where a closed form is, elsewhere an upper bound that a test
holds against the generated orders; the planner takes finalists' figures from the order itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from costmodel.placement import looped, mirrored, zigzag
from costmodel.schema.errors import InvalidSpec

Form = Callable[[Any, Any, Any, Any], Any]
"""A figure from (p, m, v, rank), floats or columns that broadcast."""


def _none(p: Any, m: Any, v: Any, r: Any) -> Any:
    return 0.0 * (p + r)


@dataclass(frozen=True)
class ScheduleForm:
    """One schedule, by p ranks, m micro-batches and v stages a rank (of one copy).

    allows           (p, m, v): which sizes it can do, integers or columns
    in_flight        micro-batches alive at once on a rank, in units of all of the rank's layers of one copy
    least_in_flight  what the order never keeps less than, where in_flight is not exact
    pending          those between input gradient and weight gradient, likewise
    least_pending    what the order leaves at least beside least_in_flight: with x bytes a micro-batch alive and y one
                     waiting, a rank's peak is no less than x · least_in_flight + y · least_pending
    ahead            forwards before the first backward, where it is not in_flight
    gathers          how often the rank's sharded parameters are gathered for its forwards, and again for its backwards,
                     where they stay gathered for a run of passes; None: for every forward before the first backward
    fill             what every rank but the heaviest adds to the makespan: weights of its F, I and W, over v
    slack            what each micro-batch adds where F and B share slots of one length: times |B - F|, over v
    tripled          whether a micro-batch takes three times the longest of F, I and W at least, not just their sum
    crossings        how often an activation's way through the model adds to the makespan, in edges between ranks
    placement        looped: stage s on rank s mod p; zigzag: there and back
    copies           whole models that run through the ranks, the second from the other end
    splits_backward  runs I and W apart
    forwards_first   runs every forward before the first backward
    barriers         embedding and output layer are split over all ranks, and their parts meet in so many collectives
                     between a micro-batch's last forward and first backward, one micro-batch's time each; 0: both whole
    """

    allows: Callable[[Any, Any, Any], Any]
    in_flight: Form
    least_in_flight: Form | None = None
    pending: Form = _none
    least_pending: Form | None = None
    ahead: Form | None = None
    gathers: Form | None = None
    fill: tuple[float, float, float] = (1.0, 1.0, 1.0)
    slack: float = 0.0
    tripled: bool = False
    crossings: float = 2.0
    placement: Literal["looped", "zigzag"] = "looped"
    copies: int = 1
    splits_backward: bool = False
    forwards_first: bool = False
    barriers: int = 0

    def stage_to_rank(self, pp: int, vpp: int) -> tuple[int, ...]:
        """Where the stages of all copies live, each copy's in model order."""
        one = (zigzag if self.placement == "zigzag" else looped)(pp, vpp)
        return one if self.copies == 1 else mirrored(one, pp)


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


def _interleaved(p: Any, m: Any, v: Any, r: Any) -> Any:
    ahead = 2.0 * (p - r - 1.0) + (v - 1.0) * np.ceil(m / _rounds(m, p)) + 1.0
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
    "interleaved-1f1b": ScheduleForm(lambda p, m, v: (p >= 2) & (v >= 2) & (m >= 1), _interleaved),
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
        least_pending=_none,
        fill=(1.0, 0.0, 0.0),
        placement="zigzag",
        splits_backward=True,
    ),
    "v-half": ScheduleForm(
        _v_shaped,
        lambda p, m, v, r: np.minimum(m, 0.5 * p + 1.0) + 0.0 * r,
        pending=lambda p, m, v, r: np.minimum(m, 0.5 * p + 1.0) + 0.0 * r,
        least_pending=_none,
        fill=(1.0, 1.0, 1.0),
        placement="zigzag",
        splits_backward=True,
    ),
    "v-min": ScheduleForm(
        _v_shaped,
        lambda p, m, v, r: np.minimum(m, (p + 4.0) // 3.0) + 0.0 * r,
        least_in_flight=lambda p, m, v, r: np.maximum(np.minimum(0.5 * (m + 1.0), (p + 1.0) // 3.0), 1.0) + 0.0 * r,
        pending=lambda p, m, v, r: np.minimum(m, (p + 4.0) // 3.0) + 0.0 * r,
        least_pending=_none,
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
        least_pending=_none,
        ahead=plain,
        fill=_DEFERRED_FILL[name],
        slack=0.0,
        splits_backward=True,
    )


SCHEDULES: MappingProxyType[str, ScheduleForm] = MappingProxyType(
    {**_FORMS, **{f"{name}+2bp": _deferred(name) for name in _DEFERRED_FILL}}
)
"""Canonical name -> form."""


@dataclass(frozen=True)
class Stages:
    """Where the stages of all copies live, each copy's in model order: ranks by stage, and columns [p] by rank.

    ``embedding``, ``head``: whether a rank holds that end of the model, or a part of it. ``activations``,
    ``gradients``: messages that it sends to other ranks for a micro-batch that crosses all of its stages.
    """

    stage_to_rank: tuple[int, ...]
    copies: int
    embedding: NDArray[np.bool_]
    head: NDArray[np.bool_]
    activations: NDArray[np.int64]
    gradients: NDArray[np.int64]

    @property
    def num_ranks(self) -> int:
        return len(self.embedding)

    @property
    def per_copy(self) -> int:
        """Stages of one copy."""
        return len(self.stage_to_rank) // self.copies


@lru_cache(maxsize=4096)
def stages_of(schedule: str, pp: int, vpp: int) -> Stages:
    """The placement of a schedule's stages on ``pp`` ranks. Raises KeyError for a name that has no form."""
    form = SCHEDULES[schedule]
    stage_to_rank = form.stage_to_rank(pp, vpp)
    homes = np.reshape(stage_to_rank, (form.copies, -1)).tolist()
    columns = {name: np.zeros(pp, np.int64) for name in ("embedding", "head", "activations", "gradients")}
    for home in homes:
        columns["embedding"][home if form.barriers else home[:1]] = 1
        columns["head"][home if form.barriers else home[-1:]] = 1
        for before, after in pairwise(home):
            columns["activations"][before] += before != after
            columns["gradients"][after] += before != after
    return Stages(
        stage_to_rank=stage_to_rank,
        copies=form.copies,
        embedding=columns["embedding"] > 0,
        head=columns["head"] > 0,
        activations=columns["activations"],
        gradients=columns["gradients"],
    )


def resembling(stage_to_rank: tuple[int, ...], pp: int, vpp: int, splits_backward: bool) -> str:
    """The schedule whose stages lie so, and whose backward is split likewise if there is one: for an order found rather
    than named. Raises InvalidSpec where stages lie as no schedule places them.
    """
    placed = [
        name
        for name, form in SCHEDULES.items()
        if form.allows(pp, pp, vpp) and stages_of(name, pp, vpp).stage_to_rank == stage_to_rank
    ]
    if not placed:
        raise InvalidSpec(
            f"pipeline.stage_to_rank = {list(stage_to_rank)} is not a placement that is priced",
            "round and round the ranks, there and back, or either in two directions",
        )
    return next((name for name in placed if SCHEDULES[name].splits_backward == splits_backward), placed[0])
