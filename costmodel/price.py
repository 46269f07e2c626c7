"""The one formula: (Layouts, Assignment) -> step time, its terms, and memory - for one row or a million."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from costmodel.collectives import Network, estimate_collective_s, estimate_level_bytes
from costmodel.dataparallel import StepExtras, estimate_gather_jitter, estimate_step_extras
from costmodel.layers import LayerCosts, distinct_splits, estimate_layer_costs
from costmodel.layouts import Assignment, BoolColumn, Column, IntColumn, Layouts
from costmodel.memory import (
    HeldBytes,
    KeptBytes,
    MemoryColumns,
    estimate_held,
    estimate_memory,
    host_budget_bytes,
    nvme_budget_bytes,
    sum_memory,
)
from costmodel.ops import Setting
from costmodel.pipeline import count_copies, count_sends, edge_bytes, estimate_busy_share, estimate_makespan_s
from costmodel.state import LocalParams, estimate_local_params, estimate_state_bytes
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
class Priced:
    """Every priced row: closed-form step time [n], and per slot [n, S] what it is made of."""

    layers: PricedLayers
    assignment: Assignment
    params: LocalParams
    work: RankWork
    extras: StepExtras
    memory: MemoryColumns
    makespan_s: Column

    @cached_property
    def step_time_s(self) -> Column:
        """[n] makespan, then the slowest rank's reductions and update, then waiting for the slowest device."""
        real = self.assignment.multiplicity > 0
        last = np.where(real, self.extras.exposed_s, 0.0).max(axis=1)
        return np.asarray((self.makespan_s + last * self.layers.contention) * (1.0 + self.layers.jitter))

    @cached_property
    def peak_allocated_bytes(self) -> Column:
        return np.asarray(np.where(self.assignment.multiplicity > 0, self.memory.allocated, 0.0).max(axis=1))

    @cached_property
    def peak_claim_bytes(self) -> Column:
        """[n] what the search holds against its budget."""
        return np.asarray(np.where(self.assignment.multiplicity > 0, self.memory.claim, 0.0).max(axis=1))

    @cached_property
    def peak_device_bytes(self) -> Column:
        return np.asarray(np.where(self.assignment.multiplicity > 0, self.memory.device, 0.0).max(axis=1))

    @cached_property
    def fits_host(self) -> BoolColumn:
        """[n] whether every rank's share of the host, and of its drives, holds what it offloads."""
        setting, memory = self.layers.setting, self.memory
        fits = (memory.host <= host_budget_bytes(setting)) & (memory.nvme <= nvme_budget_bytes(setting))
        return np.asarray((fits | (self.assignment.multiplicity == 0)).all(axis=1))

    @cached_property
    def fits_probability(self) -> Column:
        """[n] of the worst rank: the ranks' errors are the model's, common to all."""
        return np.asarray(np.where(self.assignment.multiplicity > 0, self.memory.fits_probability, 1.0).min(axis=1))


Columns = TypeVar("Columns", LocalParams, RankWork, HeldBytes, KeptBytes)


@dataclass(frozen=True)
class PipelinePrices:
    """What a row's price does not owe to how its state is split: ``num_layers`` on each rank, [n, S], the passes' work,
    what is held in memory, and the makespan, [n]."""

    assignment: Assignment
    params: LocalParams
    num_layers: Column
    work: RankWork
    held: HeldBytes
    makespan_s: Column

    def take(self, rows: NDArray[np.intp]) -> PipelinePrices:
        return PipelinePrices(
            self.assignment.take(rows),
            _taken(self.params, rows),
            self.num_layers[rows],
            _taken(self.work, rows),
            replace(_taken(self.held, rows, ("kept",)), kept=_taken(self.held.kept, rows)),
            self.makespan_s[rows],
        )


def _taken(columns: Columns, rows: NDArray[np.intp], but: tuple[str, ...] = ()) -> Columns:
    """A dataclass of columns with some of its rows."""
    named: dict[str, Any] = {
        one.name: getattr(columns, one.name)[rows] for one in fields(columns) if one.name not in but
    }
    return replace(columns, **named)


def price(layers: PricedLayers, assignment: Assignment, kept: KeptBytes | None = None) -> Priced:
    """Full step time in closed form and every rank's peak memory; ``kept``: as ``estimate_memory`` takes it."""
    return price_state(layers, price_pipeline(layers, assignment, kept))


def price_pipeline(layers: PricedLayers, assignment: Assignment, kept: KeptBytes | None = None) -> PipelinePrices:
    """The part of ``price`` that rows share which differ in how state is split, kept and moved alone."""
    setting, layouts = layers.setting, layers.layouts
    assignment = assignment.on_axis(layers.costs.num_policies)
    work = sum_work(layers, assignment)
    makespan = estimate_makespan_s(
        layouts,
        work.forward_pass_s,
        work.backward_pass_s,
        work.weight_grad_s,
        assignment.multiplicity,
        layers.edge_s,
    )
    return PipelinePrices(
        assignment,
        estimate_local_params(setting, layouts, assignment),
        assignment.counts.sum(axis=(2, 3)),
        work,
        estimate_held(setting, layouts, assignment, layers.costs, layers.index, kept),
        _share_cores(layers, assignment, work, makespan),
    )


def price_state(layers: PricedLayers, pipeline: PipelinePrices, alike: IntColumn | None = None) -> Priced:
    """The rest of ``price``: what the state takes, moves and waits for; ``alike``: as ``GroupTraffic`` takes it."""
    setting, layouts, params, work = layers.setting, layers.layouts, pipeline.params, pipeline.work
    extras = estimate_step_extras(
        setting,
        layers.network,
        layouts,
        params,
        pipeline.assignment.rank,
        pipeline.num_layers,
        work.forward_s,
        work.backward_s,
        alike,
    )
    memory = sum_memory(setting, layouts, estimate_state_bytes(setting, layouts, params), pipeline.held)
    return Priced(layers, pipeline.assignment, params, work, extras, memory, pipeline.makespan_s)


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
