"""Clusters: the usual machine around a device, sized to a number of devices, and clusters from users' files.

A template under ``data/clusters`` has the form of a user's file with one group, less what the size decides: the
device, the number of nodes, and the ``size`` of the last network level (of the last level in a node without limit).
"""

from __future__ import annotations

import math
import os
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from costmodel.catalog.cluster_file import check_cluster, read_cluster_file, refuse_units
from costmodel.catalog.fit import fitted_cluster, shipped_fit
from costmodel.catalog.names import data_files
from costmodel.schema.cluster import ClusterSpec, DeviceSpec, NetworkLevel, NodeGroup
from costmodel.schema.errors import InvalidSpec, UnknownName
from costmodel.schema.fit import Fit


@cache
def cluster_names() -> tuple[str, ...]:
    """The templates that devices name as their ``default_cluster``, sorted."""
    return tuple(sorted(data_files("clusters", ".toml")))


def default_cluster(
    device: DeviceSpec, num_devices: int, devices_per_node: int | None = None, fit: Fit | None = None
) -> ClusterSpec:
    """The cluster that ``device`` usually comes in, with ``num_devices`` of them.

    Its levels have the factors of ``fit`` on their figures, by default those of the shipped fit.

    Up to a node's worth is one partial node; more is whole nodes. ``devices_per_node`` replaces the template's: any
    number up to what its fastest links join. Network bandwidth per device stays as the template has it. The ``cpu``
    cluster is one host that shares this machine's cores among all devices.
    Raises InvalidSpec, with the sizes that work, for a count that does not fill its nodes; UnknownName when the device
    names a cluster that the catalog does not have.
    """
    template = _template(device.default_cluster)
    group, network = template["groups"][0], template.get("network", [])
    node_sizes = [level.get("size", math.inf) for level in group["levels"]]
    pods = [level["size"] for level in network[:-1]]
    node = math.prod(node_sizes)
    per_node = _node_size(device, template["name"], num_devices, devices_per_node, node, math.prod(pods))
    num_nodes = num_devices // per_node
    # A pod joins a fixed number of devices: of smaller nodes, more.
    node_limits = [max(1, int(pod * min(node, num_devices) / per_node)) for pod in pods]
    levels = _sized(group["levels"], per_node, node_sizes)
    data = {
        **template,
        "groups": [{**group, "device": device.name, "num_nodes": num_nodes, "levels": levels}],
        "network": _sized(network, num_nodes, [*node_limits, math.inf]) if num_nodes > 1 else [],
    }
    if device.vendor == "cpu" and num_nodes == 1:
        data["shared_cores"] = os.cpu_count() or 1
    cluster = ClusterSpec.load(data, f"cluster {template['name']}")
    return fitted_cluster(cluster, shipped_fit() if fit is None else fit)


def default_node_size(device: DeviceSpec) -> int:
    """Devices in a full node of the cluster that ``device`` usually comes in; 1 where a node has no limit.

    Raises UnknownName when the device names a cluster that the catalog does not have.
    """
    size = math.prod(level.get("size", math.inf) for level in _template(device.default_cluster)["groups"][0]["levels"])
    return 1 if size == math.inf else int(size)


def load_cluster(path: str | Path, num_devices: int | None = None) -> ClusterSpec:
    """The cluster that the TOML file at ``path`` describes, or ``num_devices`` of it.

    Of one group of nodes these are part of one node or whole nodes; of several groups the same part of each, in whole
    nodes.
    Raises InvalidSpec or UnknownName - one sentence - for a file that is missing, malformed, in vendors' units, names
    an unknown device or contradicts itself, and for a ``num_devices`` that it cannot provide.
    """
    cluster = read_cluster_file(Path(path))
    if num_devices is None or num_devices == cluster.num_devices:
        return cluster
    if num_devices > cluster.num_devices or num_devices < 1:
        raise InvalidSpec(
            f"num_devices = {num_devices}: {path} describes {cluster.num_devices} devices",
            f"ask for 1 to {cluster.num_devices}",
        )
    if len(cluster.groups) > 1:
        return _cut_alike(cluster, num_devices, str(path))
    return _cut(cluster, cluster.groups[0], num_devices, str(path))


