"""The one formula: (Layouts, Assignment) -> step time, its terms, and memory - for one row or a million."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from costmodel.columns import largest
from costmodel.dataparallel import (
    RankPasses,
    StateTraffic,
    StepExtras,
    estimate_rank_passes,
    estimate_state_traffic,
    expose_traffic,
)
from costmodel.grouptraffic import GroupTraffic
from costmodel.kept import HeldBytes, KeptBytes, estimate_held
from costmodel.layer_table import PricedLayers
from costmodel.layouts import Assignment, BoolColumn, Column
from costmodel.memory import MemoryColumns, estimate_memory, estimate_state_claim_bytes, fits_beside, sum_memory
from costmodel.ops import Setting
from costmodel.pipeline import estimate_makespan_s
from costmodel.rank_work import RankWork, mean_busy_s, share_cores, sum_work
from costmodel.state import LocalParams, StateBytes, estimate_local_params, estimate_state_bytes


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
    if setting.model.frozen_parts:
        makespan_s = np.maximum(makespan_s, mean_busy_s(layers, assignment, work))
    held = estimate_held(setting, layouts, assignment, layers.costs, layers.index, kept)
    rows = PipelineRows(
        makespan_s=share_cores(layers, assignment, work, makespan_s),
        real=assignment.multiplicity > 0,
        passes=estimate_rank_passes(
            setting, layouts, assignment.rank, work.forward_s, work.backward_s, layers.frozen.ahead_s
        ),
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
