"""Gathers of parameters and reductions of gradients over data-parallel ranks: one whole pass over a rank's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property, reduce
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from costmodel.collectives import Collective, Network, Placement, estimate_placed_s, estimate_sent_bytes
from costmodel.layouts import Column, Layouts
from costmodel.ops import Setting
from costmodel.owners import estimate_broadcasts_s
from costmodel.parameters import trainable_share
from costmodel.schema.workload import DTYPE_BYTES
from costmodel.shards import ShardGroups, reduces_far_once, shard_groups
from costmodel.state import LocalParams


class Passes(NamedTuple):
    """One column for each kind of pass over a rank's parameters: seconds, or bytes, or how many a step has.

    ``gather``: before a forward, or, where parameters stay whole, of the updated ones. ``regather``: before a backward.
    ``update_gather``: of updated parameters whose shards are larger than the optimizer's. ``reduce``: of gradients;
    ``far_reduce``: of their shards beyond the ranks among which they were scattered, where that comes once a step.
    """

    gather: Column
    regather: Column
    update_gather: Column
    reduce: Column
    far_reduce: Column


@dataclass(frozen=True)
class _Step:
    """One collective of a pass: on which ranks, and of how many bytes before it is split among them, [n, S]."""

    kind: Collective
    place: Placement
    num_bytes: Column


@dataclass(frozen=True)
class _Group:
    """Parameters of one kind, dense or expert, the ranks that share them, ``step`` [n, 1] apart, and their passes."""

    elements: Column
    param_bytes: Column
    ranks: ShardGroups
    step: Column
    passes: tuple[tuple[_Step, ...], ...]


@dataclass(frozen=True)
class GroupTraffic:
    """``layers``: [n, S] layers on a rank, which say how many collectives it takes where nothing is put in buckets.

    ``alike``: [n] equal where rows have the same parameters, layers and groups, so that they are priced once; None:
    each row is priced.
    """

    setting: Setting
    network: Network
    layouts: Layouts
    params: LocalParams
    layers: Column
    alike: NDArray[np.int64] | None = None

    def estimate_s(self) -> Passes:
        """[n, S] seconds of each pass: in as many collectives as there are buckets, each with its latency."""
        if self.alike is not None:
            _, rows, back = np.unique(self.alike, return_index=True, return_inverse=True)
            params = LocalParams(*(getattr(self.params, one.name)[rows] for one in fields(LocalParams)))
            some = GroupTraffic(self.setting, self.network, self.layouts.take(rows), params, self.layers[rows])
            return Passes(*(column[back] for column in some.estimate_s()))
        rules, launch_s = self.setting.runtime.state, self.setting.device.kernel_launch_s
        found = []
        for group in self._groups:
            by_bucket = self.layers if rules.bucket_params is None else group.elements / rules.bucket_params
            buckets = np.maximum(by_bucket, 1.0)

            def seconds(one: _Step, buckets: Column = buckets) -> Column:
                return buckets * estimate_placed_s(one.place, one.kind, one.num_bytes / buckets, launch_s)

            passes = _each_pass(group, seconds, np.zeros(self.params.dense.shape))
            if rules.broadcasts_owned:
                passes = passes._replace(gather=np.where(self._stage <= 1, self._broadcast_s(group), passes.gather))
            found.append(passes)
        return _summed(found)

    def estimate_level_bytes(self) -> Passes:
        """[n, S, L] bytes that one rank sends across each level in each pass."""

        def sent(one: _Step) -> Column:
            num_bytes = estimate_sent_bytes(one.kind, one.num_bytes, one.place.size)
            return np.asarray(num_bytes[..., None] * one.place.traffic_share)

        nothing = np.zeros((*self.params.dense.shape, len(self.network.names)))
        return _summed([_each_pass(group, sent, nothing) for group in self._groups])

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
            passes = (*self._gathers(ranks, step, param_bytes), *self._reductions(ranks, step, grad_bytes))
            yield _Group(elements, param_bytes, ranks, step, passes)

    def _gathers(self, ranks: ShardGroups, step: Column, param_bytes: Column) -> Iterator[tuple[_Step, ...]]:
        """Before forwards, before backwards, and of what was updated; the latter two only where they differ."""
        sharded = self._stage >= 3
        size = np.where(sharded, ranks.params, ranks.optimizer)
        gather = (_Step("all_gather", self._reached.place(size, step), param_bytes),)
        yield gather
        fewer = (ranks.between < ranks.params).any()
        yield (_Step("all_gather", self._reached.place(ranks.between, step), param_bytes),) if fewer else gather
        beyond = np.where(sharded, ranks.optimizer / ranks.params, 1.0)
        yield self._if_any("all_gather", beyond, step * ranks.params, param_bytes / ranks.params)

    def _reductions(self, ranks: ShardGroups, step: Column, grad_bytes: Column) -> Iterator[tuple[_Step, ...]]:
        """Scattered among near ranks, then among those beyond, and shares summed over whoever is left: at once, or in
        two passes."""
        beyond, left = ranks.reduced / ranks.scattered, ranks.ranks / ranks.reduced
        far = self._if_any("reduce_scatter", beyond, step * ranks.scattered, grad_bytes / ranks.scattered)
        place = self._reached.place
        near = self._if_any("reduce_scatter", ranks.scattered, step, grad_bytes)
        once = reduces_far_once(self.setting, self.layouts)[:, None]
        summed = grad_bytes / ranks.reduced
        if not once.any():
            yield (*near, *far, _Step("all_reduce", place(left, step * ranks.reduced), summed))
            yield ()
            return
        at_once, later = np.where(once, 1.0, left), np.where(once, left, 1.0)
        yield (*near, _Step("all_reduce", place(at_once, step * ranks.reduced), summed))
        yield (*far, _Step("all_reduce", place(later, step * ranks.reduced), summed))

    def _if_any(self, kind: Collective, size: Column, step: Column, num_bytes: Column) -> tuple[_Step, ...]:
        """The collective, unless every group has one rank."""
        return (_Step(kind, self._reached.place(size, step), num_bytes),) if (size > 1.0).any() else ()


def _each_pass(group: _Group, of_step: Callable[[_Step], Column], nothing: Column) -> Passes:
    """The sum over each pass's collectives; what is gathered again as it was before is not priced twice."""

    def total(steps: tuple[_Step, ...]) -> Column:
        return reduce(np.add, map(of_step, steps), nothing)

    gather, regather, *rest = group.passes
    first = total(gather)
    return Passes(first, first if regather is gather else total(regather), *map(total, rest))


def _summed(found: list[Passes]) -> Passes:
    return Passes(*(reduce(np.add, columns) for columns in zip(*found, strict=True)))
