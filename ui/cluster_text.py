"""A cluster as the TOML that a user edits: the usual machine around some GPUs, written out."""

from __future__ import annotations

import json
from typing import Any

from costmodel.catalog.clusters import default_cluster
from costmodel.catalog.devices import load_device


def cluster_text(gpu: str, gpus: int) -> str:
    """The default cluster of ``gpus`` devices as a cluster file, less its sources: the figures are to be edited.

    Raises UnknownName and InvalidSpec as ``default_cluster`` does.
    """
    usual = default_cluster(load_device(gpu), gpus)
    cluster = usual.model_dump(exclude_none=True, exclude_defaults=True, exclude={"sources"}, mode="json")
    groups, network = cluster.pop("groups"), cluster.pop("network", [])
    lines = ["# SI units: bytes, bytes/s one way per device, seconds", *_entries(cluster)]
    for group in groups:
        levels, host = group.pop("levels", []), group.pop("host", {})
        lines += ["", "[[groups]]", *_entries(group)]
        for level in levels:
            lines += ["", "[[groups.levels]]  # inside the node, innermost first", *_entries(level)]
        lines += ["", "[groups.host]", *_entries(host)]
    for level in network:
        lines += ["", "[[network]]  # between nodes, innermost first", *_entries(level)]
    return "\n".join(lines) + "\n"


def _entries(table: dict[str, Any]) -> list[str]:
    return [f"{name} = {_value(value)}" for name, value in table.items()]


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)
