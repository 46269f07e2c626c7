"""Collectives: what crosses which level of the network, and how long it takes.

May import ``costmodel.schema`` and ``costmodel.layouts``.
"""

from costmodel.collectives.estimate import estimate_collective_s, estimate_placed_s
from costmodel.collectives.network import Network, Placement
from costmodel.collectives.volumes import Collective, estimate_level_bytes, estimate_placed_bytes, estimate_sent_bytes

__all__ = [
    "Collective",
    "Network",
    "Placement",
    "estimate_collective_s",
    "estimate_level_bytes",
    "estimate_placed_bytes",
    "estimate_placed_s",
    "estimate_sent_bytes",
]
