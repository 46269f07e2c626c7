"""Memory of every pipeline rank at its worst moment, in three figures that are never mixed, and P(fits)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from costmodel.layers import LayerCosts
from costmodel.layouts import Assignment, BoolColumn, Column, IntColumn, Layouts
from costmodel.ops import Setting
from costmodel.pipeline import (
    count_barriers,
    count_copies,
    estimate_in_flight,
    estimate_pending,
    estimate_receive_bytes,
    keeps_logits,
)
from costmodel.schema.runtime import MemoryRules
from costmodel.state import StateBytes

PARTS = (
    "params",
    "grads",
    "optimizer",
    "gathered",
    "activations",
    "pending",
    "buffers",
    "logits",
    "working",
    "workspace",
)

HOST_SHARE = 0.9
"""Share of a node's memory, and of its drives, that offload may fill. Prior."""


@dataclass(frozen=True)
class MemoryColumns:
    """Bytes per rank, [n, S, ...]. ``parts`` [n, S, len(PARTS)] sum to ``allocated``.

    allocated: tensors. reserved: what the allocator holds for them. device: with context and communicators.
    claim: (reserved + communicators) / fragmentation, which is what a budget of memory is compared with: a byte that
    comes and goes counts as one, a byte that stays as 1 / fragmentation.
    apart: what a layer and the loss hold back from each other; part of reserved, not of allocated.
    """

    parts: Column
    allocated: Column
    claim: Column
    apart: Column
    reserved: Column
    device: Column
    host: Column
    nvme: Column
    fits_probability: Column


@dataclass(frozen=True)
class KeptMicrobatches:
    """Most micro-batches that a rank keeps, [n, S], in units of all of its layers of one copy: from F to the end of the
    backward, from input to weight gradient, and of the last stage from F to the start of the backward.
    """

    in_flight: Column
    waiting: Column
    unreached: Column


@dataclass(frozen=True)
class KeptBytes:
    """What micro-batches keep on a rank at its worst moment, [n, S] bytes: activations, what a split backward keeps
    beside them from input gradient to weight gradient, logits whose backward has not begun, activations on the host and
    on the node's drives.
    """

    activations: Column
    pending: Column
    logits: Column
    host: Column
    nvme: Column


@dataclass(frozen=True)
class HeldBytes:
    """What a rank's memory does not owe to how its state is split, [n, S] bytes: what micro-batches keep, the busiest
    layer's working memory beyond the logits whose place it takes, what the two hold back from each other, receive
    buffers, and what the host pins for its drives.
    """

    kept: KeptBytes
    working: Column
    apart: Column
    received: Column
    pinned: Column

    @property
    def claim_bytes(self) -> Column:
        """[n, S] part of the claim: all of it comes and goes."""
        kept = self.kept
        return kept.activations + kept.pending + kept.logits + self.received + self.working + self.apart

    @property
    def host_bytes(self) -> Column:
        return self.kept.host + self.pinned


def estimate_memory(
    setting: Setting,
    layouts: Layouts,
    assignment: Assignment,
    state: StateBytes,
    costs: LayerCosts,
    index: NDArray[np.intp],
    kept: KeptBytes | None = None,
) -> MemoryColumns:
    """State + activations in flight + what only lives while a layer or the loss runs.

    allocated = params + grads + optimizer + gathered + in-flight · saved + pending · (gradients at matmul outputs +
    recomputed tensors) + receive buffers + logits + working + workspace
    reserved = static + (allocated - static + apart) · fragmentation, with static = params + grads + optimizer +
    workspace, which leave no gaps in the allocator's blocks, and apart = held_apart · min(logits, the busiest layer's
    working memory)
    device = reserved + context + communicators
    ``kept``: what an order of passes keeps, counted; by default what its schedule's closed forms say.
    P(fits) = Phi((ln capacity - ln device) / sigma), sigma from the runtime's spread of both.
    """
    return sum_memory(setting, layouts, state, estimate_held(setting, layouts, assignment, costs, index, kept))


