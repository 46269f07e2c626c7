"""What a layer lowers to: matrix products, attention, memory-bound passes, transfers - and the tensors it keeps.

Shapes are columns over the distinct degree combinations, [u].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np

from costmodel.collectives import Collective
from costmodel.layouts import POLICIES, Column
from costmodel.schema.cluster import DeviceSpec, HostSpec
from costmodel.schema.model import ModelSpec
from costmodel.schema.runtime import Module, OverlapRules, Runtime
from costmodel.schema.workload import DTYPE_BYTES, Precision, Workload

Modules = tuple[Module, ...]
"""The modules that an op, a transfer or a saved tensor is part of, inner ones first."""

QUERY_KEY_VALUE = "query, key, value"
"""Name of what attention saves of its inputs."""


@dataclass(frozen=True)
class Setting:
    """Everything that is the same for all layouts of one request. ``num_policies``: of POLICIES, the first so many are
    priced.
    """

    model: ModelSpec
    device: DeviceSpec
    workload: Workload
    runtime: Runtime
    host: HostSpec
    devices_per_node: int
    shared_cores: int | None = None
    num_policies: int = len(POLICIES)

    @cached_property
    def overlap(self) -> OverlapRules:
        """What the runtime hides - nothing on a processor, where a transfer runs on the cores that compute."""
        rules = self.runtime.overlap
        if self.device.vendor != "cpu":
            return rules
        nothing = dict.fromkeys(OverlapRules.model_fields, 0.0) | {"compute_slowdown": 1.0}
        return rules.model_copy(update=nothing)

    @property
    def host_link_bytes_per_s(self) -> float:
        """Between one device and its host, one way, while all devices of the node copy: its link, or its share of the
        host's memory bandwidth.
        """
        return min(self.host.copy_bytes_per_s, self.host.memory_bytes_per_s / self.devices_per_node)

    @property
    def nvme_bytes_per_s(self) -> float:
        """The same to and from the node's drives; 0 where it has none."""
        return min(self.host_link_bytes_per_s, self.host.nvme_bytes_per_s / self.devices_per_node)

    @property
    def activation_bytes(self) -> float:
        """Bytes per element of an activation between layers: 8-bit matmuls still pass 16-bit activations on."""
        return 4.0 if self.workload.precision in ("fp32", "tf32") else 2.0

    @property
    def gathered_bytes(self) -> float:
        """Bytes per element of what sequence parallelism gathers for the workload's products."""
        if not self.runtime.kernels.gathers_narrow:
            return self.activation_bytes
        return min(self.activation_bytes, DTYPE_BYTES[self.workload.precision])

    @property
    def wide_precision(self) -> Precision:
        """Of matrix products that stay at 16 bits whatever the workload's precision."""
        narrow = DTYPE_BYTES[self.workload.precision] < 2.0
        return "bf16" if narrow else self.workload.precision


@dataclass(frozen=True)
class Split:
    """The degrees that a layer's cost depends on, as float columns [u]. ``vocab_over``: the pipeline ranks that share
    the vocabulary, 1 where each end is whole.
    """

    tp: Column
    cp_ring: Column
    cp_ulysses: Column
    ep: Column
    etp: Column
    micro_batch_size: Column
    sequence_parallel: Column
    vocab_over: Column
    seq_len: float

    @property
    def cp(self) -> Column:
        return self.cp_ring * self.cp_ulysses

    @property
    def tokens(self) -> Column:
        """Tokens of one micro-batch that one tensor-parallel group holds: micro-batch · seq / cp."""
        return self.micro_batch_size * self.seq_len / self.cp

    @property
    def sequence_shards(self) -> Column:
        """Over how many ranks the norm and residual region is split: tp under sequence parallelism, else 1."""
        return np.where(self.sequence_parallel > 0, self.tp, 1.0)

    @property
    def resident_tokens(self) -> Column:
        """Tokens of the norm and residual region on one rank."""
        return self.tokens / self.sequence_shards


