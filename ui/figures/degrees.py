"""What can be told of every layout of a survey in one word each: the columns that colour and sort the pictures."""

from __future__ import annotations

from collections.abc import Sequence

from costmodel.layouts import OPTIMIZER_FORMATS, ORDERS, POLICIES, SCHEDULE_CODES
from planner.constraints.values import shown
from planner.survey import Survey

DEGREES: dict[str, str] = {
    "tp": "Tensor parallel", "pp": "Pipeline parallel", "vpp": "Stages a rank", "cp": "Context parallel",
    "ep": "Expert parallel", "etp": "Tensor parallel in experts", "dp_shard": "Sharded data parallel",
    "dp_replicate": "Replicated data parallel", "micro_batch_size": "Micro-batch", "zero_stage": "ZeRO stage",
    "reshard_after_forward": "Backward gathers over", "shard_optim": "Optimizer over",
    "optimizer_offload": "Optimizer on the host",
}  # fmt: skip
"""Columns that hold numbers, and what they are called."""

CODED: dict[str, tuple[str, Sequence[str]]] = {
    "schedule": ("Schedule", SCHEDULE_CODES),
    "order": ("Mesh order", [shown(order) for order in ORDERS]),
    "optimizer_format": ("Optimizer format", OPTIMIZER_FORMATS),
}
"""Columns that hold places in a list of names."""

POLICY = "policy"


def columns_of(survey: Survey) -> dict[str, list[float | str]]:
    """Every choice in which the survey's layouts differ: its name and each layout's value, a number or a word."""
    found: dict[str, list[float | str]] = {name: getattr(survey.layouts, name).tolist() for name in DEGREES}
    for name, (_, words) in CODED.items():
        found[name] = [words[code] for code in getattr(survey.layouts, name).tolist()]
    found[POLICY] = [POLICIES[code].name for code in survey.policy.tolist()]
    return {name: column for name, column in found.items() if len(set(column)) > 1}


def titled(name: str) -> str:
    """A column's name as it is read."""
    return "Each layer" if name == POLICY else DEGREES[name] if name in DEGREES else CODED[name][0]


def values_of(column: Sequence[float | str]) -> list[float | str]:
    """The distinct values, numbers by size, words as the planner lists them."""
    known = [*SCHEDULE_CODES, *(policy.name for policy in POLICIES), *CODED["order"][1], *OPTIMIZER_FORMATS]
    return sorted(set(column), key=lambda value: known.index(value) if isinstance(value, str) else value)


def worded(value: float | str) -> str:
    """A value as it is read: ``8``, ``0.5``, ``1f1b``."""
    if not isinstance(value, str):
        return f"{value:g}"
    return value.replace("+", ", ").replace("-", " ") if "+" in value else value
