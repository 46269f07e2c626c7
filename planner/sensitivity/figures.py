"""The figures of a machine that can be changed, each by a factor on all the places that hold it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from costmodel.schema.cluster import ClusterSpec, DeviceSpec, NetworkLevel, NodeGroup
from costmodel.schema.errors import UnknownName

Machine = tuple[tuple[DeviceSpec, ...], ClusterSpec]
"""The device of every unlike group of nodes, and the cluster."""


@dataclass(frozen=True)
class Figure:
    """``scaled(machine, factor)``: the machine with the figure times the factor. ``better``: whether more is faster."""

    name: str
    says: str
    scaled: Callable[[Machine, float], Machine]
    better: bool = True


def _device(*fields: str) -> Callable[[Machine, float], Machine]:
    def scaled(machine: Machine, factor: float) -> Machine:
        devices, cluster = machine
        return tuple(
            one.model_copy(update={name: _times(getattr(one, name), factor) for name in fields}) for one in devices
        ), cluster

    return scaled


def _times(value: Any, factor: float) -> Any:
    return {key: one * factor for key, one in value.items()} if isinstance(value, dict) else value * factor


def _network(fields: tuple[str, ...], inside: bool = True, between: bool = True) -> Callable[[Machine, float], Machine]:
    """Of the levels inside nodes, and of those between them."""

    def changed(level: NetworkLevel, factor: float) -> NetworkLevel:
        update = {name: getattr(level, name) * factor for name in fields if getattr(level, name) is not None}
        return level.model_copy(update=update)

    def scaled(machine: Machine, factor: float) -> Machine:
        devices, cluster = machine
        groups, network = cluster.groups, cluster.network
        if inside:
            groups = tuple(
                group.model_copy(update={"levels": tuple(changed(level, factor) for level in group.levels)})
                for group in groups
            )
        if between:
            network = tuple(changed(level, factor) for level in network)
        return devices, cluster.model_copy(update={"groups": groups, "network": network})

    return scaled


def _host(*fields: str) -> Callable[[Machine, float], Machine]:
    def of_group(group: NodeGroup, factor: float) -> NodeGroup:
        host = group.host.model_copy(update={name: getattr(group.host, name) * factor for name in fields})
        return group.model_copy(update={"host": host})

    def scaled(machine: Machine, factor: float) -> Machine:
        devices, cluster = machine
        groups = tuple(of_group(group, factor) for group in cluster.groups)
        return devices, cluster.model_copy(update={"groups": groups})

    return scaled


FIGURES: Mapping[str, Figure] = MappingProxyType(
    {
        figure.name: figure
        for figure in (
            Figure("compute", "rate of matrix products, attention and vector units",
                   _device("peak_flops_per_s", "vector_flops_per_s", "exp_per_s_per_sm")),
            Figure("memory_bandwidth", "bandwidth of device memory", _device("memory_bytes_per_s")),
            Figure("memory", "size of device memory", _device("memory_bytes")),
            Figure("network", "bandwidth of every network level", _network(("bytes_per_s",))),
            Figure("network_in_node", "bandwidth inside nodes", _network(("bytes_per_s",), between=False)),
            Figure("network_between_nodes", "bandwidth between nodes", _network(("bytes_per_s",), inside=False)),
            Figure("latency", "latency and start of messages and collectives",
                   _network(("latency_s", "setup_s", "p2p_latency_s")), better=False),
            Figure("host_link", "bandwidth between a device and its host", _host("device_link_bytes_per_s")),
            Figure("launch", "time to launch a kernel", _device("kernel_launch_s"), better=False),
        )
    }
)  # fmt: skip


def figure_named(name: str) -> Figure:
    """Raises UnknownName."""
    canonical = name.strip().lower().replace("-", "_")
    if canonical not in FIGURES:
        raise UnknownName("figure", name, FIGURES)
    return FIGURES[canonical]
