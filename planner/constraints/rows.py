"""Which rows of a space the constraints admit: every pinned, limited or forbidden column, checked the same way."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from costmodel.layouts import OPTIMIZER_FORMATS, ORDERS, SCHEDULE_CODES, Layouts
from planner.constraints.keys import KEYS
from planner.constraints.limits import Limit
from planner.constraints.techniques import FORBIDDABLE

if TYPE_CHECKING:
    from planner.request import Request

_CODED: dict[str, Sequence[Any]] = {
    "order": ORDERS,
    "schedule": SCHEDULE_CODES,
    "optimizer_format": OPTIMIZER_FORMATS,
}
"""Columns that hold places in a list of values."""


def admits(request: Request, name: str, value: Any) -> bool:
    """Whether --fix, --limit and --forbid leave this value of a key."""
    return (
        (name not in request.fixed or value == request.fixed[name])
        and request.limits.get(name, Limit()).admits(value)
        and not any(bans(technique, name, value) for technique in request.forbidden)
    )


def bans(forbidden: str, name: str, value: Any) -> bool:
    """Whether a technique's absence takes this value of a key away."""
    technique = FORBIDDABLE.get(forbidden)
    return technique.bans(name, value) if technique else (name, value) == ("schedule", forbidden)


def named_values(request: Request, name: str) -> tuple[Any, ...]:
    """Values of a key that the user names one by one: they are in the space even where none would be tried unasked."""
    among = request.limits.get(name, Limit()).among or ()
    return (*([request.fixed[name]] if name in request.fixed else []), *among)


def constrained_keys(request: Request) -> list[str]:
    """Keys that are fixed, limited or, as a technique or a schedule, forbidden."""
    forbidden = [FORBIDDABLE[name].key if name in FORBIDDABLE else "schedule" for name in request.forbidden]
    return [name for name in KEYS if name in request.fixed or name in request.limits or name in forbidden]


def admitted_rows(request: Request, layouts: Layouts, leaving_out: Collection[str] = ()) -> NDArray[np.bool_]:
    """[n] whether a row keeps to every constraint on a column. Choices per layer are not columns and are not looked at,
    nor are the columns of ``leaving_out``.

    Without tensor parallelism sequence parallelism is neither on nor off, and nothing about it rules a row out.
    """
    keep = np.ones(len(layouts), bool)
    for name in constrained_keys(request):
        column = getattr(layouts, name, None)
        if column is None or name in leaving_out:
            continue
        distinct, index = np.unique(column, return_inverse=True)
        ok = np.array([admits(request, name, _decoded(name, code)) for code in distinct.tolist()], bool)[index.ravel()]
        keep &= ok | (layouts.tp == 1) if name == "sequence_parallel" else ok
    if "layers_per_stage" in request.fixed and "vpp" not in leaving_out:
        lengths = request.fixed["layers_per_stage"]
        keep &= (layouts.pp * layouts.vpp == len(lengths)) & ((layouts.vocab_parallel == 0) | (min(lengths) > 0))
    return keep


def _decoded(name: str, code: Any) -> Any:
    return _CODED[name][int(code)] if name in _CODED else code
