"""What micro-batches keep on a rank, and what runs beside them: memory that does not depend on how state is split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from costmodel.frozen import estimate_held_bytes
from costmodel.layers import LayerCosts
from costmodel.layouts import Assignment, Column, IntColumn, Layouts
from costmodel.ops import Setting
from costmodel.pipeline import (
    count_barriers,
    count_copies,
    estimate_in_flight,
    estimate_pending,
    estimate_receive_bytes,
    keeps_logits,
)


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
    buffers with what frozen parts take, and what the host pins for its drives.
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


def estimate_held(
    setting: Setting,
    layouts: Layouts,
    assignment: Assignment,
    costs: LayerCosts,
    index: NDArray[np.intp],
    kept: KeptBytes | None = None,
) -> HeldBytes:
    """What of memory is the same however state is split; ``kept``: as ``estimate_memory`` takes it."""
    kinds, axis = len(setting.model.kinds), assignment.counts.shape[3]
    if kept is None:
        counts = estimate_kept_microbatches(layouts, assignment.rank)
        kept = estimate_kept_bytes(setting, layouts, assignment, costs, index, counts)
    present = assignment.counts > 0

    def most(column: Column) -> Column:
        return np.asarray(np.where(present, column[:, None, :kinds, :axis].take(index, axis=0), 0.0).max(axis=(2, 3)))

    busiest, logits = most(costs.working_bytes), kept.logits
    pinned = most(costs.pinned_bytes) if costs.uses_nvme else np.zeros_like(busiest)
    # The loss peaks before the first layer's backward needs its own working memory.
    # Parts of it that wait for a collective stay while layers run.
    stays = count_barriers(layouts)[:, None] > 0
    working = np.where(stays, busiest, np.maximum(busiest - logits, 0.0))
    apart = np.where(stays, 0.0, estimate_apart_bytes(setting, busiest, logits))
    received = estimate_receive_bytes(setting, layouts, assignment.rank)
    if setting.model.frozen_parts:
        received = received + estimate_held_bytes(setting, layouts, assignment.rank)
    return HeldBytes(kept, working, apart, received, pinned)


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
    axis = assignment.counts.shape[3]

    def one_microbatch(column: Column) -> Column | float:
        of_kinds = column[:, :kinds, :axis]
        if not of_kinds.any():
            return 0.0
        return np.asarray(np.einsum("nskp,nkp->ns", assignment.counts, of_kinds.take(index, axis=0)) / copies)

    embedding = assignment.embedding * costs.saved_bytes[index, kinds, 0][:, None]
    head = assignment.head * costs.pending_bytes[index, kinds + 1, 0][:, None]
    return KeptBytes(
        activations=counts.in_flight * (one_microbatch(costs.saved_bytes) + embedding),
        pending=counts.waiting * (one_microbatch(costs.pending_bytes) + head),
        logits=assignment.head * costs.saved_bytes[index, kinds + 1, 0][:, None] * counts.unreached,
        host=counts.in_flight * one_microbatch(costs.host_bytes),
        nvme=counts.in_flight * one_microbatch(costs.nvme_bytes),
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


def estimate_apart_bytes(setting: Setting, working: Column, logits: Column) -> Column:
    """held_apart · min(working, logits): what one of the two keeps reserved while the other is alive.

    max(working, logits) plus this is monotone in both.
    """
    return np.asarray(setting.runtime.memory.held_apart * np.minimum(working, logits))
