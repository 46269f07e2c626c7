"""Gathers of parameters and reductions of gradients over data-parallel ranks: one whole pass over a rank's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import Literal, get_args

import numpy as np

from costmodel.collectives import Collective, Network, Placement, estimate_placed_bytes, estimate_placed_s
from costmodel.layouts import Column, Layouts
from costmodel.ops import Setting
from costmodel.owners import estimate_broadcasts_s
from costmodel.parameters import trainable_share
from costmodel.schema.workload import DTYPE_BYTES
from costmodel.shards import ShardGroups, reduces_far_once, shard_groups
from costmodel.state import LocalParams

PassKind = Literal["gather", "regather", "update_gather", "reduce", "far_reduce"]
"""Kinds of pass over a rank's parameters. ``gather``: before a forward, or, where parameters stay whole, of the updated
ones. ``regather``: before a backward. ``update_gather``: of updated parameters whose shards are larger than the
optimizer's. ``reduce``: of gradients; ``far_reduce``: of their shards beyond the ranks among which they were scattered,
where that comes once a step.
"""

PASS_KINDS: tuple[PassKind, ...] = get_args(PassKind)

Passes = dict[PassKind, Column]
"""One column for each kind of pass: seconds, or bytes, or how many a step has; none of a kind that no row has."""


@dataclass(frozen=True)
class _Step:
    """One collective of a pass: on which ranks, and of how many bytes before it is split among them, [n, S]."""

    kind: Collective
    place: Placement
    num_bytes: Column


@dataclass(frozen=True)
class _Group:
    """Parameters of one kind, dense or expert, the ranks that share them, ``step`` [n, 1] apart, and each pass's
    collectives."""

    elements: Column
    param_bytes: Column
    ranks: ShardGroups
    step: Column
    passes: dict[PassKind, tuple[_Step, ...]]


@dataclass(frozen=True)
class GroupTraffic:
    """``layers``: [n, S] layers on a rank, which say how many collectives it takes where nothing is put in buckets."""

    setting: Setting
    network: Network
    layouts: Layouts
    params: LocalParams
    layers: Column

    def estimate_s(self) -> Passes:
        """[n, S] seconds of each pass: in as many collectives as there are buckets, each with its latency."""
        rules, launch_s = self.setting.runtime.state, self.setting.device.kernel_launch_s
        found = []
        for group in self._groups:
            by_bucket = self.layers if rules.bucket_params is None else group.elements / rules.bucket_params
            buckets = np.maximum(by_bucket, 1.0)

            def seconds(one: _Step, buckets: Column = buckets) -> Column:
                return buckets * estimate_placed_s(one.place, one.kind, one.num_bytes / buckets, launch_s)

            passes = _each_pass(group, seconds)
            if rules.broadcasts_owned:
                passes["gather"] = np.where(self._stage <= 1, self._broadcast_s(group), passes["gather"])
            found.append(passes)
        return _summed(found)

    def estimate_level_bytes(self) -> Passes:
        """[n, S, L] bytes that one rank sends across each level in each pass."""

        def sent(one: _Step) -> Column:
            return estimate_placed_bytes(one.place, one.kind, one.num_bytes)

        return _summed([_each_pass(group, sent) for group in self._groups])

    def _broadcast_s(self, group: _Group) -> Column:
        """Updated parameters go out from the ranks that own whole tensors."""
        rules = self.setting.runtime.state
        return estimate_broadcasts_s(
            self._reached,
            group.param_bytes,
            rules.tensors_per_layer * self.layers,
            group.ranks.optimizer,
            group.step,
            rules.broadcast_chunk_bytes,
            self.setting.device.kernel_launch_s,
        )

    @property
    def _stage(self) -> Column:
        return np.asarray(self.layouts.zero_stage[:, None])

    @cached_property
    def _reached(self) -> Network:
        """The network as the runtime's gathers and reductions find it: ``network_share`` of its rate between nodes."""
        network = self.network
        outside = network.unit > self.setting.devices_per_node
        share = self.setting.runtime.state.network_share
        return replace(network, bytes_per_s=np.where(outside, network.bytes_per_s * share, network.bytes_per_s))

    @cached_property
    def _groups(self) -> tuple[_Group, ...]:
        return tuple(self._each_group())

    def _each_group(self) -> Iterator[_Group]:
        """Dense parameters, and experts' where there are any."""
        setting, layouts, params = self.setting, self.layouts, self.params
        workload, trains = setting.workload, trainable_share(setting.model)
        dense_stride = np.where(layouts.order == 1, layouts.tp * layouts.pp, layouts.tp).astype(np.float64)
        strides = (dense_stride, layouts.stride("edp").astype(np.float64))
        both = zip((params.dense, params.expert), shard_groups(setting, layouts), strides, strict=True)
        for elements, ranks, stride in both:
            if not elements.any():
                continue
            step = stride[:, None]
            param_bytes = np.where(self._stage >= 3, 1.0, trains) * elements * DTYPE_BYTES[workload.param_dtype]
            grad_bytes = trains * elements * DTYPE_BYTES[workload.grad_reduce_dtype]
            passes = self._gathers(ranks, step, param_bytes) | self._reductions(ranks, step, grad_bytes)
            yield _Group(elements, param_bytes, ranks, step, passes)

    def _gathers(self, ranks: ShardGroups, step: Column, param_bytes: Column) -> dict[PassKind, tuple[_Step, ...]]:
        """Before forwards, before backwards, and of what was updated; the latter two only where they differ."""
        sharded = self._stage >= 3
        size = np.where(sharded, ranks.params, ranks.optimizer)
        gather = again = (_Step("all_gather", self._reached.place(size, step), param_bytes),)
        if (ranks.between < ranks.params).any():
            again = (_Step("all_gather", self._reached.place(ranks.between, step), param_bytes),)
        beyond = np.where(sharded, ranks.optimizer / ranks.params, 1.0)
        updated = self._if_any("all_gather", beyond, step * ranks.params, param_bytes / ranks.params)
        return {"gather": gather, "regather": again if sharded.any() else (), "update_gather": updated}

    def _reductions(self, ranks: ShardGroups, step: Column, grad_bytes: Column) -> dict[PassKind, tuple[_Step, ...]]:
        """Scattered among near ranks, then among those beyond, and shares summed over whoever is left: at once, or in
        two passes."""
        beyond, left = ranks.reduced / ranks.scattered, ranks.ranks / ranks.reduced
        far = self._if_any("reduce_scatter", beyond, step * ranks.scattered, grad_bytes / ranks.scattered)
        near = self._if_any("reduce_scatter", ranks.scattered, step, grad_bytes)
        once = reduces_far_once(self.setting, self.layouts)[:, None]

        def summed(size: Column) -> tuple[_Step, ...]:
            return self._if_any("all_reduce", size, step * ranks.reduced, grad_bytes / ranks.reduced)

        if not once.any():
            return {"reduce": (*near, *far, *summed(left)), "far_reduce": ()}
        at_once, later = np.where(once, 1.0, left), np.where(once, left, 1.0)
        return {"reduce": (*near, *summed(at_once)), "far_reduce": (*far, *summed(later))}

    def _if_any(self, kind: Collective, size: Column, step: Column, num_bytes: Column) -> tuple[_Step, ...]:
        """The collective, unless every group has one rank."""
        return (_Step(kind, self._reached.place(size, step), num_bytes),) if (size > 1.0).any() else ()


def _each_pass(group: _Group, of_step: Callable[[_Step], Column]) -> Passes:
    """The sum over each pass's collectives; what is gathered again as it was before is not priced twice."""
    found: Passes = {}
    for kind, steps in group.passes.items():
        if kind == "regather" and steps is group.passes["gather"]:
            found[kind] = found["gather"]
        elif steps:
            found[kind] = reduce(np.add, map(of_step, steps))
    return found


def _summed(found: list[Passes]) -> Passes:
    """Over groups, in an order that does not depend on which rows are priced together."""
    columns = {kind: [passes[kind] for passes in found if kind in passes] for kind in PASS_KINDS}
    return {kind: reduce(np.add, several) for kind, several in columns.items() if several}
