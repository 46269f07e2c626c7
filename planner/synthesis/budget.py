"""What a search may spend."""

from __future__ import annotations

import time


class Budget:
    """``passes`` that may still be placed, so that a search ends at the same point on any machine; and, if given, the
    seconds after which it ends anyway.
    """

    def __init__(self, passes: float, seconds: float | None = None) -> None:
        self.passes = passes
        self.until = None if seconds is None else time.monotonic() + seconds

    def spend(self, passes: float) -> None:
        self.passes -= passes

    def part(self, share: float) -> Budget:
        """A budget of its own for a part of what is left now, ending at the same time. What it spends is not taken off
        this one.
        """
        part = Budget(self.passes * share)
        part.until = self.until
        return part

    @property
    def left(self) -> bool:
        return self.passes > 0 and (self.until is None or time.monotonic() < self.until)
