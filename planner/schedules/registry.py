"""The schedules by name: what each needs, and how it is built."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from costmodel.schema.errors import InvalidSpec
from costmodel.schema.schedule import Schedule
from planner.schedules.gpipe import gpipe
from planner.schedules.interleaved import interleaved_1f1b
from planner.schedules.kind import ScheduleKind
from planner.schedules.names import canonical_name
from planner.schedules.one_f_one_b import one_f_one_b
from planner.schedules.zb_h1 import zb_h1


def _kinds(*kinds: ScheduleKind) -> dict[str, ScheduleKind]:
    return {kind.name: kind for kind in kinds}


SCHEDULES = _kinds(
    ScheduleKind("gpipe", gpipe, lambda pp, m, vpp: (pp >= 1) & (m >= 1) & (vpp == 1), "vpp = 1 and m >= 1"),
    ScheduleKind("1f1b", one_f_one_b, lambda pp, m, vpp: (pp >= 1) & (m >= 1) & (vpp == 1), "vpp = 1 and m >= 1"),
    ScheduleKind(
        "interleaved-1f1b",
        interleaved_1f1b,
        lambda pp, m, vpp: (pp >= 2) & (vpp >= 2) & (m >= 1) & (m % pp == 0),
        "pp >= 2, vpp >= 2 and m a multiple of pp",
        vpp=2,
    ),
    ScheduleKind(
        "zb-h1",
        zb_h1,
        lambda pp, m, vpp: (pp >= 2) & (m >= 1) & (vpp == 1),
        "pp >= 2, vpp = 1 and m >= 1",
        splits_backward=True,
    ),
)
"""Canonical name -> ScheduleKind."""


def supports(name: str, pp: Any, num_microbatches: Any, vpp: Any = 1) -> Any:
    """Whether the schedule exists at these sizes: a bool for integers, a bool column for NumPy columns.

    Raises UnknownName.
    """
    return SCHEDULES[canonical_name(name)].allows(pp, num_microbatches, vpp)


def build_schedule(name: str, pp: int, num_microbatches: int, vpp: int = 1) -> Schedule:
    """The order of passes for ``pp`` ranks with ``vpp`` stages each.

    The same arguments give the same object. Raises UnknownName; InvalidSpec for sizes the schedule cannot do.
    """
    return _build(canonical_name(name), int(pp), int(num_microbatches), int(vpp))


@lru_cache(maxsize=64)
def _build(name: str, pp: int, num_microbatches: int, vpp: int) -> Schedule:
    kind = SCHEDULES[name]
    if min(pp, num_microbatches, vpp) < 1 or not kind.allows(pp, num_microbatches, vpp):
        sizes = f"pp = {pp}, m = {num_microbatches} micro-batches and vpp = {vpp}"
        raise InvalidSpec(f"schedule {name!r} cannot do {sizes}; it needs {kind.rule}", _hint(kind, pp, vpp))
    orders = tuple(tuple(order) for order in kind.generate(pp, num_microbatches, vpp))
    return Schedule(name, num_microbatches, kind.stage_to_rank(pp, vpp), orders, kind.copies)


def _hint(kind: ScheduleKind, pp: int, vpp: int) -> str | None:
    if vpp > 1 and not kind.needs_vpp:
        return "with vpp > 1 take interleaved-1f1b"
    if kind.needs_vpp and pp >= 2 and vpp >= 2:
        return f"take m = {pp}, {2 * pp}, {3 * pp}, …"
    if pp == 1:
        return "with pp = 1 take 1f1b"
    return None
