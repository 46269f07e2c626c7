"""Limits: the values of a key that the user leaves open, between two ends, among a few, or all but some."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from planner.constraints.values import shown


@dataclass(frozen=True)
class Limit:
    """``least`` and ``most`` belong to what may be used, None = no end. ``among``: the only values, None = any.

    ``never``: values that may not be used.
    """

    least: float | None = None
    most: float | None = None
    among: tuple[Any, ...] | None = None
    never: tuple[Any, ...] = ()

    def admits(self, value: Any) -> bool:
        return (
            (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.among is None or value in self.among)
            and value not in self.never
        )

    def meet(self, other: Limit) -> Limit:
        """What both admit."""
        least = [end for end in (self.least, other.least) if end is not None]
        most = [end for end in (self.most, other.most) if end is not None]
        among = self.among if other.among is None else other.among
        if self.among is not None and other.among is not None:
            among = tuple(value for value in self.among if value in other.among)
        return replace(
            self,
            least=max(least, default=None),
            most=min(most, default=None),
            among=among,
            never=(*self.never, *other.never),
        )

    @property
    def example(self) -> Any:
        """Some value at the edge of what it admits; None where it admits all but some."""
        return self.among[0] if self.among else self.most if self.least is None else self.least

    @property
    def words(self) -> str:
        """As ``--limit`` takes it: ``2..8``, ``1/2/4``; nothing where it only rules values out."""
        if self.among is not None:
            return "/".join(shown(value) for value in self.among if self.admits(value))
        ends = ["" if end is None else shown(end) for end in (self.least, self.most)]
        return "..".join(ends) if any(ends) else ""

    @property
    def empty(self) -> bool:
        """Whether it admits nothing, whatever the key."""
        if self.among is not None:
            return not any(self.admits(value) for value in self.among)
        return self.least is not None and self.most is not None and self.least > self.most


@dataclass(frozen=True)
class LayerPin:
    """What holds for layers ``first`` to ``last``, both included: ``key`` (a ``per_layer`` one) is ``value``."""

    key: str
    first: int
    last: int
    value: Any

    def __str__(self) -> str:
        layers = f"{self.first}" if self.first == self.last else f"{self.first}-{self.last}"
        return f"{self.key}.{layers}"
