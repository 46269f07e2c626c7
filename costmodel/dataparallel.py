"""What data parallelism and the optimizer add to a step: gathers, reductions, the update.

``StateTraffic`` is what they take, whatever they hide behind: it depends on a rank's parameters and on how their state
is split alone. ``RankPasses`` is what they may hide behind, and how often they come: that split is nothing to it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from costmodel.collectives import Network
from costmodel.columns import distinct_rows, take_rows
from costmodel.grouptraffic import GroupTraffic, Passes, PassKind
from costmodel.layouts import BoolColumn, Column, IntColumn, Layouts
from costmodel.ops import Setting
from costmodel.parameters import trainable_share
from costmodel.pipeline import estimate_gathers
from costmodel.schema.workload import DTYPE_BYTES
from costmodel.shards import keeps_full_grads, reduces_far_once, shard_groups
from costmodel.state import LocalParams
from costmodel.update import UpdateRates, estimate_update, estimate_update_rates


@dataclass(frozen=True)
class StepExtras:
    """Seconds per step and rank outside the pipeline's passes, [n, S]. ``frozen_s``: of frozen parts before them.
    ``counts``: how often its parameters are gathered and its gradients reduced."""

    dp_exposed_s: Column
    dp_total_s: Column
    optimizer_s: Column
    offload_exposed_s: Column
    offload_total_s: Column
    frozen_s: Column
    counts: Passes

    @property
    def exposed_s(self) -> Column:
        return self.dp_exposed_s + self.optimizer_s + self.offload_exposed_s + self.frozen_s


@dataclass(frozen=True)
class RankPasses:
    """A rank's passes, [n, S] or [n, 1]: seconds of one micro-batch on it, the compute that traffic may hide behind;
    how often parameters that are sharded (stage 3) are gathered for its forwards, and again for its backwards; seconds
    of frozen parts before them.
    """

    forward_s: Column
    backward_s: Column
    gathers: Column
    regathers: Column
    frozen_s: Column
    num_microbatches: Column


@dataclass(frozen=True)
class StateTraffic:
    """What becomes of a rank's state in a step, [n, S]: seconds of one pass of each kind, copies in device memory
    included, and how many of them may hide at most; the update; ``optimizer_offload`` [n, 1].

    ``gathers_each``, ``reduces_each``: [n, 1] whether passes gather what they need, and gradients are reduced after
    every micro-batch; else once a step.
    """

    one_s: Passes
    hideable_s: Passes
    gathers_each: BoolColumn
    reduces_each: BoolColumn
    rates: UpdateRates
    optimizer_offload: Column

    def count(self, passes: RankPasses) -> Passes:
        """How often a step has each pass."""
        once = np.ones_like(passes.num_microbatches)
        counts: Passes = dict.fromkeys(self.one_s, once)
        counts["reduce"] = np.where(self.reduces_each, passes.num_microbatches, once)
        if "regather" in self.one_s:
            counts["gather"] = 1.0 + self.gathers_each * (passes.gathers - 1.0)
            counts["regather"] = self.gathers_each * passes.regathers
        return counts


def estimate_gather_jitter(setting: Setting, layouts: Layouts) -> Column:
    """[n] share of the step that ranks wait for each other at stages 2 and 3, layer by layer: ``gather_jitter`` · ln N.

    A layer's time has a spread between ranks, and its collective waits for the slowest of N: with an exponential tail
    the wait grows as the logarithm of N. N is all ranks with the same parameters, or, where shards of gradients go
    beyond their group once a step, as many as gather or reduce a layer. Where a pipeline defers them the schedule's own
    waits cover it.
    """
    every = np.maximum(layouts.dp * layouts.cp, 1).astype(np.float64)
    dense, _ = shard_groups(setting, layouts)
    near = np.maximum(dense.params, dense.scattered)[:, 0]
    ranks = np.where(reduces_far_once(setting, layouts), near, every)
    waits = (layouts.zero_stage >= 2) & ~((layouts.pp > 1) & setting.runtime.state.full_grads_under_pipeline)
    return np.asarray(np.where(waits, setting.runtime.state.gather_jitter * np.log(ranks), 0.0))


def estimate_rank_passes(
    setting: Setting, layouts: Layouts, rank: IntColumn, forward_s: Column, backward_s: Column, frozen_s: Column
) -> RankPasses:
    """[n, S] seconds of one micro-batch and [n] of frozen parts before all, as given; how often stage 3 gathers: for
    each forward and each backward. Where a pipeline defers what it can, for the forwards before the first backward,
    then once and for all - or as the schedule's runs of one stage need.
    """
    rules = setting.runtime.state
    m = layouts.num_microbatches[:, None].astype(np.float64)
    gathers, regathers = (m, m) if rules.gathers_every_microbatch else (np.ones_like(m), np.zeros_like(m))
    if rules.full_grads_under_pipeline:
        deferred = layouts.pp[:, None] > 1
        before, after = estimate_gathers(layouts, rank)
        gathers, regathers = np.where(deferred, before, gathers), np.where(deferred, after, regathers)
    return RankPasses(forward_s, backward_s, gathers, regathers, frozen_s[:, None], m)


def estimate_state_traffic(
    setting: Setting, network: Network, layouts: Layouts, params: LocalParams, layers: Column,
    hiding_layers: Column | None = None,
) -> StateTraffic:  # fmt: skip
    """Gradient reduction, parameter gathers and the update of every rank, whatever they hide behind.

    ``layers``: [n, S] layers on the rank; the first gather and the last reduction, one layer's worth, never hide.
    ``hiding_layers``: how many layers say what hides, by default ``layers``.
    Stage 0: all-reduce. Stages 1-2: reduce-scatter once (stage 2: every micro-batch where the runtime does; stage 1: an
    all-reduce where the runtime does), gather once. Stage 3: gather for each forward and backward, reduce-scatter for
    each backward. Where optimizer state is split further than parameters, or gradients, one gather and one reduction a
    step besides, over the ranks beyond. What copies move in device memory, at stages 2 and 3, takes time from compute
    and never hides.
    """
    overlap, gathers_each = setting.overlap, layouts.zero_stage[:, None] >= 3
    reduces_each = ~keeps_full_grads(setting, layouts)[:, None] & setting.runtime.state.reduces_every_microbatch
    first = 1.0 - 1.0 / np.maximum(layers if hiding_layers is None else hiding_layers, 1.0)
    may_hide: dict[PassKind, Column | float] = {
        "gather": overlap.param_gather * first,
        "regather": overlap.param_gather,
        "update_gather": overlap.param_gather * first,
        "reduce": overlap.grad_reduce * first,
        "far_reduce": overlap.grad_reduce * first,
    }
    one_s = GroupTraffic(setting, network, layouts, params, layers).estimate_s()
    hideable_s: Passes = {kind: may_hide[kind] * seconds for kind, seconds in one_s.items()}
    copied_s = _price_copies(setting, layouts, params)
    one_s = {kind: seconds + copied_s[kind] if kind in copied_s else seconds for kind, seconds in one_s.items()}
    rates = estimate_update_rates(setting, layouts, params)
    return StateTraffic(one_s, hideable_s, gathers_each, reduces_each, rates, layouts.optimizer_offload[:, None])


def expose_traffic(setting: Setting, traffic: StateTraffic, passes: RankPasses) -> StepExtras:
    """What of a state's traffic and update the rank's passes leave to wait for: total - hidden · (2 - slowdown).

    Gradients hide first behind the backward, then what is gathered for it, and what comes once a step behind what the
    passes of every micro-batch leave of one.
    """
    counts, slowdown = traffic.count(passes), setting.overlap.compute_slowdown
    hidden_s = _hide(traffic.hideable_s, ("gather", "update_gather"), passes.forward_s)
    hidden_s |= _hide(traffic.hideable_s, ("reduce", "regather", "far_reduce"), passes.backward_s)
    total = _sum_passes(counts, traffic.one_s)
    exposed = total - _sum_passes(counts, hidden_s) * (2.0 - slowdown)
    update = estimate_update(setting, traffic.rates, traffic.optimizer_offload, passes.backward_s)
    frozen_s = np.broadcast_to(passes.frozen_s, exposed.shape)
    return StepExtras(exposed, total, update.device_s, update.host_exposed_s, update.host_total_s, frozen_s, counts)


def estimate_step_extras(
    setting: Setting, network: Network, layouts: Layouts, params: LocalParams, rank: IntColumn, layers: Column,
    forward_s: Column, backward_s: Column, frozen_s: Column, alike: IntColumn | None = None,
    hiding_layers: Column | None = None,
) -> StepExtras:  # fmt: skip
    """``expose_traffic`` of ``estimate_state_traffic`` behind ``estimate_rank_passes``.

    ``alike``: [n] equal where rows have the same parameters, layers and groups, whatever share of the optimizer is on
    the host, so that their traffic is priced once; None: each row is priced.
    """
    passes = estimate_rank_passes(setting, layouts, rank, forward_s, backward_s, frozen_s)
    if alike is None:
        traffic = estimate_state_traffic(setting, network, layouts, params, layers, hiding_layers)
        return expose_traffic(setting, traffic, passes)
    rows, place = distinct_rows(alike)
    hiding = None if hiding_layers is None else hiding_layers[rows]
    traffic = estimate_state_traffic(
        setting, network, layouts.take(rows), take_rows(params, rows), layers[rows], hiding
    )
    own_share = replace(take_rows(traffic, place), optimizer_offload=layouts.optimizer_offload[:, None])
    return expose_traffic(setting, own_share, passes)


def _hide(most_s: Passes, kinds: Iterable[PassKind], behind_s: Column) -> Passes:
    """What hides of each kind of pass, one after the other, behind what the ones before leave of ``behind_s``."""
    hidden: Passes = {}
    for kind in kinds:
        if kind in most_s:
            hidden[kind] = np.minimum(most_s[kind], behind_s)
            behind_s = behind_s - hidden[kind]
    return hidden


def _sum_passes(counts: Passes, seconds: Passes) -> Column:
    return np.asarray(sum(counts[kind] * one for kind, one in seconds.items()))


def _price_copies(setting: Setting, layouts: Layouts, params: LocalParams) -> Passes:
    """[n, S] seconds of the copies around one gather and one reduction, of the parameters that a group of ranks shares,
    at stages 2 and 3.

    A gathered parameter is read and written at its own width in every pass, a gradient read at that width and written
    at the reduction's.
    """
    rules, device = setting.runtime.state, setting.device
    if not rules.gather_copies and not rules.reduce_copies:
        return {}
    param_bytes = DTYPE_BYTES[setting.workload.param_dtype]
    grad_bytes = trainable_share(setting.model) * (param_bytes + DTYPE_BYTES[setting.workload.grad_reduce_dtype])
    dense, expert = shard_groups(setting, layouts)
    shared = np.where(dense.optimizer > 1, params.dense, 0.0) + np.where(expert.optimizer > 1, params.expert, 0.0)
    copied_s = (layouts.zero_stage[:, None] >= 2) * shared / (device.memory_bytes_per_s * device.memory_fraction)
    gather_s = rules.gather_copies * 2.0 * param_bytes * copied_s
    return {"gather": gather_s, "regather": gather_s, "reduce": rules.reduce_copies * grad_bytes * copied_s}
