"""The numbers of devices that a machine can be planned for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from costmodel.catalog.clusters import default_node_size, equal_share, load_cluster
from costmodel.catalog.devices import load_device


@dataclass(frozen=True)
class Sizes:
    """The numbers of devices that plans can be asked for: up to ``most`` (None: no limit) by ``unit``, and where
    ``divisible`` any number below it."""

    unit: int
    most: int | None = None
    divisible: bool = True

    def up_to(self, last: int) -> list[int]:
        """All of them from 1 to ``last``, rising."""
        return [*(range(1, min(self.unit, last + 1)) if self.divisible else ()), *range(self.unit, last + 1, self.unit)]

    def doublings(self, last: int, batch: int) -> list[int]:
        """Powers of two up to the unit, and beyond it the unit times powers of two, and these times the odd divisors
        below 8 that ``batch`` has, which then divides evenly over so many; and ``last``. Rising."""
        inside = {1 << power for power in range((self.unit - 1).bit_length())} if self.divisible else set()
        odd = [part for part in (1, 3, 5, 7) if batch % part == 0]
        beyond = {part * self.unit << power for part in odd for power in range(last.bit_length())}
        return [*sorted(devices for devices in inside | beyond if devices < last), last]


def sizes_of(gpu: str | None = None, cluster: str | Path | None = None, gpus_per_node: int | None = None) -> Sizes:
    """The sizes of the machine that ``build_request`` would take: whole nodes and parts of one; of a cluster file with
    several groups of nodes the same part of each.

    Raises as ``build_request`` does.
    """
    if cluster is None:
        return Sizes(gpus_per_node or default_node_size(load_device(gpu or "h100")))
    machine = load_cluster(cluster)
    if len(machine.groups) > 1:
        return Sizes(equal_share(machine), machine.num_devices, divisible=False)
    return Sizes(machine.groups[0].devices_per_node, machine.num_devices)
