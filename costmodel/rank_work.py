"""One micro-batch on each pipeline rank: seconds of the passes over all of its layers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from costmodel.layer_table import PricedLayers
from costmodel.layouts import Assignment, Column
from costmodel.pipeline import count_copies, count_sends


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
    kinds, axis = assignment.counts.shape[2:]
    copies = count_copies(layers.layouts)[:, None]
    counts = assignment.counts.sum(axis=3)
    embedding, head = assignment.embedding, assignment.head

    def ends(column: Column) -> Column:
        return embedding * column[:, kinds][:, None] + head * column[:, kinds + 1][:, None]

    activations, gradients = count_sends(layers.layouts, assignment.rank)
    forward_s = np.einsum("nsk,nk->ns", counts, layers.forward[:, :kinds]) + ends(layers.forward)
    backward = layers.costs.backward[:, :, :axis].take(layers.index, axis=0)
    backward_s = np.einsum("nskp,nkp->ns", assignment.counts, backward[:, :kinds])
    weight_grad_s = np.einsum("nsk,nk->ns", counts, layers.weight_grad[:, :kinds]) + ends(layers.weight_grad)
    return RankWork(
        forward_s=forward_s / copies,
        backward_s=(backward_s + ends(backward[..., 0])) / copies,
        weight_grad_s=weight_grad_s / copies,
        sent_forward_s=activations * layers.busy_s[:, None],
        sent_backward_s=gradients * layers.busy_s[:, None],
    )


def mean_busy_s(layers: PricedLayers, assignment: Assignment, work: RankWork) -> Column:
    """[n] seconds that the mean rank is busy in the passes of a step, frozen parts in its bubbles among them."""
    passes_s = (work.forward_pass_s + work.backward_pass_s) * assignment.multiplicity
    one_microbatch_s = passes_s.sum(axis=1) + layers.frozen.piece_s.sum(axis=1)
    return np.asarray(one_microbatch_s * layers.layouts.num_microbatches / layers.layouts.pp)


def share_cores(layers: PricedLayers, assignment: Assignment, work: RankWork, makespan_s: Column) -> Column:
    """Ranks that share cores finish no sooner than all their work divided by the cores."""
    if layers.setting.shared_cores is None:
        return makespan_s
    all_work = mean_busy_s(layers, assignment, work) * layers.layouts.world_size
    return np.asarray(np.maximum(makespan_s, all_work / layers.setting.shared_cores))