def equal_share(cluster: ClusterSpec) -> int:
    """Devices in the smallest cluster of whole nodes that has the same part of each group as ``cluster``."""
    return cluster.num_devices // math.gcd(*(group.num_nodes for group in cluster.groups))


def _node_size(device: DeviceSpec, template: str, count: int, asked: int | None, node: float, pods: float) -> int:
    """Devices on each node; InvalidSpec when they cannot make up ``count``."""
    if count < 1:
        raise InvalidSpec(f"num_devices = {count}: a cluster has at least one device")
    if asked is not None and asked < 1:
        raise InvalidSpec(f"devices_per_node = {asked}: a node has at least one device")
    if asked is not None and asked > node * pods:
        raise InvalidSpec(
            f"devices_per_node = {asked}: the fastest links of {template} join at most {node * pods:.0f} {device.name}",
            "describe other nodes in a cluster file (docs/clusters.md)",
        )
    size = int(min(count, asked if asked is not None else node))
    if count % size:
        below, above = count // size * size, (count // size + 1) * size
        raise InvalidSpec(
            f"num_devices = {count} (--gpus) does not fill nodes of {size} {device.name}",
            f"{below} or {above} do, fewer than {size} fit on one node, and --gpus-per-node sets another size",
        )
    return size


def _sized(levels: list[dict[str, Any]], count: int, limits: list[float]) -> list[dict[str, Any]]:
    """The levels that join ``count`` units: each as many as it can evenly, the last the rest, none that joins one."""
    sized: list[dict[str, Any]] = []
    for position, (level, limit) in enumerate(zip(levels, limits, strict=True)):
        last = position == len(levels) - 1
        size = count if last else max(part for part in range(1, int(min(limit, count)) + 1) if count % part == 0)
        count //= size
        if size > 1 or (last and not sized):
            sized.append({**level, "size": size})
    return sized


def _cut(cluster: ClusterSpec, group: NodeGroup, num_devices: int, origin: str) -> ClusterSpec:
    """The first ``num_devices`` devices of a cluster of one group."""
    per_node = min(num_devices, group.devices_per_node)
    if num_devices % per_node:
        below = num_devices // per_node * per_node
        raise InvalidSpec(
            f"num_devices = {num_devices} does not fill the nodes of {per_node} in {origin}",
            f"{below} or {below + per_node} do",
        )
    num_nodes = num_devices // per_node

    def resized(levels: tuple[NetworkLevel, ...], count: int) -> list[dict[str, Any]]:
        return _sized([level.model_dump() for level in levels], count, [level.size for level in levels])

    data = cluster.model_dump() | {
        "groups": [group.model_dump() | {"num_nodes": num_nodes, "levels": resized(group.levels, per_node)}],
        "network": resized(cluster.network, num_nodes) if num_nodes > 1 else [],
    }
    return check_cluster(ClusterSpec.load(data, origin), origin)


def _cut_alike(cluster: ClusterSpec, num_devices: int, origin: str) -> ClusterSpec:
    """The same part of every group, under as much of the network as its nodes need."""
    share = equal_share(cluster)
    if num_devices % share:
        below, above = num_devices // share * share, (num_devices // share + 1) * share
        raise InvalidSpec(
            f"num_devices = {num_devices} is no equal part of the {len(cluster.groups)} groups of nodes in {origin}",
            f"{f'{below} or {above} are' if below else f'{above} are'}; other mixtures need a file of their own",
        )
    groups = tuple(
        group.model_copy(update={"num_nodes": group.num_nodes * num_devices // cluster.num_devices})
        for group in cluster.groups
    )
    nodes = sum(group.num_nodes for group in groups)
    return cluster.model_copy(update={"groups": groups, "network": cluster.network_of(nodes)})


@cache
def _template(name: str) -> dict[str, Any]:
    if name not in cluster_names():
        raise UnknownName("default_cluster", name, cluster_names())
    data = tomllib.loads(data_files("clusters", ".toml")[name].read_text(encoding="utf-8"))
    refuse_units(data, f"cluster {name}")
    return data
