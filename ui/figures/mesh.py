"""Where every rank stands on the mesh axes, and where its device lies in the cluster."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from costmodel.schema.cluster import NetworkLevel, NodeGroup
from costmodel.schema.layout import Layout
from costmodel.schema.plan import PlanCluster

Ranks = NDArray[np.int64]

AXES: dict[str, str] = {
    "tp": "tensor parallel: each matrix is split over these GPUs",
    "cp_ulysses": "context parallel by heads: each holds a part of every sequence, and swaps it for heads in attention",
    "cp_ring": "context parallel by ring: each holds a part of every sequence, keys and values go round",
    "pp": "pipeline parallel: each holds some of the layers",
    "dp_shard": "data parallel, sharded: each works on its own sequences, and state is split over them",
    "dp_replicate": "data parallel, replicated: each works on its own sequences with a copy of all state",
    "ep": "expert parallel: each holds some of the experts",
    "etp": "tensor parallel inside experts: each expert's matrices are split over these GPUs",
    "edp": "copies of the same experts, which work on different tokens",
}
"""Each mesh axis in words."""


def axes_of(layout: Layout) -> list[str]:
    """The axes of more than one rank, innermost first; those of the experts where these lie otherwise."""
    axes = [axis for axis in layout.order if getattr(layout, axis) > 1]
    if layout.ep * layout.etp > 1:
        axes += [axis for axis in layout.expert_order if axis != "pp" and getattr(layout, axis) > 1]
    return axes


def coordinates(layout: Layout) -> dict[str, Ranks]:
    """[world] of every axis, where each rank stands on it. ``order`` names the axes, the first varying fastest; the
    experts' axes number the ranks of one pipeline rank again.
    """
    ranks = np.arange(layout.world_size)
    places: dict[str, Ranks] = {}
    stride, inside, inside_stride = 1, np.zeros_like(ranks), 1
    for axis in layout.order:
        degree = getattr(layout, axis)
        places[axis] = ranks // stride % degree
        stride *= degree
        if axis != "pp":
            inside, inside_stride = inside + places[axis] * inside_stride, inside_stride * degree
    stride = 1
    for axis in layout.expert_order:
        if axis != "pp":
            places[axis] = inside // stride % getattr(layout, axis)
            stride *= getattr(layout, axis)
    return places


def group_of(layout: Layout, axis: str, rank: int = 0) -> Ranks:
    """The ranks that share a group of ``axis`` with ``rank``: they differ from it in nothing else."""
    places = coordinates(layout)
    mesh = layout.expert_order if axis in ("ep", "etp", "edp") else layout.order
    alike = np.ones(layout.world_size, np.bool_)
    for other in mesh:
        if other != axis:
            alike &= places[other] == places[other][rank]
    return np.flatnonzero(alike)


def nodes_of(cluster: PlanCluster, layout: Layout) -> list[NodeGroup]:
    """The group of every node, in the order in which ranks fill them: the first pipeline ranks' kind first."""
    groups = cluster.spec.unlike_groups if cluster.other_specs else cluster.spec.groups
    first = layout.first_group if cluster.other_specs else 0
    turned = groups[first:] + groups[:first]
    return [group for group in turned for _ in range(group.num_nodes)]


def levels_at(cluster: PlanCluster, layout: Layout, rank: int = 0) -> tuple[NetworkLevel, ...]:
    """The network above the device of ``rank``, innermost level first."""
    past = 0
    for group in nodes_of(cluster, layout):
        past += group.devices_per_node
        if rank < past:
            return group.levels + cluster.spec.network
    raise ValueError(f"rank {rank} is beyond the cluster's {past} devices")


def level_between(cluster: PlanCluster, layout: Layout, ranks: Ranks) -> NetworkLevel:
    """The innermost level that joins the devices of all ``ranks``; the outermost where none is said to be so large."""
    levels, unit = levels_at(cluster, layout, int(ranks[0])), 1
    for level in levels:
        unit *= level.size
        if len(set((ranks // unit).tolist())) == 1:
            return level
    return levels[-1]
