"""How soon all micro-batches can be through the pipeline, by the memory that a layout leaves for activations.

Let B be the backward seconds of one micro-batch in all layers, recomputation and the like included. Every bound on the
passes is a straight line that rises with B. Over all mixes of policies, fractions of layers included, the least B
within some kept bytes A is

    B(A) = max over l >= 0 of  sum_k n_k · min_p (b_kp + l · a_kp) - l · A,

the dual of a linear program with one constraint: lines again, one for every l at which two policies of a kind weigh
the same. So it is cheap to go both ways: from the room that a layout leaves to its floor, and from a time to beat to
the least room at which it can be met.

Source: Everett 1963, "Generalized Lagrange Multiplier Method for Solving Problems of Optimum Allocation of Resources"
(the dual bounds any mix).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from costmodel.layer_table import PricedLayers
from costmodel.layouts import Column, Layouts
from costmodel.pipeline import (
    count_barriers,
    count_copies,
    count_crossings,
    estimate_in_flight,
    splits_backward,
)
from planner.search.bounds import (
    end_ranks,
    ends_in_layers,
    kept_share,
    most_shift,
    split_ends_s,
)
from planner.search.corners import corner_policies

AMPLE_BYTES = 1e30
"""More than all layers keep, and still finite."""


@dataclass(frozen=True)
class Lines:
    """y >= at + slope · x for every one of L lines, [n, L] each."""

    at: Column
    slope: Column

    def take(self, rows: NDArray[np.intp]) -> Lines:
        return Lines(self.at[rows], self.slope[rows])

    def least(self, x: Column) -> Column:
        """[n] the least y that no line forbids at x, [n]."""
        return np.asarray((self.at + self.slope * x[:, None]).max(axis=1))


@dataclass(frozen=True)
class PassesFloor:
    """``of_backward``: [n, L] seconds of all passes, by B. ``of_kept``: [u, L'] B of each row of layer costs, by A;
    ``least_kept_bytes``: [u] the smallest A. ``share``: [n] how many times A / ranks the mean rank keeps at once at
    least. ``index``: [n] each row's layer costs.
    """

    of_backward: Lines
    of_kept: Lines
    least_kept_bytes: Column
    share: Column
    index: NDArray[np.intp]

    @classmethod
    def constant(cls, floor_s: Column) -> PassesFloor:
        """Of rows of which nothing is known but ``floor_s``, [n]."""
        none, index = np.zeros((1, 1)), np.zeros(len(floor_s), np.intp)
        of_backward = Lines(floor_s[:, None], np.zeros((len(floor_s), 1)))
        return cls(of_backward, Lines(none, none), none[0], np.zeros(len(floor_s)), index)

    def take(self, rows: NDArray[np.intp]) -> PassesFloor:
        return replace(self, of_backward=self.of_backward.take(rows), share=self.share[rows], index=self.index[rows])

    @property
    def least_room_bytes(self) -> Column:
        """[n] bytes of activations that the mean rank keeps at least."""
        return np.asarray(self.share * self.least_kept_bytes[self.index])

    def floor_s(self, room_bytes: Column | float = AMPLE_BYTES) -> Column:
        """[n] seconds of all passes at least, with ``room_bytes`` for activations on the mean rank."""
        kept = np.clip(room_bytes / np.maximum(self.share, 1.0 / AMPLE_BYTES), -AMPLE_BYTES, AMPLE_BYTES)
        return self.of_backward.least(self.of_kept.take(self.index).least(kept))

    def needed_bytes(self, limit_s: Column) -> Column:
        """[n] the least room at which the floor comes down to ``limit_s``, [n]; inf where it never does."""
        limit_s, lines, of_kept = limit_s[:, None], self.of_backward, self.of_kept.take(self.index)
        with np.errstate(divide="ignore", invalid="ignore"):
            met = np.where(limit_s >= lines.at, np.inf, -np.inf)
            most_s = np.where(lines.slope > 0.0, (limit_s - lines.at) / lines.slope, met).min(axis=1)[:, None]
            met = np.where(most_s >= of_kept.at, 0.0, np.inf)
            kept = np.where(of_kept.slope < 0.0, (most_s - of_kept.at) / of_kept.slope, met).max(axis=1)
            needed = self.share * np.maximum(kept, self.least_kept_bytes[self.index])
        return np.where(kept < np.inf, needed, np.inf)


def passes_floor(layers: PricedLayers, kinds: list[int], num_kinds: int, policies: tuple[int, ...]) -> PassesFloor:
    """The floor of all micro-batches through the pipeline, whatever becomes of the state.

    Let W be one micro-batch through all layers, w_r its part on rank r. A rank starts when the first micro-batch
    reaches it and its last gradient still has all earlier ranks to cross: T >= sum_{s<r} w_s + m·w_r for every r, so
    T >= W / (1 - (1 - 1/m)^p); with a split backward only forwards come before: T >= f·W / (1 - (1 - f/m)^p), f the
    share of forwards under the slowest policies, or under the cheapest where W is the least. Where a rank holds several
    stages T >= m·W/p and what reaching the mean rank takes, over chunks of the least size; with two copies a rank is
    reached from the nearer end. A rank's first gradient comes back after all forwards of a micro-batch and the
    gradients of later stages, when it has done no more forwards than it may keep alive: T >= F + I after it + m·w_r -
    alive·F_r, of the mean rank again. Parts of a split vocabulary lie on none of these ways: ``split_ends_s`` adds
    them. Frozen parts in the bubbles are work of the mean rank too. Some rank holds the heaviest layer: most of
    a stage where stages are about as many as layers.
    """
    layouts = layers.layouts
    table = _CostFloors(layers, kinds, num_kinds, corner_policies(layers, num_kinds, policies))
    m, p, v = (column.astype(np.float64) for column in (layouts.num_microbatches, layouts.pp, layouts.vpp))
    part_s, between_s = split_ends_s(layers, num_kinds)
    split, copies, whole_ends = splits_backward(layouts), count_copies(layouts), count_barriers(layouts) == 0
    plain = (v == 1.0) & (copies == 1.0)
    # Every boundary between ranks is crossed by an activation and by its gradient.
    sends_s = 2.0 * count_crossings(layouts) * layers.busy_s
    ends_forward_s, ends_backward_s = (whole_ends * ends[layers.index] for ends in table.ends_s)
    forward_s = table.forward_s[layers.index] + ends_forward_s
    beside_s = forward_s + ends_backward_s + sends_s

    def filled(share: Column) -> Column:
        """[n] T / W, with ``share`` [u] of forwards."""
        # Of what a rank before the last waits for its sends, at least half is in its forward.
        of_row = np.where(layers.busy_s > 0, np.minimum(share[layers.index], 0.5), share[layers.index])
        f = np.where(split, of_row, 1.0)
        return np.where(plain, f / -np.expm1(p * np.log1p(-np.minimum(f / m, 1.0 - 1e-12))), 0.0)

    # Stages that share a rank with an end give it no more layers than the ends weigh. Where boundaries are free, each
    # may leave so many layers fewer to the ranks after it: to the mean rank's p - 1 of p times as many.
    given_away = ends_in_layers(layers, num_kinds).sum(axis=1) * layers.setting.runtime.uneven_stages
    moved = most_shift(layers, num_kinds) * whole_ends * 2.0 / p
    smallest = np.maximum(np.floor(len(kinds) / (p * v)) - np.where(plain, moved, given_away), 0.0)
    per_layer = np.where(split, *(column[layers.index] for column in (table.layer_forward_s, table.layer_s)))
    before = np.where(copies > 1.0, 0.5 * p - 1.0, p - 1.0) / 2.0
    reach_s = np.where(plain, m * part_s, before * smallest * per_layer)
    lightest = np.where(split, *(column[layers.index] for column in (table.input_grad_s, table.layer_backward_s)))
    ahead = np.minimum(most_in_flight(layouts) * copies, m)
    trip_s = forward_s + before * np.maximum(smallest * lightest, 0.0)
    trip_s = trip_s + count_crossings(layouts) * layers.edge_s - ahead * forward_s / p
    between_s = m * between_s * plain
    least_s = filled(table.most_forward_share) * (beside_s + table.backward_s[layers.index]) + between_s
    lines = [
        (np.where(p > 1.0, np.maximum(reach_s, trip_s), reach_s), m / p),
        (between_s, filled(table.least_forward_share)),
        (least_s, np.zeros_like(m)),
        (m / copies * table.heaviest_s[layers.index], np.zeros_like(m)),
    ]
    frozen_s = np.zeros_like(m)
    if layers.setting.model.frozen_parts:
        frozen_s = layers.frozen.piece_s.sum(axis=1)
        lines.append((m * (frozen_s / p + part_s), m / p))
    if layers.setting.shared_cores is not None:
        ranks_per_core = layouts.world_size / p / layers.setting.shared_cores
        lines.append((m * (frozen_s + p * part_s) * ranks_per_core, m * ranks_per_core))
    at, slope = (np.stack(columns, axis=1) for columns in zip(*lines, strict=True))
    return PassesFloor(
        Lines(at + slope * beside_s[:, None], slope),
        table.of_kept,
        table.least_kept_bytes,
        kept_share(layers, len(kinds), num_kinds),
        layers.index,
    )


class _CostFloors:
    """What the floor needs of every row of layer costs, [u]: ``forward_s`` and ``backward_s`` (the least) of all
    layers, ``ends_s`` of both ends there and back; of the lightest layer ``layer_s``, ``layer_forward_s``,
    ``layer_backward_s``, ``input_grad_s``; ``heaviest_s`` of the heaviest; shares of forwards in a rank's time; B by A.
    """

    def __init__(self, layers: PricedLayers, kinds: list[int], num_kinds: int, policies: tuple[int, ...]) -> None:
        costs, number = layers.costs, np.bincount(kinds, minlength=num_kinds).astype(np.float64)
        forward, end_backward = costs.forward[:, :num_kinds], costs.backward[:, num_kinds:, 0]
        backward, saved = (
            column[:, :num_kinds][:, :, list(policies)] for column in (costs.backward, costs.saved_bytes)
        )
        least = backward.min(axis=2)
        self.forward_s, self.backward_s = forward @ number, least @ number
        self.ends_s = costs.forward[:, num_kinds:].sum(axis=1), end_backward.sum(axis=1)
        self.layer_s, self.layer_forward_s = (forward + least).min(axis=1), forward.min(axis=1)
        self.heaviest_s = ((forward + least) * (number > 0.0)).max(axis=1)
        self.layer_backward_s = least.min(axis=1)
        self.input_grad_s = (least - costs.weight_grad_s[:, :num_kinds]).min(axis=1)
        self.most_forward_share, self.least_forward_share = (
            _forward_share(costs.forward, np.concatenate([of_layers, end_backward], axis=1))
            for of_layers in (least, backward.max(axis=2))
        )
        prices = [np.zeros(len(saved))]
        for kind in range(num_kinds):
            for one, other in combinations(range(len(policies)), 2):
                less = saved[:, kind, one] - saved[:, kind, other]
                longer = backward[:, kind, other] - backward[:, kind, one]
                prices.append(np.where(less * longer > 0.0, longer / np.where(less == 0.0, 1.0, less), 0.0))
        price = np.stack(prices, axis=1)
        weighed = (backward[:, None] + price[:, :, None, None] * saved[:, None]).min(axis=3)
        self.of_kept, self.least_kept_bytes = Lines(weighed @ number, -price), saved.min(axis=2) @ number


def _forward_share(forward: Column, backward: Column) -> Column:
    """[u] the least share of forward in the time of any layer or end; ``forward``, ``backward`` [u, J]."""
    both = forward + backward
    # An end that does not exist takes no time and has no share.
    return np.asarray(np.where(both > 0, forward / np.maximum(both, 1e-30), 1.0).min(axis=1))


def most_in_flight(layouts: Layouts) -> Column:
    """[n] micro-batches of all of a rank's layers of one copy that any rank keeps at most."""
    return np.asarray(estimate_in_flight(layouts, end_ranks(layouts)).max(axis=1))