@dataclass(frozen=True)
class Gemm:
    """``batch`` products (m x k) · (k x n). ``trains``: its weight needs a gradient (not for attention scores).

    ``grouped``: the products are experts', of unlike sizes.
    ``wide``: runs in 16 bits whatever the workload's precision (head, router).
    ``ends_layer``: nothing that the backward needs depends on its output.
    ``gathers_input``, ``scatters_output``: it reads what a tensor-parallel region gathered, or writes what the region
    scatters, so that the gradient at its output was gathered.
    """

    name: str
    m: Column
    n: Column
    k: Column
    batch: Column | float = 1.0
    trains: bool = True
    wide: bool = False
    grouped: bool = False
    modules: Modules = ()
    ends_layer: bool = False
    gathers_input: bool = False
    scatters_output: bool = False


@dataclass(frozen=True)
class Attention:
    """Softmax attention over local heads; how it is computed is the runtime's. ``seq_kv`` is the whole context."""

    name: str
    batch: Column
    heads: Column
    seq_q: Column
    seq_kv: Column
    head_dim: int
    v_head_dim: int
    causal: bool
    window: int | None
    modules: Modules = ()


@dataclass(frozen=True)
class Elementwise:
    """A memory-bound pass: bytes that a fused kernel would move, forward and backward.

    ``as_run``: bytes as the runtime moves them, so that its ``elementwise_bytes_factor`` does not apply.
    ``rms_norm``: an RMS norm, to which the runtime's ``norm_bytes_factor`` applies.
    """

    name: str
    forward_bytes: Column
    backward_bytes: Column
    modules: Modules = ()
    as_run: bool = False
    rms_norm: bool = False


@dataclass(frozen=True)
class Transfer:
    """A collective on one axis; ``num_bytes`` as ``estimate_collective_s`` defines it.

    ``forward``, ``backward``: the collectives of each pass.
    ``beside_gradients``: the backward's may run beside the gradients' products of the block that it enters.
    ``copies``: to how many members each item of an all-to-all goes, where they share one crossing between nodes;
    ``groups``: (all, chosen): those members all lie in so many of so many equal groups of members.
    ``both_ways``: a pass's collectives go in opposite directions: at once where every peer has a link of its own (a
    mesh), one after the other behind a device's one port.
    """

    axis: Literal["tp", "cp_ring", "cp_ulysses", "ep", "etp"]
    forward: tuple[tuple[Collective, Column], ...]
    backward: tuple[tuple[Collective, Column], ...]
    copies: float = 1.0
    groups: tuple[int, int] = (1, 1)
    beside_gradients: bool = False
    both_ways: bool = False
    modules: Modules = ()


@dataclass(frozen=True)
class Saved:
    """A tensor kept from forward to backward. ``matmul_output``: what the policy all-but-matmul keeps too.

    ``core_attention``: what the policy core-attention drops.
    ``narrow``: which of the runtime's ``narrow_saves`` it is under 8-bit products; None: kept as it is.
    """

    name: str
    num_bytes: Column
    matmul_output: bool = False
    core_attention: bool = False
    modules: Modules = ()
    narrow: Literal["product_inputs", "activation_inputs", "attention_output"] | None = None


Op = Gemm | Attention | Elementwise


@dataclass
class Lowered:
    """A layer as ops, transfers and saved tensors, in forward order.

    ``launches``: kernels of a forward pass beside those that every layer launches.
    ``waits_s``: time of one pass in which the device waits for the host.
    """

    ops: list[Op] = field(default_factory=list)
    transfers: list[Transfer] = field(default_factory=list)
    saved: list[Saved] = field(default_factory=list)
    working_bytes: list[Column] = field(default_factory=list)
    launches: Column | float = 0.0
    waits_s: float = 0.0

    def extend(self, other: Lowered) -> None:
        self.ops += other.ops
        self.transfers += other.transfers
        self.saved += other.saved
        self.working_bytes += other.working_bytes
        self.launches = self.launches + other.launches
        self.waits_s += other.waits_s

    def within(self, module: Module) -> Lowered:
        """The same as part of a module that can be recomputed by name."""
        return replace(
            self,
            ops=[replace(op, modules=(*op.modules, module)) for op in self.ops],
            transfers=[replace(one, modules=(*one.modules, module)) for one in self.transfers],
            saved=[replace(one, modules=(*one.modules, module)) for one in self.saved],
        )


Lowering = Callable[..., Lowered]
