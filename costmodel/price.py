"""The one formula: (Layouts, Assignment) -> step time, its terms, and memory - for one row or a million."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from costmodel.collectives import Network, estimate_collective_s, estimate_level_bytes
from costmodel.columns import largest
from costmodel.dataparallel import (
    RankPasses,
    StateTraffic,
    StepExtras,
    estimate_gather_jitter,
    estimate_rank_passes,
    estimate_state_traffic,
    expose_traffic,
)
from costmodel.grouptraffic import GroupTraffic
from costmodel.layers import LayerCosts, distinct_splits, estimate_layer_costs
from costmodel.layouts import Assignment, BoolColumn, Column, IntColumn, Layouts
from costmodel.memory import (
    HeldBytes,
    KeptBytes,
    MemoryColumns,
    estimate_held,
    estimate_memory,
    estimate_state_claim_bytes,
    fits_beside,
    sum_memory,
)
from costmodel.ops import Setting
from costmodel.pipeline import count_copies, count_sends, edge_bytes, estimate_busy_share, estimate_makespan_s
from costmodel.state import LocalParams, StateBytes, estimate_local_params, estimate_state_bytes
from costmodel.vocabulary import VocabularyTraffic, estimate_vocabulary_traffic

JITTER_STD = 0.003
"""Spread of one device's step time. Prior; the slowest of N devices is sqrt(2 ln N) of it late."""


@dataclass(frozen=True)
class PricedLayers:
    """The layer table of some layouts: distinct costs, and each row's index among them."""

    setting: Setting
    network: Network
    layouts: Layouts
    costs: LayerCosts
    index: NDArray[np.intp]

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_] | slice) -> PricedLayers:
        return PricedLayers(self.setting, self.network, self.layouts.take(rows), self.costs, self.index[rows])

    @cached_property
    def forward(self) -> Column:
        """[n, J] forward seconds per layer kind, embedding, head."""
        return self.costs.forward[self.index]

    @cached_property
    def backward(self) -> Column:
        """[n, J, P] full backward seconds."""
        return self.costs.backward[self.index]

    @cached_property
    def weight_grad(self) -> Column:
        """[n, J] the part of backward that a split may delay."""
        return self.costs.weight_grad_s[self.index]

    @cached_property
    def send_s(self) -> Column:
        """[n] from the end of a pass to its activation, or gradient, on the neighbouring pipeline rank."""
        return estimate_send_s(self.setting, self.network, self.layouts)

    @cached_property
    def busy_s(self) -> Column:
        """[n] the part of ``send_s`` in which the sending rank waits; it lengthens the pass."""
        return np.asarray(self.send_s * estimate_busy_share(self.setting, self.layouts))

    @cached_property
    def edge_s(self) -> Column:
        """[n] the rest of ``send_s``: a delay that occupies no rank."""
        return np.asarray(self.send_s - self.busy_s)

    @cached_property
    def vocabulary(self) -> VocabularyTraffic:
        """What a vocabulary split over pipeline ranks sends for each micro-batch."""
        return estimate_vocabulary_traffic(self.setting, self.network, self.layouts)

    @cached_property
    def contention(self) -> Column:
        """[n] how many ranks share one processor core, at least 1; 1 on devices of their own."""
        cores = self.setting.shared_cores
        if cores is None:
            return np.ones(len(self.layouts))
        return np.maximum(self.layouts.world_size / cores, 1.0)

    @cached_property
    def jitter(self) -> Column:
        """[n] share that waiting for the slowest of all devices adds: JITTER_STD · sqrt(2 ln N), and what stages 2
        and 3 add by waiting in every layer."""
        once = JITTER_STD * np.sqrt(2.0 * np.log(np.maximum(self.layouts.world_size, 1.0)))
        return np.asarray(once + estimate_gather_jitter(self.setting, self.layouts))


def price_layers(setting: Setting, network: Network, layouts: Layouts) -> PricedLayers:
    """Lower and price each distinct combination of degrees once."""
    split, index = distinct_splits(layouts, setting.workload.seq_len)
    return PricedLayers(setting, network, layouts, estimate_layer_costs(setting, network, split), index)


def estimate_send_s(setting: Setting, network: Network, layouts: Layouts, apart: Column | None = None) -> Column:
    """[n] seconds of one send between stages: each tensor rank's message - twice, where the two directions take turns -
    and, where shares of a whole activation were sent, the receivers' all-gather inside their node.

    ``apart``: ranks between sender and receiver, where that is not what the mesh order says.
    """
    pipelined = np.where(layouts.pp > 1, 2, 1)
    message = edge_bytes(setting, layouts)
    stride = layouts.stride("pp") if apart is None else apart
    send_s = estimate_collective_s(network, "p2p", message, pipelined, stride)
    if setting.runtime.one_way_sends:
        send_s = 2.0 * send_s
    gather_s = estimate_collective_s(
        network,
        "all_gather",
        message * layouts.tp,
        _gathering_ranks(setting, layouts),
        1,
        setting.device.kernel_launch_s,
    )
    return np.asarray(send_s + gather_s)


