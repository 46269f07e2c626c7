"""The schedules by name: what each needs, and how it is built."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from typing import Any

from costmodel.schedules import SCHEDULES as FORMS
from costmodel.schema.errors import InvalidSpec
from costmodel.schema.schedule import Pass, Schedule
from planner.schedules.bitpipe import bitpipe
from planner.schedules.breadth_first import breadth_first
from planner.schedules.chimera import chimera
from planner.schedules.dualpipe import dualpipe, dualpipe_v
from planner.schedules.gathers import with_gathers
from planner.schedules.gpipe import gpipe
from planner.schedules.hanayo import hanayo
from planner.schedules.interleaved import interleaved_1f1b
from planner.schedules.kind import ScheduleKind
from planner.schedules.names import DEFERRED, GATHERED, canonical_name
from planner.schedules.one_f_one_b import one_f_one_b
from planner.schedules.times import EQUAL_TIMES, PassTimes
from planner.schedules.two_bp import defer_weight_grads
from planner.schedules.v_half import v_half
from planner.schedules.v_min import v_min
from planner.schedules.vocabulary import one_f_one_b_vocab_1, one_f_one_b_vocab_2
from planner.schedules.zb_h1 import zb_h1
from planner.schedules.zb_h2 import zb_h2
from planner.schedules.zb_v import zb_v
from planner.schedules.zeropp import zeropp


def _deferred(kind: ScheduleKind) -> ScheduleKind:
    """The same schedule under 2BP."""

    def generate(pp: int, num_microbatches: int, vpp: int) -> list[list[Pass]]:
        orders = tuple(tuple(order) for order in kind.generate(pp, num_microbatches, vpp))
        plain = Schedule(kind.name, num_microbatches, kind.stage_to_rank(pp, vpp), orders, kind.copies)
        return [list(order) for order in defer_weight_grads(plain).orders]

    return replace(kind, name=kind.name + DEFERRED, generate=generate, splits_backward=True)


def _gathered(kind: ScheduleKind) -> ScheduleKind:
    """The same schedule with its gathers and reductions in the order."""

    def generate(pp: int, num_microbatches: int, vpp: int) -> list[list[Pass]]:
        return [with_gathers(order) for order in kind.generate(pp, num_microbatches, vpp)]

    return replace(kind, name=kind.name + GATHERED, generate=generate)


def _priced(
    name: str, generate: Callable[..., list[list[Pass]]], rule: str, vpp: int = 1, heeds_times: bool = False
) -> ScheduleKind:
    """A schedule that the cost model has a form of, which says the rest."""
    form = FORMS[name]
    return ScheduleKind(
        name,
        generate,
        form.allows,
        rule,
        form.splits_backward,
        vpp,
        form.stage_to_rank,
        form.copies,
        heeds_times,
    )


_ONE_STAGE = "vpp = 1 and m >= 1"
_ONE_SPLIT_STAGE = "pp >= 2, vpp = 1 and m >= 1"
_V_SHAPED = "pp >= 2, vpp = 2 and m >= 1"
_BOTH_WAYS = "an even pp, vpp = 1 and m >= 2"

_PLAIN = (
    _priced("gpipe", gpipe, _ONE_STAGE),
    _priced("1f1b", one_f_one_b, _ONE_STAGE),
    _priced("interleaved-1f1b", interleaved_1f1b, "pp >= 2, vpp >= 2 and m >= 1", vpp=2),
    _priced("breadth-first", breadth_first, "vpp >= 2 and m >= 1", vpp=2),
    _priced("hanayo", hanayo, "pp >= 2, vpp = 2, 4, 6, … (two for each wave) and m >= 1", vpp=2),
    _priced("chimera", chimera, _BOTH_WAYS),
    _priced("bitpipe", bitpipe, "an even pp, vpp >= 2 and m >= 2", vpp=2),
)

_SPLIT = (
    _priced("zb-h1", zb_h1, _ONE_SPLIT_STAGE),
    _priced("zb-h2", zb_h2, _ONE_SPLIT_STAGE, heeds_times=True),
    _priced("zb-v", zb_v, _V_SHAPED, vpp=2, heeds_times=True),
    _priced("v-half", v_half, _V_SHAPED, vpp=2),
    _priced("v-min", v_min, _V_SHAPED, vpp=2),
    _priced("dualpipe", dualpipe, _BOTH_WAYS),
    _priced("dualpipe-v", dualpipe_v, _V_SHAPED, vpp=2),
    _priced("zeropp", zeropp, "pp >= 2, vpp >= 1 and m >= 1", vpp=2),
)

_VOCABULARY = (
    _priced("1f1b-vocab-1", one_f_one_b_vocab_1, _ONE_SPLIT_STAGE),
    _priced("1f1b-vocab-2", one_f_one_b_vocab_2, _ONE_SPLIT_STAGE),
)

SCHEDULES = {
    kind.name: kind
    for kind in (
        *_PLAIN,
        *_SPLIT,
        *_VOCABULARY,
        *(_gathered(kind) for kind in _PLAIN if kind.name == "breadth-first"),
        *(_deferred(kind) for kind in _PLAIN),
    )
}
"""Canonical name -> ScheduleKind."""


def supports(name: str, pp: Any, num_microbatches: Any, vpp: Any = 1) -> Any:
    """Whether the schedule exists at these sizes: a bool for integers, a bool column for NumPy columns.

    Raises UnknownName.
    """
    return SCHEDULES[canonical_name(name)].allows(pp, num_microbatches, vpp)


def build_schedule(name: str, pp: int, num_microbatches: int, vpp: int = 1, times: PassTimes = EQUAL_TIMES) -> Schedule:
    """The order of passes for ``pp`` ranks with ``vpp`` stages each, made for ``times`` where the schedule heeds them.

    The same arguments give the same object. Raises UnknownName; InvalidSpec for sizes the schedule cannot do.
    """
    canonical = canonical_name(name)
    heeded = times if SCHEDULES[canonical].heeds_times else EQUAL_TIMES
    return _build(canonical, int(pp), int(num_microbatches), int(vpp), heeded)


@lru_cache(maxsize=64)
def _build(name: str, pp: int, num_microbatches: int, vpp: int, times: PassTimes) -> Schedule:
    kind = SCHEDULES[name]
    if min(pp, num_microbatches, vpp) < 1 or not kind.allows(pp, num_microbatches, vpp):
        sizes = f"pp = {pp}, m = {num_microbatches} micro-batches and vpp = {vpp}"
        raise InvalidSpec(
            f"schedule {name!r} cannot do {sizes}; it needs {kind.rule}", _hint(kind, pp, num_microbatches, vpp)
        )
    with _without_collections():
        orders = kind.orders(pp, num_microbatches, vpp, times)
    return Schedule(name, num_microbatches, kind.stage_to_rank(pp, vpp), orders, kind.copies)


@contextmanager
def _without_collections() -> Iterator[None]:
    """While passes are made by the hundred thousand, looking for cycles among them takes longer than making them."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _hint(kind: ScheduleKind, pp: int, num_microbatches: int, vpp: int) -> str | None:
    """The nearest size that works, one of the three changed; else a schedule that does these sizes."""
    candidates = (
        [("m", at, (pp, at, vpp)) for at in _near(num_microbatches)]
        + [("vpp", at, (pp, num_microbatches, at)) for at in _near(vpp)]
        + [("pp", at, (at, num_microbatches, vpp)) for at in _near(pp)]
    )
    nearest = next((f"{size} = {at}" for size, at, sizes in candidates if kind.allows(*sizes)), None)
    others = ("1f1b", "interleaved-1f1b", "breadth-first")
    instead = next((name for name in others if SCHEDULES[name].allows(pp, num_microbatches, vpp)), None)
    hints = [hint for hint in (nearest, instead and f"the schedule {instead}") if hint]
    return f"take {' or '.join(hints)}" if hints else None


def _near(size: int) -> list[int]:
    """A few sizes around ``size``, nearest first, larger before smaller."""
    return sorted(range(max(size - 3, 1), max(size, 1) + 4), key=lambda at: (abs(at - size), -at))
