"""Gathers of parameters and reductions of gradients over data-parallel ranks: one whole pass over a rank's own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from costmodel.collectives import Collective, Network, Placement, estimate_placed_s, estimate_sent_bytes
from costmodel.layouts import BoolColumn, Column, Layouts
from costmodel.ops import Setting
from costmodel.owners import estimate_broadcasts_s
from costmodel.parameters import trainable_share
from costmodel.schema.workload import DTYPE_BYTES
from costmodel.state import LocalParams, replica_groups, shard_groups


@dataclass(frozen=True)
class _Group:
    """Parameters of one kind, dense or expert, and the ranks that share them.

    ``param_bytes``, ``grad_bytes``: [n, S] gathered and reduced. ``size``, ``step``: [n, 1] ranks among which state is
    split. ``scatters``: [n, 1] whether gradients are scattered among those and their shares summed over the replicas at
    ``outer``, else all summed over all of them there.
    """

    elements: Column
    param_bytes: Column
    grad_bytes: Column
    size: Column
    step: Column
    place: Placement
    outer: Placement
    scatters: BoolColumn

    @property
    def share_bytes(self) -> Column:
        """[n, S] what is summed over the replicas."""
        return np.where(self.scatters, self.grad_bytes / self.size, self.grad_bytes)


@dataclass(frozen=True)
class GroupTraffic:
    """``layers``: [n, S] layers on a rank, which say how many collectives it takes where nothing is put in buckets."""

    setting: Setting
    network: Network
    layouts: Layouts
    params: LocalParams
    layers: Column

    def estimate_s(self) -> tuple[Column, Column]:
        """(gather, reduce) seconds, [n, S]: in as many collectives as there are buckets, each with its latency."""
        rules, launch_s = self.setting.runtime.state, self.setting.device.kernel_launch_s
        gather_s, reduce_s = np.zeros(self.params.dense.shape), np.zeros(self.params.dense.shape)
        for group in self._groups:
            by_bucket = self.layers if rules.bucket_params is None else group.elements / rules.bucket_params
            buckets = np.maximum(by_bucket, 1.0)

            def seconds(kind: Collective, place: Placement, num_bytes: Column, buckets: Column = buckets) -> Column:
                return buckets * estimate_placed_s(place, kind, num_bytes / buckets, launch_s)

            gathered_s = seconds("all_gather", group.place, group.param_bytes)
            if rules.broadcasts_owned:
                owned_s = estimate_broadcasts_s(
                    self._reached,
                    group.param_bytes,
                    rules.tensors_per_layer * self.layers,
                    group.size,
                    group.step,
                    rules.broadcast_chunk_bytes,
                    launch_s,
                )
                gathered_s = np.where(self._stage <= 1, owned_s, gathered_s)
            gather_s += np.where(self._stage >= 1, gathered_s, 0.0)
            scattered_s = seconds("reduce_scatter", group.place, group.grad_bytes)
            summed_s = seconds("all_reduce", group.outer, group.share_bytes)
            reduce_s += np.where(group.scatters, scattered_s, 0.0) + summed_s
        return gather_s, reduce_s

    def estimate_level_bytes(self) -> tuple[Column, Column]:
        """(gather, reduce) bytes that one rank sends across each level, [n, S, L]."""
        shape = (*self.params.dense.shape, len(self.network.names))
        gathered, reduced = np.zeros(shape), np.zeros(shape)
        split = (self._stage >= 1)[..., None]
        for group in self._groups:

            def sent(kind: Collective, place: Placement, num_bytes: Column) -> Column:
                return estimate_sent_bytes(kind, num_bytes, place.size)[..., None] * place.traffic_share

            gathered += np.where(split, sent("all_gather", group.place, group.param_bytes), 0.0)
            scattered = sent("reduce_scatter", group.place, group.grad_bytes)
            reduced += np.where(group.scatters[..., None], scattered, 0.0)
            reduced += sent("all_reduce", group.outer, group.share_bytes)
        return gathered, reduced

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
        setting, layouts, params, stage = self.setting, self.layouts, self.params, self._stage
        workload, trains = setting.workload, trainable_share(setting.model)
        scatters = (stage >= 1) & ~((stage <= 1) & setting.runtime.state.all_reduces_grads)
        dense_stride = np.where(layouts.order == 1, layouts.tp * layouts.pp, layouts.tp).astype(np.float64)
        strides = (dense_stride, layouts.stride("edp").astype(np.float64))
        kinds = zip(
            (params.dense, params.expert),
            shard_groups(setting, layouts),
            replica_groups(setting, layouts),
            strides,
            strict=True,
        )
        for elements, over, replicas, stride in kinds:
            if not elements.any():
                continue
            size, step, copies = over[:, None], stride[:, None], replicas[:, None]
            outer = self._reached.place(
                np.where(scatters, copies, size * copies), np.where(scatters, step * size, step)
            )
            yield _Group(
                elements=elements,
                param_bytes=np.where(stage >= 3, 1.0, trains) * elements * DTYPE_BYTES[workload.param_dtype],
                grad_bytes=trains * elements * DTYPE_BYTES[workload.grad_reduce_dtype],
                size=size,
                step=step,
                place=self._reached.place(size, step),
                outer=outer,
                scatters=scatters,
            )
