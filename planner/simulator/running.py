"""An order in which slots can run, and how deep each lies."""

from __future__ import annotations

import numpy as np

from planner.simulator.columns import Index


def running_order(first: Index, awaited: Index) -> Index | None:
    """All non-empty slots, each after the slot before it and the one it awaits; None when some wait for ever.

    Every lane runs until it waits for a slot not yet run, and goes on when that has run: O(slots).
    """
    starts, source_of = first.tolist(), awaited.tolist()
    done = bytearray(len(source_of))
    for empty in starts[:-1]:
        done[empty] = 1
    reached = [empty + 1 for empty in starts[:-1]]
    waiting: dict[int, list[int]] = {}
    ready = list(range(len(reached)))
    order: list[int] = []
    while ready:
        lane = ready.pop()
        slot, end = reached[lane], starts[lane + 1]
        begin = slot
        while slot < end:
            source = source_of[slot]
            if not done[source]:
                waiting.setdefault(source, []).append(lane)
                break
            done[slot] = 1
            if slot in waiting:
                ready += waiting.pop(slot)
            slot += 1
        order += range(begin, slot)
        reached[lane] = slot
    return np.array(order) if len(order) == len(source_of) - len(reached) else None


def levels_of(num_slots: int, run: list[int], awaited: list[int]) -> Index:
    """Length of the longest chain of slots ending in each slot, 0 for empty ones; shape ``[slots]``."""
    level = [0] * num_slots
    for slot, source in zip(run, awaited, strict=True):
        before, elsewhere = level[slot - 1], level[source]
        level[slot] = (before if before > elsewhere else elsewhere) + 1
    return np.array(level)
