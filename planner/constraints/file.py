"""The constraints file: what ``--fix``, ``--limit``, ``--forbid`` and their kin say, kept as TOML.

forbid = ["full-recompute", "zb-h1"]
allow = ["int8-optimizer"]
schedules = ["1f1b", "interleaved-1f1b"]
free_memory = "4 GiB"

[fix]
tp = 8
sequence_parallel = true
layers_per_stage = [19, 20, 20, 21]

[fix.recompute]
"0-3" = "full"

[limit]
pp = { min = 2 }
micro_batch_size = [1, 2]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from costmodel.schema.errors import InvalidSpec, UnknownName

LISTS = ("forbid", "allow", "schedules")
TABLES = ("fix", "limit")
SECTIONS = (*TABLES, *LISTS, "free_memory")


@dataclass(frozen=True)
class Entries:
    """A file's content, each entry with how to name it in a message."""

    fix: tuple[tuple[str, Any, str], ...]
    limit: tuple[tuple[str, Any, str], ...]
    forbid: tuple[tuple[str, str], ...]
    allow: tuple[str, ...]
    schedules: tuple[str, ...]
    free_memory: tuple[Any, str]


def entries_of(document: Mapping[str, Any], origin: str) -> Entries:
    """The document taken apart. Raises InvalidSpec for an entry of the wrong kind, UnknownName for an unknown one."""
    for name in document:
        if name not in SECTIONS:
            raise UnknownName(f"key in {origin}", name, SECTIONS)
    tables: dict[str, tuple[tuple[str, Any, str], ...]] = {}
    for name in TABLES:
        table = document.get(name, {})
        if not isinstance(table, Mapping):
            raise InvalidSpec(f"{origin}: {name} must be a table", f"write [{name}] and one key a line below it")
        tables[name] = tuple(_flat(name, table, origin))
    lists = {name: _strings(name, document.get(name, []), origin) for name in LISTS}
    return Entries(
        fix=tables["fix"],
        limit=tables["limit"],
        forbid=tuple((text, f"{origin}: forbid {text!r}") for text in lists["forbid"]),
        allow=lists["allow"],
        schedules=lists["schedules"],
        free_memory=(document.get("free_memory"), f"{origin}: free_memory ="),
    )


def _flat(name: str, table: Mapping[str, Any], origin: str) -> list[tuple[str, Any, str]]:
    """A table's entries; of [fix.recompute] each range of layers is one of its own."""
    found = []
    for key, value in table.items():
        several = isinstance(value, Mapping) and name == "fix"
        for under, one in value.items() if several else [("", value)]:
            whole = f"{key}.{under}" if several else key
            found.append((whole, one, f"{origin}: {name}.{whole} = {one}"))
    return found


def _strings(name: str, value: Any, origin: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise InvalidSpec(f"{origin}: {name} must be a list of names", f'like {name} = ["…"]')
    return tuple(value)
