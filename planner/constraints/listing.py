"""What ``plan constraints`` lists and docs/constraints.md holds: keys, techniques and their spellings, as rows."""

from __future__ import annotations

from planner.constraints.keys import KEYS
from planner.constraints.techniques import ALIASES, ALLOWABLE, FORBIDDABLE

Row = dict[str, str]


def list_keys() -> list[Row]:
    """Keys of ``--fix``, and of ``--limit`` and ``--forbid KEY=VALUE`` alike."""
    return [
        {"key": _name(key.name, key.per_layer), "takes": key.values.rule, "what": key.says} for key in KEYS.values()
    ]


def list_forbidden() -> list[Row]:
    """Names that ``--forbid`` knows beside schedules, each with its other spellings."""
    return [
        {
            "name": name,
            "also": ", ".join(alias.replace("_", "-") for alias, names in ALIASES.items() if name in names),
            "what": technique.says,
        }
        for name, technique in FORBIDDABLE.items()
    ]


def list_allowed() -> list[Row]:
    """Names that ``--allow`` knows."""
    return [{"name": name, "what": lossy.says} for name, lossy in ALLOWABLE.items()]


def markdown(rows: list[Row]) -> str:
    """The rows as a table of docs/constraints.md, names in code."""
    head = "| " + " | ".join(rows[0]) + " |"
    lines = ["| " + " | ".join([f"`{first}`", *rest]) + " |" for first, *rest in (list(row.values()) for row in rows)]
    return "\n".join([head, "|" + "---|" * len(rows[0]), *lines])


def _name(name: str, per_layer: bool) -> str:
    return f"{name}[.LAYERS]" if per_layer else name