def estimate_received_level_bytes(layers: PricedLayers) -> Column:
    """[n, L] bytes that one device sends by network level while receivers gather the shares of one activation."""
    setting, layouts = layers.setting, layers.layouts
    whole = edge_bytes(setting, layouts) * layouts.tp
    ranks = _gathering_ranks(setting, layouts).astype(np.float64)
    return estimate_level_bytes(layers.network, "all_gather", whole, ranks, np.ones_like(ranks))


def _gathering_ranks(setting: Setting, layouts: Layouts) -> IntColumn:
    """[n] tensor ranks that gather what stages send: 1 where each wants no more than its share."""
    apart = (layouts.sequence_parallel > 0) | (layouts.pp == 1) | (not setting.runtime.scatters_pipeline_sends)
    return np.where(apart, 1, layouts.tp)


@dataclass(frozen=True)
class RankWork:
    """One micro-batch on each slot's rank, [n, S] seconds: all of the rank's chunks together, its sends apart."""

    forward_s: Column
    backward_s: Column
    weight_grad_s: Column
    sent_forward_s: Column
    sent_backward_s: Column

    @property
    def forward_pass_s(self) -> Column:
        """[n, S] with what the rank waits for its activations' sends."""
        return self.forward_s + self.sent_forward_s

    @property
    def backward_pass_s(self) -> Column:
        """[n, S] with what the rank waits for its gradients' sends."""
        return self.backward_s + self.sent_backward_s


def sum_work(layers: PricedLayers, assignment: Assignment) -> RankWork:
    """Layer seconds times counts, and the two ends where they live; of several copies the mean."""
    kinds = assignment.counts.shape[2]
    copies = count_copies(layers.layouts)[:, None]
    counts = assignment.counts.sum(axis=3)
    embedding, head = assignment.embedding, assignment.head

    def ends(column: Column) -> Column:
        return embedding * column[:, kinds][:, None] + head * column[:, kinds + 1][:, None]

    activations, gradients = count_sends(layers.layouts, assignment.rank)
    forward_s = np.einsum("nsk,nk->ns", counts, layers.forward[:, :kinds]) + ends(layers.forward)
    backward_s = np.einsum("nskp,nkp->ns", assignment.counts, layers.backward[:, :kinds, : assignment.counts.shape[3]])
    weight_grad_s = np.einsum("nsk,nk->ns", counts, layers.weight_grad[:, :kinds]) + ends(layers.weight_grad)
    return RankWork(
        forward_s=forward_s / copies,
        backward_s=(backward_s + ends(layers.backward[..., 0])) / copies,
        weight_grad_s=weight_grad_s / copies,
        sent_forward_s=activations * layers.busy_s[:, None],
        sent_backward_s=gradients * layers.busy_s[:, None],
    )


@dataclass(frozen=True)
class RowPrices:
    """By what rows are compared: seconds of the passes [n], what every slot adds after them, and bytes that it claims,
    [n, S].

    ``real``: [n, S] slots that stand for a rank; ``contention``, ``jitter``: [n], as of ``PricedLayers``.
    """

    setting: Setting
    makespan_s: Column
    real: BoolColumn
    extras: StepExtras
    claim_bytes: Column
    host_bytes: Column
    nvme_bytes: Column
    contention: Column
    jitter: Column

    @cached_property
    def step_time_s(self) -> Column:
        """[n] makespan, then the slowest rank's reductions and update, then waiting for the slowest device."""
        last = largest(self.extras.exposed_s * self.real)
        return np.asarray((self.makespan_s + last * self.contention) * (1.0 + self.jitter))

    @cached_property
    def peak_claim_bytes(self) -> Column:
        """[n] what the search holds against its budget."""
        return largest(self.claim_bytes * self.real)

    @cached_property
    def fits_host(self) -> BoolColumn:
        """[n] whether every rank's share of the host, and of its drives, holds what it offloads."""
        return np.asarray((fits_beside(self.setting, self.host_bytes, self.nvme_bytes) | ~self.real).all(axis=1))


@dataclass(frozen=True)
class Priced(RowPrices):
    """The same with what it is made of, by row or by slot."""

    layers: PricedLayers
    assignment: Assignment
    params: LocalParams
    work: RankWork
    memory: MemoryColumns

    @cached_property
    def peak_allocated_bytes(self) -> Column:
        return largest(self.memory.allocated * self.real)

    @cached_property
    def peak_device_bytes(self) -> Column:
        return largest(self.memory.device * self.real)

    @cached_property
    def fits_probability(self) -> Column:
        """[n] of the worst rank: the ranks' errors are the model's, common to all."""
        return np.asarray(np.where(self.real, self.memory.fits_probability, 1.0).min(axis=1))

    @cached_property
    def sent_bytes(self) -> Column:
        """[n, S, L] bytes that a rank sends across each level after, or beside, its passes."""
        layers, counts = self.layers, self.extras.counts
        groups = GroupTraffic(
            layers.setting, layers.network, layers.layouts, self.params, self.assignment.counts.sum(axis=(2, 3))
        )
        sent = groups.estimate_level_bytes()
        return np.asarray(sum(counts[kind][..., None] * num_bytes for kind, num_bytes in sent.items()))