def estimate_held(
    setting: Setting,
    layouts: Layouts,
    assignment: Assignment,
    costs: LayerCosts,
    index: NDArray[np.intp],
    kept: KeptBytes | None = None,
) -> HeldBytes:
    """The part of ``estimate_memory`` that is the same however state is split."""
    kinds, axis = len(setting.model.kinds), assignment.counts.shape[3]
    if kept is None:
        counts = estimate_kept_microbatches(layouts, assignment.rank)
        kept = estimate_kept_bytes(setting, layouts, assignment, costs, index, counts)
    present = assignment.counts > 0

    def most(column: Column) -> Column:
        return np.asarray(np.where(present, column[index][:, None, :kinds, :axis], 0.0).max(axis=(2, 3)))

    busiest, logits = most(costs.working_bytes), kept.logits
    pinned = most(costs.pinned_bytes) if costs.uses_nvme else np.zeros_like(busiest)
    # The loss peaks before the first layer's backward needs its own working memory.
    # Parts of it that wait for a collective stay while layers run.
    stays = count_barriers(layouts)[:, None] > 0
    working = np.where(stays, busiest, np.maximum(busiest - logits, 0.0))
    apart = np.where(stays, 0.0, estimate_apart_bytes(setting, busiest, logits))
    return HeldBytes(kept, working, apart, estimate_receive_bytes(setting, layouts, assignment.rank), pinned)


def estimate_state_claim_bytes(setting: Setting, layouts: Layouts, state: StateBytes) -> Column:
    """[n, S] the part of the claim that ``HeldBytes.claim_bytes`` leaves."""
    static = state.params + state.grads + state.optimizer + setting.runtime.memory.workspace_bytes
    static = static + estimate_communicator_bytes(setting, layouts)[:, None]
    return estimate_claim_bytes(setting, static, state.gathered + state.buffers)


def sum_memory(setting: Setting, layouts: Layouts, state: StateBytes, held: HeldBytes) -> MemoryColumns:
    """``estimate_memory`` where what is held is at hand."""
    kept, rules = held.kept, setting.runtime.memory
    columns = (
        state.params,
        state.grads,
        state.optimizer,
        state.gathered + state.buffers,
        kept.activations,
        kept.pending,
        held.received,
        kept.logits,
        held.working,
        np.full_like(kept.logits, rules.workspace_bytes),
    )
    claim = estimate_state_claim_bytes(setting, layouts, state) + held.claim_bytes
    communicators = estimate_communicator_bytes(setting, layouts)[:, None]
    device = claim * rules.fragmentation + setting.device.context_bytes
    sigma = estimate_log_std(rules)
    margin = np.log(setting.device.memory_bytes / np.maximum(device, 1.0)) / max(sigma, 1e-9)
    host = state.host + held.host_bytes
    # What does not fit the host or its drives does not fit, however much room the device has.
    beside = fits_beside(setting, host, kept.nvme)
    return MemoryColumns(
        parts=np.stack(columns, axis=-1),
        allocated=reduce(np.add, columns),
        claim=claim,
        apart=held.apart,
        reserved=claim * rules.fragmentation - communicators,
        device=device,
        host=host,
        nvme=kept.nvme,
        fits_probability=np.where(beside, normal_cdf(margin), 0.0),
    )


def estimate_kept_bytes(
    setting: Setting,
    layouts: Layouts,
    assignment: Assignment,
    costs: LayerCosts,
    index: NDArray[np.intp],
    counts: KeptMicrobatches,
) -> KeptBytes:
    """Micro-batches kept times what one keeps; of several copies on a rank each micro-batch crosses one."""
    kinds, copies = len(setting.model.kinds), count_copies(layouts)[:, None]
    saved, host, nvme, pending = (
        getattr(costs, name)[index] for name in ("saved_bytes", "host_bytes", "nvme_bytes", "pending_bytes")
    )

    def one_microbatch(column: Column) -> Column:
        of_kinds = column[:, :kinds, : assignment.counts.shape[3]]
        return np.asarray(np.einsum("nskp,nkp->ns", assignment.counts, of_kinds) / copies)

    embedding = assignment.embedding * saved[:, kinds, 0][:, None]
    head = assignment.head * pending[:, kinds + 1, 0][:, None]
    return KeptBytes(
        activations=counts.in_flight * (one_microbatch(saved) + embedding),
        pending=counts.waiting * one_microbatch(pending) + head * counts.waiting,
        logits=assignment.head * saved[:, kinds + 1, 0][:, None] * counts.unreached,
        host=counts.in_flight * (one_microbatch(host) if host.any() else 0.0),
        nvme=counts.in_flight * (one_microbatch(nvme) if costs.uses_nvme else 0.0),
    )


