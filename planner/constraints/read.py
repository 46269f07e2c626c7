"""From words of the command line and entries of a TOML file to Constraints; every refusal says where it stood."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from costmodel.schema.errors import InvalidSpec, UnknownName
from planner.constraints.keys import KEYS, Key
from planner.constraints.limits import LayerPin, Limit
from planner.constraints.techniques import allowed_name, forbidden_names
from planner.constraints.values import SYNTHESIZED, schedule_name, shown

Where = str
"""How an entry was written, for messages: ``--fix tp=0``, ``limits.toml: fix.tp = 0``."""


@dataclass(frozen=True)
class Constraints:
    """What the user takes out of the search's hands.

    ``fixed``: values that the layout must have, by key. ``pins``: the same for ranges of layers. ``limits``: values
    that keys may have. ``forbidden``, ``allowed``: techniques. ``schedules``: the only ones, None = the runtime's;
    ``synthesize``: look for an order of passes too. ``free_bytes``: memory of each device that must stay free.
    """

    fixed: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    pins: tuple[LayerPin, ...] = ()
    limits: Mapping[str, Limit] = field(default_factory=lambda: MappingProxyType({}))
    forbidden: frozenset[str] = frozenset()
    allowed: frozenset[str] = frozenset()
    schedules: tuple[str, ...] | None = None
    synthesize: bool = False
    free_bytes: float = 0.0


def read_constraints(
    *,
    fix: Iterable[str] = (),
    limit: Iterable[str] = (),
    forbid: Iterable[str] = (),
    allow: Iterable[str] = (),
    schedules: Iterable[str] = (),
    free_memory: str | None = None,
    document: Mapping[str, Any] | None = None,
    origin: str = "",
) -> Constraints:
    """Command line and file together; neither overrules the other.

    ``document``: a constraints file's content, ``origin`` its name. Raises InvalidSpec for what is no such entry, has a
    value that its key cannot have or contradicts another; UnknownName for a key or technique that there is not.
    """
    from planner.constraints.file import entries_of

    held = entries_of(document or {}, origin)
    reader = _Reader()
    for text in split(fix):
        reader.fix(*_pair(text, "--fix", "tp=8,pp=4"), f"--fix {text}")
    for key, value, where in held.fix:
        reader.fix(key, value, where)
    for text in split(limit):
        reader.limit(*_pair(text, "--limit", "tp=..8,pp=2.."), f"--limit {text}")
    for key, value, where in held.limit:
        reader.limit(key, value, where)
    for text, where in [*((text, f"--forbid {text}") for text in split(forbid)), *held.forbid]:
        reader.forbid(text, where)
    asked = [*split(schedules), *held.schedules]
    only = tuple(dict.fromkeys(schedule_name(one) for one in asked if one.lower() != SYNTHESIZED))
    free = [_read_bytes(text, where) for text, where in ((free_memory, "--free-memory"), held.free_memory) if text]
    return Constraints(
        fixed=MappingProxyType(reader.fixed),
        pins=tuple(reader.pins),
        limits=MappingProxyType(reader.limits),
        forbidden=frozenset(reader.forbidden),
        allowed=frozenset(allowed_name(text) for text in (*split(allow), *held.allow)),
        schedules=only or None,
        synthesize=any(one.lower() == SYNTHESIZED for one in asked),
        free_bytes=max(free, default=0.0),
    )


class _Reader:
    """Collects entries, refusing two that contradict each other."""

    def __init__(self) -> None:
        self.fixed: dict[str, Any] = {}
        self.pins: list[LayerPin] = []
        self.limits: dict[str, Limit] = {}
        self.forbidden: set[str] = set()

    def fix(self, name: str, given: Any, where: Where) -> None:
        key, layers = _key_and_layers(name, where)
        value = _value(key, given, where)
        if layers is None:
            if self.fixed.setdefault(key.name, value) != value:
                raise InvalidSpec(
                    f"{where} gives {key.name} twice, as {shown(self.fixed[key.name])} and as {shown(value)}",
                    "keep one of them",
                )
            return
        pin = LayerPin(key.name, *layers, value)
        for other in self.pins:
            meet = other.key == key.name and other.first <= pin.last and pin.first <= other.last
            if meet and other.value != value:
                raise InvalidSpec(
                    f"{where}: {other} is fixed as {shown(other.value)} already, and the two share layers",
                    "keep one of them",
                )
        self.pins.append(pin)

    def limit(self, name: str, given: Any, where: Where) -> None:
        key = _known(name, where)
        self._meet(key, read_limit(key, given, where), where)

    def forbid(self, text: str, where: Where) -> None:
        name, equals, value = text.partition("=")
        if equals:
            key = _known(name, where)
            self._meet(key, Limit(never=(_value(key, value, where),)), where)
            return
        self.forbidden |= set(forbidden_names(text))

    def _meet(self, key: Key, limit: Limit, where: Where) -> None:
        met = self.limits.get(key.name, Limit()).meet(limit)
        if met.empty:
            raise InvalidSpec(f"{where}: with the other limits, no value of {key.name} is left", "widen one of them")
        self.limits[key.name] = met


def read_limit(key: Key, given: Any, where: Where) -> Limit:
    """``..8``, ``2..``, ``2..8`` or ``1/2/4``; in TOML also ``{min = 2, max = 8}`` and ``[1, 2, 4]``.

    Raises InvalidSpec.
    """
    if isinstance(given, Mapping):
        for name in given:
            if name not in ("min", "max"):
                raise UnknownName(f"key in {where}", str(name), ("min", "max"))
        least, most = given.get("min"), given.get("max")
    elif isinstance(given, list):
        return Limit(among=tuple(_value(key, one, where) for one in given))
    else:
        low, dots, high = str(given).partition("..")
        if not dots:
            return Limit(among=tuple(_value(key, one, where) for one in str(given).split("/")))
        least, most = low or None, high or None
    if not key.values.ordered:
        raise InvalidSpec(f"{where}: values of {key.name} have no order, so no least and no most", "list those allowed")
    if least is None and most is None:
        raise InvalidSpec(f"{where} says neither a least nor a most value", "like 2..8, ..8 or 2..")
    least, most = (None if end is None else _value(key, end, where) for end in (least, most))
    return Limit(least, most)


def split(items: Iterable[str]) -> list[str]:
    """The parts between commas of all items."""
    return [part.strip() for item in items for part in item.split(",") if part.strip()]


def _pair(text: str, option: str, like: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not value.strip():
        raise InvalidSpec(f"{option} {text!r} is not KEY=VALUE", f"write it like {option} {like}")
    return key, value.strip()


def _key_and_layers(name: str, where: Where) -> tuple[Key, tuple[int, int] | None]:
    """``recompute.0-3`` -> (recompute, (0, 3)); ``recompute.7`` -> (recompute, (7, 7)); ``tp`` -> (tp, None)."""
    head, dot, layers = name.strip().partition(".")
    key = _known(head, where)
    if not dot:
        return key, None
    if not key.per_layer:
        several = ", ".join(one.name for one in KEYS.values() if one.per_layer)
        raise InvalidSpec(f"{where}: {key.name} is the same for all layers", f"of some layers alone: {several}")
    found = re.fullmatch(r"(\d+)(?:-(\d+))?", layers.strip())
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
    if last < first:
        raise InvalidSpec(f"{where}: {layers!r} names no layers", f"write them like {key.name}.0-3 or {key.name}.7")
    return key, (first, last)


def _known(name: str, where: Where) -> Key:
    canonical = name.strip().lower().replace("-", "_")
    if canonical not in KEYS:
        raise UnknownName(f"key of {where.split()[0] if where.startswith('--') else where}", canonical, tuple(KEYS))
    return KEYS[canonical]


def _value(key: Key, given: Any, where: Where) -> Any:
    try:
        return key.values.read(given)
    except ValueError:
        raise InvalidSpec(f"{where}: {key.name} must be {key.values.rule}") from None


def _read_bytes(text: Any, where: Where) -> float:
    """``4 GiB``, ``512MiB``, ``4e9``, or a number of bytes."""
    units = {"": 1.0, "B": 1.0, "MB": 1e6, "GB": 1e9, "MIB": 2.0**20, "GIB": 2.0**30}
    found = re.fullmatch(r"\s*([\d.]+(?:e\+?\d+)?)\s*([a-z]*)\s*", str(text), re.IGNORECASE)
    if found is None or found[2].upper() not in units or isinstance(text, bool) or found[1].count(".") > 1:
        raise InvalidSpec(f"{where} {text}: must be an amount of memory", "like 4GiB, 512MiB or 4e9 bytes")
    return float(found[1]) * units[found[2].upper()]
