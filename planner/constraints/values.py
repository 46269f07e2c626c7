"""What a pinned key's value may be, and how it is read from a word of the command line or from a TOML file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from costmodel.schema.errors import InvalidSpec
from costmodel.schema.layout import AXES

SYNTHESIZED = "auto"
"""What stands for an order of passes that is found rather than named."""

NAMED_ORDERS: Mapping[str, tuple[str, ...]] = {
    "pp-outermost": AXES,
    "dp-outermost": ("tp", "cp_ulysses", "cp_ring", "pp", "dp_shard", "dp_replicate"),
}
"""Short names of the mesh orders that are searched."""


class Values(Protocol):
    """The values of one key. ``rule`` completes the sentence "KEY must be …"."""

    @property
    def rule(self) -> str: ...

    @property
    def ordered(self) -> bool:
        """Whether ``least`` and ``most`` mean anything."""
        ...

    def read(self, given: Any) -> Any:
        """The value, from text or from what TOML holds. Raises ValueError where it breaks the rule."""
        ...


@dataclass(frozen=True)
class Whole:
    """Whole numbers from ``least``."""

    least: int = 1
    ordered = True

    @property
    def rule(self) -> str:
        return f"a whole number from {self.least}"

    def read(self, given: Any) -> int:
        if isinstance(given, bool) or not isinstance(given, int | str):
            raise ValueError
        number = int(given)
        if number < self.least:
            raise ValueError
        return number


@dataclass(frozen=True)
class Share:
    """A share, from 0 to 1."""

    ordered = True
    rule = "a share from 0 to 1"

    def read(self, given: Any) -> float:
        if isinstance(given, bool) or not isinstance(given, int | float | str):
            raise ValueError
        share = float(given)
        if not 0.0 <= share <= 1.0:
            raise ValueError
        return share


@dataclass(frozen=True)
class Flag:
    """Yes or no."""

    ordered = False
    rule = "one of true, false"

    def read(self, given: Any) -> bool:
        return {"true": True, "false": False}[_word(given)] if _word(given) in ("true", "false") else _refuse()


@dataclass(frozen=True)
class Choice:
    """One of a few words or numbers."""

    options: tuple[str | int, ...]
    ordered = False

    @property
    def rule(self) -> str:
        return f"one of {', '.join(map(str, self.options))}"

    def read(self, given: Any) -> str | int:
        named = {str(option): option for option in self.options}
        word = _word(given)
        return named[word] if word in named else _refuse()


@dataclass(frozen=True)
class Order:
    """A mesh order that is priced: its short name, or all axes, innermost first."""

    ordered = False
    rule = f"{' or '.join(NAMED_ORDERS)}, or all axes of one of them, innermost first"

    def read(self, given: Any) -> tuple[str, ...]:
        if isinstance(given, str) and given.lower().replace("_", "-") in NAMED_ORDERS:
            return NAMED_ORDERS[given.lower().replace("_", "-")]
        axes = tuple(given) if isinstance(given, list | tuple) else tuple(str(given).lower().split("/"))
        return axes if axes in NAMED_ORDERS.values() else _refuse()


@dataclass(frozen=True)
class Lengths:
    """Layers by stage, in model order: ``9/8/8/7``, or ``0/9/9/0`` with each end of the model on a stage of its own."""

    ordered = False
    rule = "whole numbers, one a stage in model order, like 9/8/8/7; only the first and the last may be 0"

    def read(self, given: Any) -> tuple[int, ...]:
        parts = given if isinstance(given, list | tuple) else str(given).split("/")
        lengths = tuple(Whole(0).read(part) for part in parts)
        return lengths if any(lengths) and all(lengths[1:-1]) else _refuse()


@dataclass(frozen=True)
class ScheduleName:
    """A pipeline schedule, in any known spelling."""

    ordered = False
    rule = "a schedule's name"

    def read(self, given: Any) -> str:
        return schedule_name(given) if isinstance(given, str) else _refuse()


def shown(value: Any) -> str:
    """A value as ``--fix`` takes it: ``true``, ``9/8/8/7``, ``dp-outermost``."""
    for name, order in NAMED_ORDERS.items():
        if value == order:
            return name
    if isinstance(value, tuple):
        return "/".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def schedule_name(text: str) -> str:
    """The canonical name of a pipeline schedule, from any known spelling. Raises UnknownName; InvalidSpec for ``auto``,
    which names none.
    """
    from planner.schedules.names import canonical_name

    if text.strip().lower() == SYNTHESIZED:
        raise InvalidSpec(
            f"schedule {text!r} stands for an order yet to be found, and one schedule must be named here",
            "plan --schedule auto and plan schedule auto find one",
        )
    return canonical_name(text)


def _word(given: Any) -> str:
    return str(given).strip().lower().replace("_", "-")


def _refuse() -> Any:
    raise ValueError
