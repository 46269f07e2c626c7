"""Algorithms of all-reduce, all-gather and reduce-scatter: a ring, a tree, switches that add - over every level."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import numpy as np

from costmodel.collectives.network import Placement
from costmodel.columns import largest, smallest
from costmodel.layouts import BoolColumn, Column

PROTOCOLS = ((1.0, 1.0), (0.45, 0.92), (0.18, 0.35))
"""(a step's latency, bandwidth) of each of a library's protocols, relative to the one for large messages.

Simple synchronises once per chunk; LL128 spends 8 of 128 bytes on flags, LL 4 of 8 and more on polling. A step: 3.4,
1.9 and 0.6 us over NVLink, 5.7, 2.5 and 1.0 over PCIe, 14, 4.0 and 2.7 between nodes.
Source: NCCL's tuning model (NVIDIA/nccl, src/graph/tuning.cc), 2026-11.
"""

SWITCH_STEPS = 7.0
"""Latency of a reduction in the switch, in steps of a ring: 25 us to 3.4. Source: as PROTOCOLS."""

TREE_EFFICIENCY = 0.92
"""Bandwidth of a tree over that of a ring on the same links. Source: as PROTOCOLS."""


@dataclass(frozen=True)
class Algorithm:
    """One algorithm under the protocol for large messages, columns over groups: latency_s + bytes · s_per_byte."""

    latency_s: Column
    s_per_byte: Column

    def estimate_s(self, num_bytes: Column, low_latency_protocols: BoolColumn | None = None) -> Column:
        """Seconds under the fastest protocol; the least of several lines in the bytes, so it never falls with them.

        ``low_latency_protocols``: the groups that have more than the first; None: none has.
        """
        first, *others = (self.latency_s * step + num_bytes * (self.s_per_byte / rate) for step, rate in PROTOCOLS)
        if low_latency_protocols is None or not low_latency_protocols.any():
            return first
        return np.where(low_latency_protocols, reduce(np.minimum, others, first), first)


def ring(place: Placement, passes: float) -> Algorithm:
    """One flat ring through all members, ``passes`` times round (2 for all-reduce).

    wire = (n-1)/n · bytes / bus, bus the least over the crossed levels of bandwidth · members below the level: members
    that share a node share its ports, each its own. A piece takes n-1 steps round, each over the level that it crosses.
    Source: Thakur et al. 2005, section 4.
    """
    share = (place.size - 1.0) / np.maximum(place.size, 1.0)
    return Algorithm(passes * place.ring_latency_s, passes * share / place.ring_bytes_per_s)


def tree(place: Placement) -> Algorithm:
    """All-reduce up and down two trees of half the tensor each: a chain in the innermost level, binary above.

    A unit is a leaf of one tree and an inner node of the other: it sends bytes / 2 up and bytes / 2 to each child,
    2 · bytes in all, from the ports of the members in it; of two units each sends bytes. Latency: up and down.
    Source: Sanders et al. 2009 (two-tree algorithms); NCCL 2.4 release notes.
    """
    return _climb(place, place.crossed)


def switch_tree(place: Placement) -> Algorithm:
    """All-reduce in the switches as far outwards as they add, by trees beyond; as ``tree`` where none adds.

    Of K members of one switch domain each sends bytes into the sum, and 1/K of the sum to all (and receives as much):
    (1 + 1/K) · bytes over ``reduction_bytes_per_s``, per member below a level.
    Source: Klenk et al. 2020, section III (in-network reduction by reads and multicast writes); NVLS in NCCL 2.17.
    """
    network = place.network
    by_tree = np.logical_or.accumulate(place.crossed & (network.reduction_bytes_per_s == 0.0), axis=-1)
    beyond = _climb(place, place.crossed & by_tree)
    in_switch = place.crossed & ~by_tree
    domain = largest(np.where(in_switch, place.inside, 1.0))
    adding = smallest(np.where(in_switch, network.reduction_bytes_per_s * place.below, np.inf))
    steps_s = SWITCH_STEPS * largest(np.where(in_switch, network.latency_s, 0.0))
    return Algorithm(beyond.latency_s + steps_s, np.maximum(beyond.s_per_byte, (1.0 + 1.0 / domain) / adding))


def _climb(place: Placement, levels: BoolColumn) -> Algorithm:
    """Trees over the marked levels alone."""
    units = place.units
    sent = np.where(units > 2.0, 2.0, 1.0) / TREE_EFFICIENCY
    depth = np.ceil(np.log2(units))
    depth[..., 0] = units[..., 0] - 1.0
    wire = largest(np.where(levels, sent / place.ports_bytes_per_s, 0.0))
    return Algorithm(2.0 * (np.where(levels, depth, 0.0) @ place.network.latency_s), wire)
