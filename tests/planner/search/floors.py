"""The floors of whole layouts, put together as the search does for a block of them (test_scan compares the two)."""

from __future__ import annotations

from costmodel.layouts import Column
from costmodel.price import PricedLayers
from planner.search.bounds import (
    estimate_kept_floor_bytes,
    estimate_passes_floor_s,
    extras_floor_s,
    mean_state_bytes,
)


def memory_floor_bytes(layers: PricedLayers, kinds: list[int], num_kinds: int, policies: tuple[int, ...]) -> Column:
    """[n] bytes that the worst rank claims at least, under any placement."""
    about = (layers, kinds, num_kinds, policies)
    return mean_state_bytes(*about) + estimate_kept_floor_bytes(*about)


def time_floor_s(layers: PricedLayers, kinds: list[int], num_kinds: int, policies: tuple[int, ...]) -> Column:
    """[n] seconds that no placement of the layout beats, memory left out."""
    about = (layers, kinds, num_kinds, policies)
    after_s = extras_floor_s(*about) * layers.contention
    return (estimate_passes_floor_s(*about) + after_s) * (1.0 + layers.jitter)
