"""The cluster's network levels as arrays, and how the members of a group lie on them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from costmodel.columns import largest, smallest
from costmodel.layouts import BoolColumn, Column
from costmodel.schema.cluster import ClusterSpec, NetworkLevel


@dataclass(frozen=True)
class Network:
    """Levels innermost first, each array [L]. ``unit``: devices joined by each level.

    ``bytes_per_s``: what a device reaches, efficiency and oversubscription included; ``reduction_bytes_per_s``: the
    same where the switches add, 0 where they do not. ``mesh_share``: per level the share of its bandwidth that 1, 2,
    3, … units use among themselves; empty behind a switch.
    """

    names: tuple[str, ...]
    unit: NDArray[np.float64]
    bytes_per_s: NDArray[np.float64]
    reduction_bytes_per_s: NDArray[np.float64]
    latency_s: NDArray[np.float64]
    p2p_latency_s: NDArray[np.float64]
    setup_s: NDArray[np.float64]
    low_latency_protocols: NDArray[np.bool_]
    mesh_share: tuple[NDArray[np.float64], ...]

    @classmethod
    def from_levels(cls, levels: tuple[NetworkLevel, ...]) -> Network:
        carried = np.array([level.bytes_per_s / level.oversubscription for level in levels])
        adds = np.array([level.reduction_efficiency if level.in_network_reduction else 0.0 for level in levels])
        alone = [level.latency_s + level.setup_s for level in levels]
        stated = [level.p2p_latency_s for level in levels]
        return cls(
            names=tuple(level.name for level in levels),
            unit=np.cumprod(np.array([level.size for level in levels])).astype(np.float64),
            bytes_per_s=carried * np.array([level.efficiency for level in levels]),
            reduction_bytes_per_s=carried * adds,
            latency_s=np.array([level.latency_s for level in levels]),
            p2p_latency_s=np.array([a if s is None else s for a, s in zip(alone, stated, strict=True)]),
            setup_s=np.array([level.setup_s for level in levels]),
            low_latency_protocols=np.array([level.low_latency_protocols for level in levels]),
            mesh_share=tuple(_mesh_share(level) for level in levels),
        )

    @classmethod
    def from_cluster(cls, cluster: ClusterSpec) -> Network:
        """The levels as the first node group sees them."""
        return cls.from_levels(cluster.levels)

    def members(self, size: ArrayLike, stride: ArrayLike) -> Column:
        """[n, L]: how many of a group's ``size`` members, ``stride`` ranks apart, share one unit of each level.

        The last level is taken to hold them all, so that no group is larger than the network.
        """
        size, stride = np.asarray(size, np.float64)[..., None], np.asarray(stride, np.float64)[..., None]
        inside = np.clip(np.floor(self.unit / stride), 1.0, size)
        inside[..., -1:] = size
        return inside

    def place(self, size: ArrayLike, stride: ArrayLike) -> Placement:
        """Where groups of ``size`` ranks, ``stride`` apart, lie: both broadcast to [n]."""
        size, stride = np.broadcast_arrays(np.asarray(size, np.float64), np.asarray(stride, np.float64))
        inside = self.members(size, stride)
        below = np.concatenate([np.ones_like(inside[..., :1]), inside[..., :-1]], axis=-1)
        return Placement(self, size, inside, below)

    def traffic_share(self, size: ArrayLike, stride: ArrayLike) -> Column:
        """[n, L]: of the bytes a member sends round a ring, the share that crosses each level."""
        return self.place(size, stride).traffic_share


@dataclass(frozen=True)
class Placement:
    """A group on the network: ``size`` [n] members, of which ``inside`` [n, L] share one unit of each level and
    ``below`` [n, L] one unit of the level under it."""

    network: Network
    size: Column
    inside: Column
    below: Column

    @cached_property
    def crossed(self) -> BoolColumn:
        """[n, L] levels over which the members talk."""
        return self.inside > self.below

    @cached_property
    def units(self) -> Column:
        """[n, L] units of the level below that each level joins for this group."""
        return self.inside / self.below

    @cached_property
    def setup_s(self) -> Column:
        """[n] the largest of the crossed levels."""
        return largest(np.where(self.crossed, self.network.setup_s, 0.0))

    @cached_property
    def low_latency_protocols(self) -> BoolColumn:
        """[n] whether every crossed level has them."""
        return np.asarray(np.all(~self.crossed | self.network.low_latency_protocols, axis=-1))

    @cached_property
    def ring_edges(self) -> Column:
        """[n, L] edges of a ring through all members that cross each level; they sum to its ``size``.

        Of ``size`` edges, size / below leave a unit of the level below; those that stay in this one cross it.
        """
        size = self.size[..., None]
        leaving = np.where(size > self.below, size / self.below, 0.0)
        return np.asarray(leaving - np.where(size > self.inside, size / self.inside, 0.0))

    @cached_property
    def traffic_share(self) -> Column:
        """[n, L]: of the bytes a member sends round a ring, the share that crosses each level."""
        return np.asarray(self.ring_edges / np.maximum(self.size, 1.0)[..., None])

    @cached_property
    def ring_hops(self) -> Column:
        """[n, L] of the n-1 steps that carry a piece once round, those over each level."""
        size = self.size[..., None]
        return np.asarray(size / self.below - size / self.inside)

    @cached_property
    def ring_latency_s(self) -> Column:
        """[n] seconds in which a piece goes round, whatever its size."""
        return np.asarray(self.ring_hops @ self.network.latency_s)

    @cached_property
    def ring_bytes_per_s(self) -> Column:
        """[n] the least over the crossed levels of what the members below one move across it."""
        return smallest(np.where(self.crossed, self.ports_bytes_per_s, np.inf))

    @cached_property
    def device_bytes_per_s(self) -> Column:
        """[n, L] what one device moves across each level: on a mesh the share of its links that lead to members."""
        rates = np.broadcast_to(self.network.bytes_per_s, self.inside.shape)
        if not any(len(share) for share in self.network.mesh_share):
            return rates
        rates = rates.copy()
        for level, share in enumerate(self.network.mesh_share):
            if len(share):
                count = np.clip(np.ceil(self.units[..., level]).astype(np.intp), 1, len(share))
                rates[..., level] *= share[count - 1]
        return rates

    @cached_property
    def on_mesh(self) -> BoolColumn:
        """[n] whether peers on every crossed level have a link of their own."""
        meshes = np.array([len(share) > 0 for share in self.network.mesh_share])
        return np.asarray(np.all(~self.crossed | meshes, axis=-1))

    @cached_property
    def ports_bytes_per_s(self) -> Column:
        """[n, L] what the members in one unit below a level move across it together."""
        return self.device_bytes_per_s * self.below


def _mesh_share(level: NetworkLevel) -> NDArray[np.float64]:
    """Of one unit alone (never asked for, 1), two, three, …: used links over all links; empty behind a switch."""
    if level.topology != "mesh" or (level.size < 2 and not level.mesh_links):
        return np.empty(0)
    links = np.array(level.mesh_links or range(1, level.size), np.float64)
    return np.concatenate([[1.0], links / links[-1]])
