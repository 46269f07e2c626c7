"""The floors of whole layouts, put together as the search does for a block of them (test_scan compares the two)."""

from __future__ import annotations

from costmodel.layer_table import PricedLayers
from costmodel.layouts import Column
from planner.search.bounds import ROUNDING, extras_floor_s, mean_state_bytes
from planner.search.passes import AMPLE_BYTES, passes_floor


def memory_floor_bytes(layers: PricedLayers, kinds: list[int], num_kinds: int, policies: tuple[int, ...]) -> Column:
    """[n] bytes that the worst rank claims at least, under any placement."""
    about = (layers, kinds, num_kinds, policies)
    return mean_state_bytes(*about) + passes_floor(*about).least_room_bytes


def time_floor_s(
    layers: PricedLayers, kinds: list[int], num_kinds: int, policies: tuple[int, ...],
    budget_bytes: Column | float = AMPLE_BYTES,
) -> Column:  # fmt: skip
    """[n] seconds that no placement of the layout beats within ``budget_bytes`` a rank."""
    about = (layers, kinds, num_kinds, policies)
    room_bytes = budget_bytes * ROUNDING - mean_state_bytes(*about)
    after_s = extras_floor_s(*about) * layers.contention
    return (passes_floor(*about).floor_s(room_bytes) + after_s) * (1.0 + layers.jitter)
