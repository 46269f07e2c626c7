"""The machine of a request: its devices and cluster, the calibration that holds for them, the memory held free."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from costmodel.schema.calibration import Calibration
from costmodel.schema.cluster import ClusterSpec, DeviceSpec
from costmodel.schema.errors import InvalidSpec
from costmodel.schema.fit import Fit


def load_machine(
    gpus: int | None,
    gpu: str | None,
    path: str | Path | None,
    gpus_per_node: int | None,
    fit: Fit,
    assumptions: list[str],
) -> tuple[tuple[DeviceSpec, ...], ClusterSpec]:
    """The devices of the cluster's unlike groups, and the cluster: of the file at ``path``, or the usual one around
    ``gpu``. What was defaulted is appended to ``assumptions``.

    Raises UnknownName and InvalidSpec, naming option or file and value.
    """
    from costmodel.catalog.clusters import default_cluster, load_cluster
    from costmodel.catalog.devices import load_device

    if gpus is not None and gpus < 1:
        raise InvalidSpec(f"--gpus {gpus}: must be a whole number from 1")
    if gpus_per_node is not None and gpus_per_node < 1:
        raise InvalidSpec(f"--gpus-per-node {gpus_per_node}: must be a whole number from 1")
    if path is not None:
        if gpus_per_node is not None:
            raise InvalidSpec(f"--gpus-per-node {gpus_per_node}: the cluster file already says what a node holds")
        machine = load_cluster(path, num_devices=gpus)
        if len(machine.groups) > 1 and gpus is not None:
            nodes = " and ".join(f"{group.num_nodes} nodes of {group.device}" for group in machine.groups)
            assumptions.append(f"{gpus} devices are the same part of each group of nodes: {nodes} (--gpus).")
        devices = tuple(load_device(group.device, fit) for group in machine.unlike_groups)
        if gpu is not None and {load_device(gpu).name} != {device.name for device in devices}:
            said = " and ".join(dict.fromkeys(device.name for device in devices))
            raise InvalidSpec(f"--gpu {gpu}: the cluster file {path} says {said}", "leave --gpu out")
        _check_unlike(devices, machine, str(path))
        return devices, machine
    if gpus is None:
        raise InvalidSpec("--gpus is missing: how many GPUs to plan for", "like --gpus 64, or --cluster FILE.toml")
    device = load_device(gpu or "h100", fit)
    machine = default_cluster(device, gpus, gpus_per_node, fit)
    if gpu is None:
        assumptions.append(f"GPUs are {device.name}, the default (--gpu).")
    if gpus_per_node is None:
        inside = machine.groups[0].devices_per_node
        assumptions.append(
            f"The network is {machine.name}'s, {inside} {device.name} a node (--cluster, --gpus-per-node)."
        )
    return (device,), machine


def find_calibration(
    source: str | Path | None, devices: tuple[DeviceSpec, ...], fit: Fit, assumptions: list[str]
) -> Calibration | None:
    """The calibration in ``source``, or the one kept for the device; None where there is none. It holds one device's
    figures, and so serves a cluster of one kind of node. ``assumptions`` gets the sentence that says which.

    Raises InvalidSpec for a file that is of another device, damaged, or given for several kinds of node.
    """
    from costmodel.calibration.store import load_calibration

    device = devices[0]
    found = load_calibration(source, device.name) if len(devices) == 1 or source is not None else None
    if found is not None and len(devices) > 1:
        raise InvalidSpec(
            f"calibration file {source} is of {found.device}, and the cluster has several kinds of node",
            "use --calibration none",
        )
    if found is None:
        behind = " and ".join(f"{table.rows:,} rows of {table.name}" for table in fit.tables)
        fitted = f", fitted to {behind} ({fit.date})" if behind else ""
        names = " and ".join(dict.fromkeys(one.name for one in devices))
        priced = "is priced from its catalog entry" if len(devices) == 1 else "are priced from their catalog entries"
        measured = "no calibration was measured (plan calibrate)"
        if len(devices) > 1:
            measured = "calibrations are of one kind of node"
        assumptions.append(f"{names} {priced}{fitted}: {measured}.")
    else:
        assumptions.append(
            f"{device.name} is priced as calibrated on {found.date}{' at ' + found.host if found.host else ''}."
        )
    return found


def hold_free(devices: Sequence[DeviceSpec], free_bytes: float, assumptions: list[str]) -> list[DeviceSpec]:
    """The devices without what must stay free. Raises InvalidSpec when that is all that one of them has."""
    if not free_bytes:
        return list(devices)
    for device in devices:
        if free_bytes >= device.memory_bytes:
            raise InvalidSpec(
                f"--free-memory {free_bytes / 2**30:g} GiB: one {device.name} has {device.memory_bytes / 2**30:.1f} GiB"
            )
    assumptions.append(
        f"{free_bytes / 2**30:g} GiB of each device are held free (--free-memory); the rest counts as its memory."
    )
    return [device.model_copy(update={"memory_bytes": device.memory_bytes - free_bytes}) for device in devices]


def _check_unlike(devices: tuple[DeviceSpec, ...], machine: ClusterSpec, origin: str) -> None:
    """Nodes of several kinds each have devices of their own, and accelerators."""
    if len(devices) == 1:
        return
    if machine.shared_cores is not None:
        raise InvalidSpec(
            f"{origin}: shared_cores = {machine.shared_cores}, but nodes of several kinds share no cores",
            "leave shared_cores out",
        )
    for device in devices:
        if device.vendor == "cpu":
            raise InvalidSpec(
                f"{origin}: a group of {device.name} beside other nodes is not planned",
                "leave accelerators only, or one group of cpu",
            )
