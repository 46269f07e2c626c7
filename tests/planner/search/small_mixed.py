"""Small clusters of unlike groups of nodes."""

from __future__ import annotations

from typing import Any

from costmodel.catalog.clusters import default_cluster
from costmodel.catalog.devices import load_device
from costmodel.catalog.runtimes import load_runtime
from costmodel.schema.cluster import ClusterSpec, DeviceSpec, NetworkLevel, NodeGroup
from costmodel.schema.model import ModelSpec
from costmodel.schema.runtime import Runtime
from costmodel.schema.workload import Workload
from planner.request import Request

BETWEEN = NetworkLevel(name="between nodes", size=64, bytes_per_s=25e9, latency_s=14e-6, efficiency=0.9)


def group_of(device: str, num_nodes: int, per_node: int, **host: Any) -> NodeGroup:
    """Nodes as the catalog has them; ``host``: what is different about their hosts."""
    group = default_cluster(load_device(device), per_node).groups[0]
    levels = tuple(level.model_copy(update={"name": f"{device} {level.name}"}) for level in group.levels)
    changed = group.host.model_copy(update=host)
    return group.model_copy(update={"num_nodes": num_nodes, "levels": levels, "host": changed})


def join(*groups: NodeGroup, between: NetworkLevel = BETWEEN) -> ClusterSpec:
    return ClusterSpec(name="joined", groups=groups, network=(between,))


def build_mixed(
    model: ModelSpec,
    cluster: ClusterSpec,
    *,
    seq_len: int = 2048,
    global_batch_size: int = 16,
    runtime: str | Runtime = "torch",
    devices: tuple[DeviceSpec, ...] = (),
    **limits: Any,
) -> Request:
    """A request on a cluster of catalog devices, or of ``devices``, one for every unlike group."""
    specs = devices or tuple(load_device(group.device) for group in cluster.unlike_groups)
    return Request(
        model=model,
        device=specs[0],
        other_devices=specs[1:],
        cluster=cluster,
        workload=Workload(seq_len=seq_len, global_batch_size=global_batch_size),
        runtime=runtime if isinstance(runtime, Runtime) else load_runtime(runtime),
        **limits,
    )
