"""How much of the optimizer's state goes to the host: shares between none and all, sized for each layout.

For one layout, of whose layers the share n_q follows policy q:

(1) variables   x in [0, 1]       share of the optimizer's state on the host
                n_q >= 0          shares of the layers, summing to 1
(2) objective   minimise          T(x) + sum_q t_q · n_q
(3) memory      for every rank    O · (1 - x) + sum_q a_q · n_q <= room

with T(x) the update's seconds after the backward (``costmodel/update.py``), convex and piecewise linear, and t_q a
policy's seconds. A best point is a corner: x is an end of a piece of T, or (3) binds and all layers follow one policy.
So the shares worth trying are 0 and 1, where host and device end their updates together, where gradients' way to the
host just hides, and for each policy the least share at which it fits alone. Layers are whole, so that a corner between
two policies is met but for one layer's bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from costmodel.even_split import uniform_assignment
from costmodel.layer_table import PricedLayers
from costmodel.layouts import Assignment, Column
from costmodel.memory import PARTS
from costmodel.price import PipelinePrices, price_memory, price_pipeline
from costmodel.update import UpdateRates, estimate_update_rates
from planner.constraints.rows import admits
from planner.problem import Problem
from planner.request import Request
from planner.search.space import Rows

STEPS = 1000
"""Shares are whole multiples of 1 / STEPS: those that must fit are rounded up."""

ROUNDING = 1e-3
"""Of a step: a share that is a multiple already is not to fail by a last bit."""


def shares_offload(request: Request) -> bool:
    """Whether shares between none and all are in the request's space, other than those that the user names."""
    runtime = request.runtime
    barred = "optimizer_offload" in request.fixed or "partial_optimizer_offload" in request.forbidden
    return runtime.optimizer_offload and runtime.partial_optimizer_offload and not barred


@dataclass(frozen=True)
class ShareSizes:
    """What shares are worth trying: for layouts under a request, within a budget of memory."""

    request: Request
    problem: Problem
    policies: tuple[int, ...]
    budget_bytes: float

    def of(self, layers: PricedLayers) -> tuple[Rows, Column]:
        """(row, share) of every share to try, for rows that have all of the optimizer on the host.

        Left out: rows that fit with none of it there and nothing recomputed. There the host could only take some of the
        update's milliseconds.
        """
        whole = np.flatnonzero(layers.layouts.optimizer_offload == 1.0)
        if not len(whole):
            return whole, np.zeros(0)
        some = layers.take(whole)
        some = replace(some, layouts=replace(some.layouts, optimizer_offload=np.zeros(len(whole))))
        first, *others = self.policies
        plain = self._needed(some, first)
        short = np.flatnonzero(plain > 0.0)
        whole, some = whole[short], some.take(short)
        needed = np.stack([plain[short], *(self._needed(some, policy) for policy in others)])
        can = np.flatnonzero((needed <= 1.0).any(axis=0))
        if not len(can):
            return can, np.zeros(0)
        whole, some, needed = whole[can], some.take(can), needed[:, can]
        ends = np.rint(np.stack(update_shares(some, price_pipeline(some, self._all(some, first)))) * STEPS) / STEPS
        tried = np.sort(np.concatenate([ends, needed]), axis=0)
        admitted = [share for share in np.unique(tried).tolist() if admits(self.request, "optimizer_offload", share)]
        once = np.concatenate([np.ones((1, len(whole)), bool), tried[1:] != tried[:-1]])
        rows, which = np.nonzero((once & (tried > 0.0) & (tried < 1.0) & np.isin(tried, admitted)).T)
        return whole[rows], tried[which, rows]

    def _all(self, layers: PricedLayers, policy: int) -> Assignment:
        """All layers of every row under one policy."""
        return uniform_assignment(self.problem.kinds, self.problem.num_kinds, layers.layouts, policy)

    def _needed(self, layers: PricedLayers, policy: int) -> Column:
        return least_shares(layers, self._all(layers, policy), self.budget_bytes)


def least_shares(layers: PricedLayers, assignment: Assignment, budget_bytes: float) -> Column:
    """[n] the least share of the optimizer's state on the host at which rows fit that were priced without, rounded up;
    0 where they fit as they are, more than 1 where they never do."""
    memory = price_memory(layers, assignment)
    # What stays counts as its bytes over the fragmentation (costmodel/memory.py).
    moved = memory.parts[..., PARTS.index("optimizer")] / layers.setting.runtime.memory.fragmentation
    over = np.where(assignment.multiplicity > 0, memory.claim - budget_bytes, -1.0)
    share = np.where(over > 0.0, over / np.maximum(moved, 1.0), 0.0).max(axis=1)
    return np.asarray(np.where(share > 0.0, np.ceil(np.minimum(share, 2.0) * STEPS + ROUNDING) / STEPS, 0.0))


def update_shares(layers: PricedLayers, pipeline: PipelinePrices) -> tuple[Column, Column]:
    """Two shares for each row, [n], of the rank with most to update: where host and device end their updates together,
    and at which the gradients' way to the host just hides behind the backward."""
    rates, backward_s = estimate_update_rates(layers.setting, layers.layouts, pipeline.params), pipeline.work.backward_s
    heaviest = rates.device_s.argmax(axis=1)[:, None]
    hidden = np.minimum(backward_s / np.maximum(rates.hidden * rates.grads_s, 1e-30), 1.0)
    together = best_share(rates, backward_s)
    return np.take_along_axis(together, heaviest, axis=1)[:, 0], np.take_along_axis(hidden, heaviest, axis=1)[:, 0]


def best_share(rates: UpdateRates, backward_s: Column) -> Column:
    """[n, S] the x that minimises T(x), the larger of what the host needs and U·(1 - x): where they meet."""
    hidden = rates.host_s + (1.0 - rates.hidden) * rates.grads_s
    short = rates.host_s + rates.grads_s
    meets = [
        (rates.device_s + less) / np.maximum(rates.device_s + slope, 1e-30)
        for slope, less in ((hidden, 0.0), (short, backward_s))
    ]
    return np.asarray(np.minimum(np.minimum(*meets), 1.0))
