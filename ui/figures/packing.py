"""Devices laid out as the cluster nests them: nodes of devices, leaves of nodes, and so on, each in a box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, log

import numpy as np

from costmodel.schema.cluster import NetworkLevel, NodeGroup

GAPS = (0.0, 0.5, 1.0, 1.6, 2.2, 2.8)
"""Around a unit of each level, in devices."""


@dataclass(frozen=True)
class Packed:
    """``devices``: (left, bottom) of each square of side 1, in order. ``boxes``: (level's name, left, bottom, width,
    height) of every unit."""

    width: float
    height: float
    devices: tuple[tuple[float, float], ...] = ((0.0, 0.0),)
    boxes: tuple[tuple[str, float, float, float, float], ...] = ()

    def moved(self, right: float, up: float) -> Packed:
        """The same elsewhere."""
        return Packed(
            self.width, self.height, tuple((x + right, y + up) for x, y in self.devices),
            tuple((name, x + right, y + up, width, height) for name, x, y, width, height in self.boxes),
        )  # fmt: skip


def pack_cluster(nodes: Sequence[NodeGroup], network: Sequence[NetworkLevel]) -> Packed:
    """All devices of ``nodes``, node after node, inside the boxes of every level that joins more than one unit."""
    units: list[Packed] = []
    for group in nodes:
        inside = [Packed(1.0, 1.0)] * group.devices_per_node
        for depth, level in enumerate(group.levels, start=1):
            inside = _joined(inside, level, depth, aspect=2.0)
        units += inside
    depth = 1 + max(len(group.levels) for group in nodes)
    for above, level in enumerate(network):
        units = _joined(units, level, depth + above, aspect=3.2)
    return units[0] if len(units) == 1 else _row(units, "", GAPS[-1], 3.2)


def _joined(units: list[Packed], level: NetworkLevel, depth: int, aspect: float) -> list[Packed]:
    size, gap = level.size, GAPS[min(depth, len(GAPS) - 1)]
    return [_row(units[at : at + size], level.name, gap, aspect) for at in range(0, len(units), size)]


def _row(units: list[Packed], name: str, gap: float, aspect: float) -> Packed:
    """The units side by side in as many columns as bring width over height nearest to ``aspect``, top row first."""
    wide, high = (max(getattr(unit, side) for unit in units) for side in ("width", "height"))
    best, columns = inf, 1
    for count in range(1, len(units) + 1):
        rows = -(-len(units) // count)
        # An unfinished last row is worse than a shape that is somewhat off.
        amiss = abs(log(count * wide / (rows * high) / aspect)) + (len(units) % count > 0)
        if amiss < best:
            best, columns = amiss, count
    rows = -(-len(units) // columns)
    pad = gap / 2
    moved = [
        unit.moved(pad + (at % columns) * wide, pad + (rows - 1 - at // columns) * high)
        for at, unit in enumerate(units)
    ]
    width, height = columns * wide + gap, rows * high + gap
    own = ((name, pad / 2, pad / 2, width - pad, height - pad),) if name and len(units) > 1 else ()
    return Packed(
        width, height, tuple(np.concatenate([unit.devices for unit in moved]).tolist()),
        own + tuple(box for unit in moved for box in unit.boxes),
    )  # fmt: skip
