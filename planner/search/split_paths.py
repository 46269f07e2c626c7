"""What a tight bound knows of micro-batches that come back by input gradients alone, or that are few.

A micro-batch goes through all stages and back, however few there are of it: F there, and back B, or I where the
backward is split. Where it is, and a rank holds one stage, these paths through stage s follow, as in ``stage_problem``:

    round trip        T >= sum_r F_r + sum_{r>s} I_r + 2 D - d_s + m B_s + (m - a_s) F_s
    all forwards      T >= sum_r (F_r + I_r) + 2 D + (m - 1) F_s + W_0
    all but weights   T >= sum_{r<s} (F_r + I_r) + 2 d_s + m (F_s + I_s) + W_0,  s > 0

Of a stage's seconds t = F_s + B_s the forward takes a share between two, and the weight gradient no more than a third.
"""

from __future__ import annotations

import numpy as np

from costmodel.layer_table import PricedLayers
from costmodel.layouts import Column, IntColumn, Layouts
from costmodel.pipeline import ZB_H1, count_crossings, estimate_in_flight, splits_backward
from planner.problem import Problem
from planner.search.bounds import ROUNDING


class WayBack:
    """[n, K + 2] seconds of a layer, of the embedding and of the head: ``forward_s``, and of the backward ``back_s``
    that a micro-batch's way back waits for and ``weight_s`` that it does not. ``through_s``: [n] there and back.

    Parts of a split vocabulary are passes of their own, and count nothing here.
    """

    def __init__(self, problem: Problem, layers: PricedLayers, policies: tuple[int, ...]) -> None:
        kinds, layouts = problem.num_kinds, layers.layouts
        whole = np.arange(kinds + 2) < (kinds + 2 if int(layouts.vocab_over[0]) == 1 else kinds)
        backward = layers.backward[:, :, list(policies)].min(axis=2)
        backward[:, kinds:] = layers.backward[:, kinds:, 0]
        self.forward_s = layers.forward * whole
        self.weight_s = np.where(splits_backward(layouts)[:, None], layers.weight_grad, 0.0) * whole
        self.back_s = np.maximum(backward * whole - self.weight_s, 0.0)
        number = np.append(np.bincount(problem.kinds, minlength=kinds), (1, 1)).astype(np.float64)
        self.all_forward_s = self.forward_s @ number
        self.hop_s = layers.edge_s + layers.busy_s
        # The first stage ends with its weight gradient, of the embedding at least.
        ends_s = self.weight_s[:, kinds] + 2.0 * count_crossings(layouts) * self.hop_s
        self.through_s = self.all_forward_s + self.back_s @ number + ends_s


class SplitPaths:
    """The three paths, of rows of one stage a rank; whatever their backward. ``start``, ``stop``: [n, pp] the first
    layer with which a stage may begin, and the last before which it may end."""

    def __init__(
        self, problem: Problem, layers: PricedLayers, policies: tuple[int, ...], way: WayBack,
        start: IntColumn, stop: IntColumn,
    ) -> None:  # fmt: skip
        layouts, kinds = layers.layouts, problem.num_kinds
        pp, self.split = start.shape[1], splits_backward(layouts)[:, None]
        rank, hop_s = np.arange(pp), way.hop_s[:, None]
        embedding, head = ((slice(None), slice(at, at + 1)) for at in (kinds, kinds + 1))
        both_s = way.forward_s + way.back_s
        before_s = _sums(both_s[:, problem.kinds])
        after_s = _sums(way.back_s[:, problem.kinds][:, ::-1])[:, ::-1]
        self.m, self.busy_s = layouts.num_microbatches.astype(np.float64)[:, None], layers.busy_s[:, None]
        # W_0, beside the embedding's: of the layers that the second stage may not begin with.
        first_s = np.take_along_axis(_sums(way.weight_s[:, problem.kinds]), start[:, 1:2], axis=1)
        self.through_s = way.through_s[:, None] + first_s
        self.around_s = (
            way.all_forward_s[:, None]
            + np.take_along_axis(after_s, stop, axis=1)
            + (rank < pp - 1) * way.back_s[head]
            + (2 * (pp - 1) - rank) * hop_s
        )
        self.there_s = (
            np.take_along_axis(before_s, start, axis=1)
            + (rank > 0) * ((both_s + way.weight_s)[embedding] + first_s)
            + 2 * rank * layers.edge_s[:, None]
            # What the stage waits for its own send back is its own.
            + np.maximum(2 * rank - 1, 0) * self.busy_s
        )
        self.ahead = most_ahead(layouts, rank[None, :])
        all_s = layers.forward[:, :, None] + layers.backward[:, :, list(policies)]
        all_s[:, kinds:] = (layers.forward + layers.backward[..., 0])[:, kinds:, None]
        all_s = np.maximum(all_s, 1e-30)
        forward_shares = layers.forward[:, :, None] / all_s
        self.most_forward = forward_shares.max(axis=(1, 2))[:, None]
        self.least_forward = forward_shares.min(axis=(1, 2))[:, None]
        self.most_weight = (layers.weight_grad[:, :, None] / all_s).max(axis=(1, 2))[:, None]

    def most_s(self, makespan_s: Column) -> Column:
        """[n, pp] seconds that a micro-batch may take on each stage, what it waits for its sends included, for
        ``makespan_s`` [n, 1]; inf where the backward is whole.

        What a stage waits for one send each way is no part of the shares.
        """
        makespan_s = makespan_s * ROUNDING
        trip_s = makespan_s - self.around_s + self.ahead * self.busy_s
        round_trip_s = trip_s / np.maximum(self.m - self.ahead * self.most_forward, 1e-9)
        forwards = np.maximum((self.m - 1.0) * self.least_forward, 1e-9)
        forwards_s = (makespan_s - self.through_s) / forwards + 2.0 * self.busy_s
        there_s = (makespan_s - self.there_s) / (self.m * np.maximum(1.0 - self.most_weight, 1e-9))
        there_s[:, 0] = np.inf
        return np.where(self.split, np.minimum(np.minimum(round_trip_s, forwards_s), there_s), np.inf)


def most_ahead(layouts: Layouts, rank: IntColumn) -> Column:
    """[n, S] forwards of a rank of one stage before its first backward, at most: all of them are in flight then, and
    under zb-h1 no micro-batch but those of 1F1B."""
    in_flight = np.where(
        layouts.schedule[:, None] == ZB_H1, layouts.pp[:, None] - rank, estimate_in_flight(layouts, rank)
    )
    return np.asarray(np.minimum(layouts.num_microbatches[:, None], in_flight))


def _sums(columns: Column) -> Column:
    """[n, L + 1] sums of the first 0, 1, ... L of [n, L]."""
    return np.concatenate([np.zeros((len(columns), 1)), np.cumsum(columns, axis=1)], axis=1)
