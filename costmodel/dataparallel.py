"""What data parallelism and the optimizer add to a step: gathers, reductions, the update."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from costmodel.collectives import Network
from costmodel.grouptraffic import GroupTraffic
from costmodel.layouts import Column, IntColumn, Layouts
from costmodel.ops import Setting
from costmodel.parameters import trainable_share
from costmodel.pipeline import estimate_gathers
from costmodel.schema.workload import DTYPE_BYTES
from costmodel.state import LocalParams, keeps_full_grads, shard_groups


@dataclass(frozen=True)
class StepExtras:
    """Seconds per step and rank outside the pipeline's passes, and how often its parameters are gathered and its
    gradients reduced, [n, S]."""

    dp_exposed_s: Column
    dp_total_s: Column
    optimizer_s: Column
    offload_exposed_s: Column
    offload_total_s: Column
    gathers: Column
    reductions: Column
    traffic: GroupTraffic

    @cached_property
    def sent_bytes(self) -> Column:
        """[n, S, L] bytes that a rank sends across each level."""
        gathered, reduced = self.traffic.estimate_level_bytes()
        return np.asarray(self.gathers[..., None] * gathered + self.reductions[..., None] * reduced)

    @property
    def exposed_s(self) -> Column:
        return self.dp_exposed_s + self.optimizer_s + self.offload_exposed_s


def estimate_gather_jitter(setting: Setting, layouts: Layouts) -> Column:
    """[n] share of the step that ranks wait for each other at stages 2 and 3, layer by layer: ``gather_jitter`` · ln N.

    A layer's time has a spread between ranks, and its collective waits for the slowest of N: with an exponential tail
    the wait grows as the logarithm of N. Where a pipeline defers them the schedule's own waits cover it.
    """
    ranks = np.maximum(layouts.dp * layouts.cp, 1).astype(np.float64)
    waits = (layouts.zero_stage >= 2) & ~((layouts.pp > 1) & setting.runtime.state.full_grads_under_pipeline)
    return np.asarray(np.where(waits, setting.runtime.state.gather_jitter * np.log(ranks), 0.0))


def estimate_step_extras(
    setting: Setting, network: Network, layouts: Layouts, params: LocalParams, rank: IntColumn, layers: Column,
    forward_s: Column, backward_s: Column,
) -> StepExtras:  # fmt: skip
    """Gradient reduction, parameter gathers and the update of every rank.

    ``forward_s``, ``backward_s``: [n, S] one micro-batch on the rank: the compute that traffic may hide behind.
    ``layers``: [n, S] layers on the rank; the first gather and the last reduction, one layer's worth, never hide.
    Stage 0: all-reduce. Stages 1-2: reduce-scatter once (stage 2: every micro-batch where the runtime does; stage 1: an
    all-reduce where the runtime does), gather once. Stage 3: gather for each forward and backward, reduce-scatter for
    each backward. Where a pipeline defers all that, one reduction; and stage 3 gathers for the forwards before the
    first backward, then once and for all - or as the schedule's runs of one stage need.
    What copies move in device memory, at stages 2 and 3, takes time from compute and never hides.
    """
    traffic = GroupTraffic(setting, network, layouts, params, layers)
    gather_s, reduce_s = traffic.estimate_s()
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
    first = 1.0 - 1.0 / np.maximum(layers, 1.0)

    hidden_forward = np.minimum(overlap.param_gather * first * gather_s, forward_s)
    hidden_reduce = np.minimum(overlap.grad_reduce * first * reduce_s, backward_s)
    left_s = np.maximum(backward_s - hidden_reduce, 0.0)
    hidden_backward = np.minimum(overlap.param_gather * gather_s, left_s)
    copies_s = _price_copies(setting, layouts, params, forward_gathers + backward_gathers, reductions)
    total = forward_gathers * gather_s + backward_gathers * gather_s + reductions * reduce_s + copies_s
    hidden = forward_gathers * hidden_forward + backward_gathers * hidden_backward + reductions * hidden_reduce
    exposed = total - hidden + hidden * (overlap.compute_slowdown - 1.0)
    update_s, host_total_s, host_exposed_s = _price_update(setting, layouts, params, backward_s)
    return StepExtras(
        dp_exposed_s=exposed,
        dp_total_s=total,
        optimizer_s=update_s,
        offload_exposed_s=host_exposed_s,
        offload_total_s=host_total_s,
        gathers=forward_gathers + backward_gathers,
        reductions=reductions,
        traffic=traffic,
    )


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
    dense_over, expert_over = (group[:, None] for group in shard_groups(setting, layouts))
    shared = np.where(dense_over > 1, params.dense, 0.0) + np.where(expert_over > 1, params.expert, 0.0)
    each = gathers * rules.gather_copies * 2.0 * param_bytes + reductions * rules.reduce_copies * grad_bytes
    moved = np.where(layouts.zero_stage[:, None] >= 2, shared * each, 0.0)
    return np.asarray(moved / (device.memory_bytes_per_s * device.memory_fraction))


def _price_update(
    setting: Setting, layouts: Layouts, params: LocalParams, backward_s: Column
) -> tuple[Column, Column, Column]:
    """Update on the device; copies and update on the host, in all and exposed.

    A parameter's update reads its gradient twice (once for the norm), and reads and writes master and moments, and
    writes the low-precision copy: 8 + 2·(4 + moments) + 2 bytes, times ``optimizer_bytes_factor`` on a device. The
    host's share crosses its link both ways.
    """
    workload = setting.workload
    stage = layouts.zero_stage[:, None]
    dense_over, expert_over = (group[:, None] for group in shard_groups(setting, layouts))
    own = np.where(stage >= 1, params.dense / dense_over + params.expert / expert_over, params.total)
    own = own * trainable_share(setting.model)
    per_param = 8.0 + 2.0 * (4.0 + workload.optimizer_state_bytes) + DTYPE_BYTES[workload.param_dtype]
    offload = layouts.optimizer_offload[:, None]
    device = setting.device
    on_device = own * (1.0 - offload) * per_param * setting.runtime.kernels.optimizer_bytes_factor
    update_s = on_device / (device.memory_bytes_per_s * device.memory_fraction)
    update_s = update_s + setting.runtime.kernels.host_s_per_step
    host = setting.host
    crossing = own * offload * (DTYPE_BYTES[workload.grad_reduce_dtype] + DTYPE_BYTES[workload.param_dtype])
    host_rate = host.memory_bytes_per_s / setting.devices_per_node
    total = np.maximum(crossing / host.device_link_bytes_per_s, own * offload * per_param / host_rate)
    exposed = total - np.minimum(setting.overlap.optimizer_offload * total, backward_s)
    return update_s, total, exposed
