"""What is worked out once per schedule object."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Generic, TypeVar

from costmodel.schema.schedule import Schedule

Found = TypeVar("Found")


class PerSchedule(Generic[Found]):
    """By identity, for hashing a schedule means hashing every pass; what was found goes with its schedule."""

    def __init__(self) -> None:
        self._found: dict[int, Found] = {}

    def of(self, schedule: Schedule, build: Callable[[Schedule], Found]) -> Found:
        key = id(schedule)
        if key not in self._found:
            self._found[key] = build(schedule)
            weakref.finalize(schedule, self._found.pop, key).atexit = False
        return self._found[key]
