"""DeviceSpec and ClusterSpec: what computes, what connects it, and where every figure comes from.

SI units inside; bandwidth is one-way per device.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from costmodel.schema.base import Spec

Share = Annotated[float, Field(gt=0, le=1)]
"""A fraction of something that is never nothing."""


class Source(Spec):
    """Where a figure was read, and when (ISO date)."""

    source: str
    date: str


class DeviceSpec(Spec):
    """One accelerator. What its file leaves out is its generation's (``costmodel/catalog/data/generations``).

    ``peak_flops_per_s``: the datasheet's dense matmul peak by precision (bf16, fp16, fp8, fp4, tf32, fp32).
    ``boost_fraction``: the share of that peak which the main loop of a large GEMM reaches at full clock.
    ``sustained_fraction``: the share which any run of products keeps once the board draws its power limit.
    ``narrow_fraction``: what 8- and 4-bit products keep of either (scaling factors are applied between steps of K).
    ``step_fraction``: what a product or fused attention inside a training step keeps of its rate in a loop of its own.
    ``tile_step``: between the sides of the output tiles that its libraries choose among; None: powers of two.
    ``tile_overhead_s``: of an output tile beside its main loop: first loads, pipeline fill and drain.
    ``epilogue_fraction``: the share of an output's write that no main loop hides.
    ``kernel_ramp_s``: of a kernel from its start to full rate, and from its first idle SM to its end.
    ``attention_fraction``: the share of the peak of a fused attention kernel's main loop, head size 128, forward.
    ``attention_backward_fraction``: its backward's rate over its forward's.
    ``flash_fractions``: the rate of an older generation of that kernel over the newest's; 1 where not named.
    ``flash_block_q``: queries that one SM owns at a time, forward.
    ``wide_head_fraction``: rate at head sizes of 192 and more over 128's, forward; its square backward.
    ``exp_per_s_per_sm``: exponentials that the special-function units of one SM finish.
    ``memory_fraction``: the share of ``memory_bytes_per_s`` which a large streaming kernel reaches.
    ``sources``: one entry per figure, by field name; a map's entry covers all of it but what has its own
    (``peak_flops_per_s.fp4``).
    """

    name: str
    aliases: tuple[str, ...] = ()
    vendor: Literal["nvidia", "amd", "cpu"]
    generation: str
    peak_flops_per_s: dict[str, PositiveFloat]
    vector_flops_per_s: PositiveFloat
    memory_bytes: PositiveFloat
    memory_bytes_per_s: PositiveFloat
    l2_bytes: NonNegativeFloat = 0.0
    num_sms: PositiveInt
    boost_fraction: Share | None = None
    sustained_fraction: Share = 0.8
    narrow_fraction: Share = 0.94
    step_fraction: Share = 1.0
    tile_step: PositiveInt | None = None
    tile_overhead_s: NonNegativeFloat = 0.0
    epilogue_fraction: Annotated[float, Field(ge=0, le=1)] = 0.0
    kernel_ramp_s: NonNegativeFloat = 0.0
    attention_fraction: Share = 0.6
    attention_backward_fraction: Share = 0.8
    flash_fractions: dict[int, Share] = {}
    flash_block_q: PositiveInt = 128
    wide_head_fraction: Share = 0.85
    exp_per_s_per_sm: PositiveFloat = 2.5e10
    memory_fraction: Share = 0.85
    kernel_launch_s: NonNegativeFloat = 4e-6
    context_bytes: NonNegativeFloat = 0.0
    default_cluster: str
    price_per_hour: PositiveFloat | None = None
    sources: dict[str, Source] = {}


class NetworkLevel(Spec):
    """One level of the network tree, innermost first.

    ``size``: how many units of the level below it joins (devices for the innermost).
    ``bytes_per_s``: one-way, per device, when every device sends at once and nothing is oversubscribed.
    ``efficiency``: the share of ``bytes_per_s`` that large collectives reach.
    ``latency_s``: of one step of a collective, under the library's protocol for large messages.
    ``setup_s``: of any collective, once: its members meet, its pipeline fills and drains.
    ``p2p_latency_s``: of one message outside a collective; None: ``setup_s + latency_s``.
    ``low_latency_protocols``: the library has protocols that flag every word of small messages (NCCL, RCCL).
    ``oversubscription``: how many times less than that the level carries when all its members talk across it.
    ``in_network_reduction``: its switches add; ``reduction_efficiency``: the share of ``bytes_per_s`` that they reach.
    ``mesh_links``: of a mesh, how many of a device's links a ring through 2, 3, … units can use; ``bytes_per_s`` is of
    the last. Empty: a direct link between every pair of the ``size`` units.
    """

    name: str
    size: PositiveInt
    bytes_per_s: PositiveFloat
    latency_s: NonNegativeFloat
    p2p_latency_s: NonNegativeFloat | None = None
    oversubscription: Annotated[float, Field(ge=1)] = 1.0
    efficiency: Annotated[float, Field(gt=0, le=1)] = 0.8
    setup_s: NonNegativeFloat = 25e-6
    low_latency_protocols: bool = True
    in_network_reduction: bool = False
    reduction_efficiency: Annotated[float, Field(gt=0, le=1)] = 0.65
    topology: Literal["switched", "mesh", "ring", "shared"] = "switched"
    mesh_links: tuple[PositiveFloat, ...] = ()

    @model_validator(mode="after")
    def _has_all_links_at_the_end(self) -> NetworkLevel:
        if self.mesh_links and self.topology != "mesh":
            raise ValueError(f"mesh_links is given, but topology is {self.topology!r} and not 'mesh'")
        if self.mesh_links and max(self.mesh_links) > self.mesh_links[-1]:
            raise ValueError("mesh_links must end with its largest number, the links that bytes_per_s counts")
        return self


class HostSpec(Spec):
    """The host beside a node's devices. Bandwidth of the PCIe (or C2C) link is one-way per device, as it is clocked.

    ``link_efficiency``: the share of it that large copies reach. A PCI Express packet of 256 bytes carries 24 more of
    framing, sequence number, header and check, and acknowledgements and flow control take some two percent of the rest.
    Source: PCI Express Base Specification 4.0, sections 2.2 and 3.5.
    """

    memory_bytes: PositiveFloat
    memory_bytes_per_s: PositiveFloat
    device_link_bytes_per_s: PositiveFloat
    link_efficiency: Share = 0.9
    nvme_bytes: NonNegativeFloat = 0.0
    nvme_bytes_per_s: NonNegativeFloat = 0.0
    cores: PositiveInt = 1

    @property
    def copy_bytes_per_s(self) -> float:
        """Of a large copy between one device and the host, one way, while nothing else copies."""
        return self.device_link_bytes_per_s * self.link_efficiency


class NodeGroup(Spec):
    """``num_nodes`` equal nodes: a device name, the levels inside the node, the host."""

    device: str
    num_nodes: PositiveInt
    levels: tuple[NetworkLevel, ...]
    host: HostSpec

    @property
    def devices_per_node(self) -> int:
        size = 1
        for level in self.levels:
            size *= level.size
        return size

    @property
    def num_devices(self) -> int:
        return self.num_nodes * self.devices_per_node


class ClusterSpec(Spec):
    """Node groups under a shared tree of network levels (innermost first; the last may be unbounded).

    ``shared_cores``: set when all devices share that many processor cores (the ``cpu`` cluster on one host).
    ``sources``: by ``<level>.<field>`` and ``host.<field>``.
    """

    name: str
    groups: tuple[NodeGroup, ...]
    network: tuple[NetworkLevel, ...] = ()
    shared_cores: PositiveInt | None = None
    sources: dict[str, Source] = {}

    @model_validator(mode="after")
    def _has_groups(self) -> ClusterSpec:
        if not self.groups:
            raise ValueError("groups must name at least one group of nodes")
        return self

    @property
    def num_devices(self) -> int:
        return sum(group.num_devices for group in self.groups)

    @property
    def levels(self) -> tuple[NetworkLevel, ...]:
        """The levels as the first group sees them, innermost first."""
        return self.groups[0].levels + self.network

    @property
    def unlike_groups(self) -> tuple[NodeGroup, ...]:
        """The groups, those that differ in nothing but their number of nodes taken together, in the file's order."""
        merged: list[NodeGroup] = []
        for group in self.groups:
            for index, other in enumerate(merged):
                if (other.device, other.levels, other.host) == (group.device, group.levels, group.host):
                    merged[index] = other.model_copy(update={"num_nodes": other.num_nodes + group.num_nodes})
                    break
            else:
                merged.append(group)
        return tuple(merged)

    def network_of(self, nodes: int) -> tuple[NetworkLevel, ...]:
        """As much of the network as so many nodes need."""
        network = []
        for level in self.network:
            if nodes > 1:
                size = min(level.size, nodes)
                network.append(level.model_copy(update={"size": size}))
                nodes = -(-nodes // size)
        return tuple(network)

    def alone(self, group: NodeGroup) -> ClusterSpec:
        """One of the ``unlike_groups`` by itself, under as much of the network as its nodes need."""
        name = f"{group.device} of {self.name}"
        return self.model_copy(update={"name": name, "groups": (group,), "network": self.network_of(group.num_nodes)})
