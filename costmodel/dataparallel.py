"""What data parallelism and the optimizer add to a step: gathers, reductions, the update."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from costmodel.collectives import Network
from costmodel.grouptraffic import GroupTraffic, Passes
from costmodel.layouts import Column, IntColumn, Layouts
from costmodel.ops import Setting
from costmodel.parameters import trainable_share
from costmodel.pipeline import estimate_gathers
from costmodel.schema.workload import DTYPE_BYTES
from costmodel.shards import keeps_full_grads, reduces_far_once, shard_groups
from costmodel.state import LocalParams
from costmodel.update import estimate_update


@dataclass(frozen=True)
class StepExtras:
    """Seconds per step and rank outside the pipeline's passes, [n, S]. ``counts``: how often its parameters are
    gathered and its gradients reduced."""

    dp_exposed_s: Column
    dp_total_s: Column
    optimizer_s: Column
    offload_exposed_s: Column
    offload_total_s: Column
    counts: Passes
    traffic: GroupTraffic

    @cached_property
    def sent_bytes(self) -> Column:
        """[n, S, L] bytes that a rank sends across each level."""
        passes = zip(self.counts, self.traffic.estimate_level_bytes(), strict=True)
        return np.asarray(sum(count[..., None] * num_bytes for count, num_bytes in passes))

    @property
    def exposed_s(self) -> Column:
        return self.dp_exposed_s + self.optimizer_s + self.offload_exposed_s


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


def estimate_step_extras(
    setting: Setting, network: Network, layouts: Layouts, params: LocalParams, rank: IntColumn, layers: Column,
    forward_s: Column, backward_s: Column, alike: IntColumn | None = None, hiding_layers: Column | None = None,
) -> StepExtras:  # fmt: skip
    """Gradient reduction, parameter gathers and the update of every rank.

    ``forward_s``, ``backward_s``: [n, S] one micro-batch on the rank: the compute that traffic may hide behind.
    ``layers``: [n, S] layers on the rank; the first gather and the last reduction, one layer's worth, never hide.
    ``alike``: as ``GroupTraffic`` takes it. ``hiding_layers``: how many layers say what hides, by default ``layers``.
    Stage 0: all-reduce. Stages 1-2: reduce-scatter once (stage 2: every micro-batch where the runtime does; stage 1: an
    all-reduce where the runtime does), gather once. Stage 3: gather for each forward and backward, reduce-scatter for
    each backward. Where a pipeline defers all that, one reduction; and stage 3 gathers for the forwards before the
    first backward, then once and for all - or as the schedule's runs of one stage need. Where optimizer state is split
    further than parameters, or gradients, one gather and one reduction a step besides, over the ranks beyond.
    What copies move in device memory, at stages 2 and 3, takes time from compute and never hides.
    """
    traffic = GroupTraffic(setting, network, layouts, params, layers, alike)
    one = traffic.estimate_s()
    m = layouts.num_microbatches[:, None].astype(np.float64)
    stage = layouts.zero_stage[:, None]
    pipelined = layouts.pp[:, None] > 1
    rules, overlap = setting.runtime.state, setting.overlap
    full_grads = keeps_full_grads(setting, layouts)[:, None]
    reductions = np.where(~full_grads & rules.reduces_every_microbatch, m, 1.0)
    deferred = pipelined & rules.full_grads_under_pipeline
    before, after = estimate_gathers(layouts, rank)
    each = m if rules.gathers_every_microbatch else np.ones_like(m)
    forward_gathers = np.where(stage >= 3, np.where(deferred, before, each), 1.0)
    regathers = (stage >= 3) & (deferred | rules.gathers_every_microbatch)
    backward_gathers = np.where(regathers, np.where(deferred, after, m), 0.0)
    once = np.ones_like(forward_gathers)
    counts = Passes(forward_gathers, backward_gathers, once, reductions, once)
    first = 1.0 - 1.0 / np.maximum(layers if hiding_layers is None else hiding_layers, 1.0)

    hidden_forward = np.minimum(overlap.param_gather * first * one.gather, forward_s)
    hidden_reduce = np.minimum(overlap.grad_reduce * first * one.reduce, backward_s)
    left_s = np.maximum(backward_s - hidden_reduce, 0.0)
    hidden_backward = np.minimum(overlap.param_gather * one.regather, left_s)
    # What comes once a step hides behind what the passes of every micro-batch leave of one.
    hidden_update = np.minimum(overlap.param_gather * first * one.update_gather, forward_s - hidden_forward)
    hidden_far = np.minimum(overlap.grad_reduce * first * one.far_reduce, left_s - hidden_backward)
    hides = (hidden_forward, hidden_backward, hidden_update, hidden_reduce, hidden_far)
    copies_s = _price_copies(setting, layouts, params, forward_gathers + backward_gathers, reductions)
    total = sum((count * seconds for count, seconds in zip(counts, one, strict=True)), copies_s)
    hidden = sum((count * seconds for count, seconds in zip(counts, hides, strict=True)), np.zeros_like(total))
    exposed = total - hidden + hidden * (overlap.compute_slowdown - 1.0)
    update = estimate_update(setting, layouts, params, backward_s)
    return StepExtras(exposed, total, update.device_s, update.host_exposed_s, update.host_total_s, counts, traffic)


def _price_copies(
    setting: Setting, layouts: Layouts, params: LocalParams, gathers: Column, reductions: Column
) -> Column:
    """[n, S] seconds of the copies around gathers and reductions, of the parameters that a group of ranks shares.

    A gathered parameter is read and written at its own width in every pass, a gradient read at that width and written
    at the reduction's.
    """
    rules, device = setting.runtime.state, setting.device
    param_bytes = DTYPE_BYTES[setting.workload.param_dtype]
    grad_bytes = trainable_share(setting.model) * (param_bytes + DTYPE_BYTES[setting.workload.grad_reduce_dtype])
    dense, expert = shard_groups(setting, layouts)
    shared = np.where(dense.optimizer > 1, params.dense, 0.0) + np.where(expert.optimizer > 1, params.expert, 0.0)
    each = gathers * rules.gather_copies * 2.0 * param_bytes + reductions * rules.reduce_copies * grad_bytes
    moved = np.where(layouts.zero_stage[:, None] >= 2, shared * each, 0.0)
    return np.asarray(moved / (device.memory_bytes_per_s * device.memory_fraction))
