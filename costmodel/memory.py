"""Memory of every pipeline rank at its worst moment, in three figures that are never mixed, and P(fits)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from costmodel.kept import HeldBytes, KeptBytes, estimate_held
from costmodel.layers import LayerCosts
from costmodel.layouts import Assignment, BoolColumn, Column, Layouts
from costmodel.ops import Setting
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