def estimate_kept_microbatches(layouts: Layouts, rank: IntColumn) -> KeptMicrobatches:
    """By the schedules' closed forms. Logits die in the backward that follows at once, but where every forward comes
    first, or where parts of them wait for a collective.
    """
    least = np.where(count_barriers(layouts) > 0, np.minimum(layouts.num_microbatches, 2), 1)
    unreached = np.where(keeps_logits(layouts), layouts.num_microbatches, least)[:, None]
    return KeptMicrobatches(
        in_flight=estimate_in_flight(layouts, rank),
        waiting=estimate_pending(layouts, rank),
        unreached=np.broadcast_to(unreached.astype(np.float64), np.broadcast_shapes(rank.shape, unreached.shape)),
    )


def estimate_communicator_bytes(setting: Setting, layouts: Layouts) -> Column:
    """[n] buffers of a rank's communicators: one for each axis with more than one rank, and one for each kind of state
    that is split over ranks of its own.

    NCCL allocates a communicator's channels when it is first used; a group of one never is. Source: NCCL's
    documentation (NCCL_BUFFSIZE, NCCL_MAX_NCHANNELS).
    """
    axes = (layouts.tp, layouts.pp, layouts.dp * layouts.cp, layouts.cp_ring, layouts.cp_ulysses, layouts.ep)
    own = (layouts.shard_params, layouts.shard_grads, layouts.shard_optim, layouts.reshard_after_forward)
    number = np.sum([*(axis > 1 for axis in axes), *(group > 1 for group in own)], axis=0)
    return np.asarray(number * setting.runtime.memory.communicator_bytes)


def estimate_apart_bytes(setting: Setting, working: Column, logits: Column) -> Column:
    """held_apart · min(working, logits): what one of the two keeps reserved while the other is alive.

    max(working, logits) plus this is monotone in both.
    """
    return np.asarray(setting.runtime.memory.held_apart * np.minimum(working, logits))


def estimate_claim_bytes(setting: Setting, static: Column | float, dynamic: Column) -> Column:
    """static / fragmentation + dynamic: bytes as a budget of memory counts them (``claim_budget_bytes``).

    ``static``: parameters, gradients, optimizer state, workspace and communicators.
    """
    return static / setting.runtime.memory.fragmentation + dynamic


def host_budget_bytes(setting: Setting) -> float:
    """Host memory that one device's ranks may fill: its share of the node's, less what the system and loaders keep."""
    return HOST_SHARE * setting.host.memory_bytes / setting.devices_per_node


def nvme_budget_bytes(setting: Setting) -> float:
    """The same of the node's drives."""
    return HOST_SHARE * setting.host.nvme_bytes / setting.devices_per_node


def fits_beside(setting: Setting, host_bytes: Column, nvme_bytes: Column) -> BoolColumn:
    """Whether a rank's share of the host, and of its drives, holds what it offloads."""
    return np.asarray((host_bytes <= host_budget_bytes(setting)) & (nvme_bytes <= nvme_budget_bytes(setting)))


def estimate_log_std(rules: MemoryRules) -> float:
    """Spread of the logarithm of the device figure: the allocator's and the formula's own, independent."""
    return sqrt(rules.fragmentation_std**2 + rules.model_std**2)


def normal_cdf(value: Column) -> Column:
    """Phi(x) by the logistic-tanh form of Page (1977); absolute error below 2e-4, and 0 or 1 in the far tails."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.7988 * value * (1.0 + 0.04417 * value * value))))


def device_budget_bytes(setting: Setting, fit_probability: float) -> float:
    """The largest mean device figure for which P(fits) is at least ``fit_probability``."""
    sigma = estimate_log_std(setting.runtime.memory)
    low, high = -10.0, 10.0
    for _ in range(80):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if normal_cdf(np.asarray(middle)) < fit_probability else (low, middle)
    return setting.device.memory_bytes * float(np.exp(-high * sigma))


def claim_budget_bytes(setting: Setting, fit_probability: float) -> float:
    """The same for what is claimed: (device budget - context) / fragmentation."""
    budget = device_budget_bytes(setting, fit_probability) - setting.device.context_bytes
    return budget / setting.runtime.memory.fragmentation