@dataclass(frozen=True)
class PipelineRows:
    """What a row takes from its pipeline: as ``RowPrices``, less what state claims."""

    makespan_s: Column
    real: BoolColumn
    passes: RankPasses
    claim_bytes: Column
    host_bytes: Column
    nvme_bytes: Column


@dataclass(frozen=True)
class PipelinePrices:
    """What a row's price does not owe to how its state is split: its ranks' parameters, layers [n, S] and work, what is
    held in memory; ``rows``: what is left of that in the end."""

    assignment: Assignment
    params: LocalParams
    num_layers: Column
    work: RankWork
    held: HeldBytes
    rows: PipelineRows


@dataclass(frozen=True)
class StateRows:
    """What a row takes from its state: as ``RowPrices``, less what activations claim."""

    traffic: StateTraffic
    claim_bytes: Column
    host_bytes: Column
    contention: Column
    jitter: Column


def price(layers: PricedLayers, assignment: Assignment, kept: KeptBytes | None = None) -> Priced:
    """Full step time in closed form and every rank's peak memory; ``kept``: as ``estimate_memory`` takes it."""
    pipeline = price_pipeline(layers, assignment, kept)
    state_bytes, state = price_state(layers, pipeline.params, pipeline.num_layers)
    return Priced(
        **vars(join_prices(layers.setting, pipeline.rows, state)),
        layers=layers,
        assignment=pipeline.assignment,
        params=pipeline.params,
        work=pipeline.work,
        memory=sum_memory(layers.setting, layers.layouts, state_bytes, pipeline.held),
    )


def price_pipeline(layers: PricedLayers, assignment: Assignment, kept: KeptBytes | None = None) -> PipelinePrices:
    """The part of ``price`` that rows share which differ in how state is split, kept and moved alone."""
    setting, layouts = layers.setting, layers.layouts
    assignment = assignment.on_axis(layers.costs.num_policies)
    work = sum_work(layers, assignment)
    makespan_s = estimate_makespan_s(
        layouts,
        work.forward_pass_s,
        work.backward_pass_s,
        work.weight_grad_s,
        assignment.multiplicity,
        layers.edge_s,
    )
    held = estimate_held(setting, layouts, assignment, layers.costs, layers.index, kept)
    rows = PipelineRows(
        makespan_s=_share_cores(layers, assignment, work, makespan_s),
        real=assignment.multiplicity > 0,
        passes=estimate_rank_passes(setting, layouts, assignment.rank, work.forward_s, work.backward_s),
        claim_bytes=held.claim_bytes,
        host_bytes=held.host_bytes,
        nvme_bytes=held.kept.nvme,
    )
    params = estimate_local_params(setting, layouts, assignment)
    return PipelinePrices(assignment, params, assignment.counts.sum(axis=(2, 3)), work, held, rows)


def price_state(layers: PricedLayers, params: LocalParams, num_layers: Column) -> tuple[StateBytes, StateRows]:
    """The part of ``price`` that rows share whose ranks hold the same parameters, split alike over equal degrees."""
    setting, layouts = layers.setting, layers.layouts
    state = estimate_state_bytes(setting, layouts, params)
    return state, StateRows(
        estimate_state_traffic(setting, layers.network, layouts, params, num_layers),
        estimate_state_claim_bytes(setting, layouts, state),
        state.host,
        layers.contention,
        layers.jitter,
    )


def join_prices(setting: Setting, pipeline: PipelineRows, state: StateRows) -> RowPrices:
    """The rest of ``price``, of rows that stand in both: what hides behind what, and what is claimed in all."""
    return RowPrices(
        setting,
        pipeline.makespan_s,
        pipeline.real,
        expose_traffic(setting, state.traffic, pipeline.passes),
        pipeline.claim_bytes + state.claim_bytes,
        pipeline.host_bytes + state.host_bytes,
        pipeline.nvme_bytes,
        state.contention,
        state.jitter,
    )


def price_memory(layers: PricedLayers, assignment: Assignment, kept: KeptBytes | None = None) -> MemoryColumns:
    """The memory of ``price`` alone."""
    params = estimate_local_params(layers.setting, layers.layouts, assignment)
    state = estimate_state_bytes(layers.setting, layers.layouts, params)
    return estimate_memory(layers.setting, layers.layouts, assignment, state, layers.costs, layers.index, kept)


def _share_cores(layers: PricedLayers, assignment: Assignment, work: RankWork, makespan_s: Column) -> Column:
    """Ranks that share cores finish no sooner than all their work divided by the cores."""
    if layers.setting.shared_cores is None:
        return makespan_s
    layouts = layers.layouts
    passes_s = (work.forward_pass_s + work.backward_pass_s) * assignment.multiplicity
    one_pipeline = passes_s.sum(axis=1) * layouts.num_microbatches
    all_work = one_pipeline * layouts.world_size / layouts.pp
    return np.asarray(np.maximum(makespan_s, all_work / layers.setting.shared_cores))
