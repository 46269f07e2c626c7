"""Admissible bounds: no placement of a layout can be faster, or smaller, than these say.

Everything the runtime may hide is taken as hidden, every layer runs under its cheapest policy, and where a bound
is of a sum over ranks, the worst rank is no better than the mean.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from costmodel.dataparallel import estimate_step_extras
from costmodel.layer_table import PricedLayers
from costmodel.layouts import Assignment, Column, IntColumn, Layouts
from costmodel.memory import estimate_claim_bytes, estimate_communicator_bytes
from costmodel.pipeline import (
    count_barriers,
    count_copies,
    count_crossings,
    estimate_in_flight,
    estimate_least_in_flight,
    splits_backward,
)
from costmodel.state import LocalParams, estimate_local_params, estimate_state_bytes

MAX_SHIFT = 6
"""How many layers a stage boundary may move from the even split, at most: where the space ends."""


def mean_rank(layers: PricedLayers, kinds: list[int], num_kinds: int, policy: int) -> Assignment:
    """One slot that holds the mean over ranks of all layers, fractions included, and neither end."""
    n = len(layers.layouts)
    counts = np.zeros((n, 1, num_kinds, layers.costs.num_policies))
    share = count_copies(layers.layouts) / layers.layouts.pp
    counts[:, 0, :, policy] = np.bincount(kinds, minlength=num_kinds) * share[:, None]
    neither = np.zeros((n, 1), bool)
    return Assignment(counts, _least_rank(layers.layouts), layers.layouts.pp[:, None], neither, neither)


def _least_rank(layouts: Layouts) -> IntColumn:
    """[n, 1] the rank that keeps least: forms fall or rise with the rank, or towards the middle."""
    ranks = np.stack([np.zeros_like(layouts.pp), layouts.pp // 2, layouts.pp - 1], axis=1)
    least = estimate_in_flight(layouts, ranks).argmin(axis=1)
    return np.take_along_axis(ranks, least[:, None], axis=1)


def estimate_kept_floor_bytes(
    layers: PricedLayers, kinds: list[int], num_kinds: int, policies: tuple[int, ...]
) -> Column:
    """[n] the activations' part of the memory floor, which does not depend on how state is split."""
    kept = layers.costs.saved_bytes[:, :num_kinds][:, :, list(policies)].min(axis=2)
    number = np.bincount(kinds, minlength=num_kinds)
    kept_at_once = least_in_flight(layers.layouts) * least_evenness(layers, len(kinds), num_kinds)
    return np.asarray(kept_at_once * (kept @ number)[layers.index] / layers.layouts.pp)


def mean_state_bytes(layers: PricedLayers, kinds: list[int], num_kinds: int, policies: tuple[int, ...]) -> Column:
    """[n] bytes that the mean rank claims before any activation, the two ends and what only lives for a while left
    out."""
    layouts = layers.layouts
    assignment = mean_rank(layers, kinds, num_kinds, policies[0])
    state = estimate_state_bytes(layers.setting, layouts, _mean_params(layers, assignment))
    static = (state.params + state.grads + state.optimizer)[:, 0] + layers.setting.runtime.memory.workspace_bytes
    static = static + estimate_communicator_bytes(layers.setting, layouts)
    return estimate_claim_bytes(layers.setting, static, state.gathered[:, 0])


def most_in_flight(layouts: Layouts) -> Column:
    """[n] micro-batches of all of a rank's layers of one copy that any rank keeps at most."""
    ranks = np.stack([np.zeros_like(layouts.pp), layouts.pp // 2, layouts.pp - 1], axis=1)
    return np.asarray(estimate_in_flight(layouts, ranks).max(axis=1))


def least_in_flight(layouts: Layouts) -> Column:
    """[n] micro-batches of all of a rank's layers of one copy that any rank keeps at least."""
    ranks = np.stack([np.zeros_like(layouts.pp), layouts.pp // 2, layouts.pp - 1], axis=1)
    return np.asarray(estimate_least_in_flight(layouts, ranks).min(axis=1))


def least_evenness(layers: PricedLayers, num_layers: int, num_kinds: int) -> Column:
    """[n] what a rank keeps at least, as a share of what it would were its stages equally long: shortest over longest.

    Were every stage as short as the shortest, each would still be alive as often.
    """
    layouts = layers.layouts
    stages = layouts.pp * layouts.vpp
    moved = ends_in_layers(layers, num_kinds).sum(axis=1) * layers.setting.runtime.uneven_stages
    shortest, longest = num_layers // stages - moved, -(-num_layers // stages) + moved
    return np.where(layouts.vpp * count_copies(layouts) > 1.0, np.maximum(shortest, 0.0) / longest, 1.0)


def _mean_params(layers: PricedLayers, assignment: Assignment) -> LocalParams:
    params = estimate_local_params(layers.setting, layers.layouts, assignment)
    # A gathered unit of a rank is never smaller than a fraction of one layer; the mean rank claims none.
    return replace(params, largest=np.zeros_like(params.largest))


def estimate_passes_floor_s(
    layers: PricedLayers, kinds: list[int], num_kinds: int, policies: tuple[int, ...]
) -> Column:
    """[n] seconds of all micro-batches through the pipeline at least, whatever becomes of the state.

    Let W be one micro-batch through all layers under their cheapest policies, w_r its part on rank r. A rank starts
    when the first micro-batch reaches it and its last gradient still has all earlier ranks to cross:
    T >= sum_{s<r} w_s + m·w_r for every r, so T >= W / (1 - (1 - 1/m)^p); with a split backward only forwards
    (share f) come before: T >= f·W / (1 - (1 - f/m)^p). Where a rank holds several stages T >= m·W/p and what reaching
    the mean rank takes, over chunks of the least size; with two copies a rank is reached from the nearer end.
    A rank's first gradient comes back after all forwards of a micro-batch and the gradients of later stages, when it
    has done no more forwards than it may keep alive: T >= F + I after it + m·w_r - alive·F_r, of the mean rank again.
    Parts of a split vocabulary lie on none of these ways: ``split_ends_s`` adds them. Frozen parts in the bubbles are
    work of the mean rank too.
    """
    layouts = layers.layouts
    m, p, v = (column.astype(np.float64) for column in (layouts.num_microbatches, layouts.pp, layouts.vpp))
    number = np.bincount(kinds, minlength=num_kinds).astype(np.float64)
    backward = layers.backward[:, :, list(policies)].min(axis=2)
    backward[:, num_kinds:] = layers.backward[:, num_kinds:, 0]
    part_s, between_s = split_ends_s(layers, num_kinds)
    ends = (count_barriers(layouts) == 0)[:, None]
    forward_s = layers.forward[:, :num_kinds] @ number + (ends * layers.forward[:, num_kinds:]).sum(axis=1)
    backward_s = backward[:, :num_kinds] @ number + (ends * backward[:, num_kinds:]).sum(axis=1)
    # Every boundary between ranks is crossed by an activation and by its gradient.
    work = forward_s + backward_s + 2.0 * count_crossings(layouts) * layers.busy_s
    both = layers.forward + backward
    # An end that does not exist takes no time and has no share.
    forward_share = np.where(both > 0, layers.forward / np.maximum(both, 1e-30), 1.0).min(axis=1)
    # Of what a rank before the last waits for its sends, at least half is in its forward.
    forward_share = np.where(layers.busy_s > 0, np.minimum(forward_share, 0.5), forward_share)
    share = np.where(splits_backward(layouts), forward_share, 1.0)
    filled = share * work / -np.expm1(p * np.log1p(-np.minimum(share / m, 1.0 - 1e-12)))
    # Stages that share a rank with an end give it no more layers than the ends weigh.
    given_away = ends_in_layers(layers, num_kinds).sum(axis=1) * layers.setting.runtime.uneven_stages
    smallest = np.maximum(np.floor(len(kinds) / (p * v)) - given_away, 0.0)
    per_layer = (layers.forward + backward)[:, :num_kinds].min(axis=1)
    per_layer = np.where(splits_backward(layouts), layers.forward[:, :num_kinds].min(axis=1), per_layer)
    copies = count_copies(layouts)
    before = np.where(copies > 1.0, 0.5 * p - 1.0, p - 1.0) / 2.0
    given = m * work / p + before * smallest * per_layer
    plain = np.maximum(filled + m * between_s, m * (work / p + part_s))
    pipeline = np.where((v > 1.0) | (copies > 1.0), given, plain)
    lightest = (backward - layers.weight_grad * splits_backward(layouts)[:, None])[:, :num_kinds]
    ahead = np.minimum(most_in_flight(layouts) * copies, m)
    trip = forward_s + before * np.maximum(smallest * lightest.min(axis=1), 0.0)
    round_trip = trip + count_crossings(layouts) * layers.edge_s + m * work / p - ahead * forward_s / p
    pipeline = np.maximum(pipeline, np.where(p > 1.0, round_trip, 0.0))
    if layers.setting.model.frozen_parts:
        work = work + layers.frozen.piece_s.sum(axis=1)
        pipeline = np.maximum(pipeline, m * (work / p + part_s))
    if layers.setting.shared_cores is not None:
        everywhere = m * (work + p * part_s) * layouts.world_size / p
        pipeline = np.maximum(pipeline, everywhere / layers.setting.shared_cores)
    return np.asarray(pipeline)


def split_ends_s(layers: PricedLayers, num_kinds: int) -> tuple[Column, Column]:
    """[n] seconds of each micro-batch in every rank's part of a split vocabulary: all of them, and those that lie
    between the rank's first forward and its last backward, the output layer's - with one barrier less the weight
    gradient, which may follow. 0 where the ends are whole.
    """
    barriers = count_barriers(layers.layouts)
    ends = layers.forward[:, num_kinds:] + layers.backward[:, num_kinds:, 0]
    between = ends[:, 1] - np.where(barriers == 1, layers.weight_grad[:, num_kinds + 1], 0.0)
    return np.where(barriers > 0, ends.sum(axis=1), 0.0), np.where(barriers > 0, between, 0.0)


def ends_in_layers(layers: PricedLayers, num_kinds: int) -> IntColumn:
    """[n, 2] what embedding and head weigh, in lightest layers, rounded; nothing where every rank has its part."""
    work = layers.forward + layers.backward[:, :, 0]
    lightest = np.maximum(work[:, :num_kinds].min(axis=1), 1e-30)
    weight = np.minimum(work[:, num_kinds:] / lightest[:, None], MAX_SHIFT)
    weight = weight * (count_barriers(layers.layouts) == 0)[:, None]
    return np.asarray(np.rint(weight).astype(np.int64))


def extras_floor_s(
    layers: PricedLayers, kinds: list[int], num_kinds: int, policies: tuple[int, ...], alike: IntColumn | None = None
) -> Column:
    """[n] seconds after the passes that no placement avoids: the mean rank's traffic and update, less the most that a
    rank with MAX_SHIFT layers more than its even share, each under its slowest policy, could hide.

    ``alike``: [n] equal where rows split their state alike over equal degrees and copies of the model.
    """
    assignment = mean_rank(layers, kinds, num_kinds, 0)
    params = estimate_local_params(layers.setting, layers.layouts, assignment)
    most = np.minimum(
        len(kinds) * count_copies(layers.layouts) / layers.layouts.pp + (layers.layouts.pp > 1) * (MAX_SHIFT + 1.0),
        len(kinds),
    )[:, None]
    backward = layers.backward[:, :, list(policies)].max(axis=2)
    forward_s = (most[:, 0] * layers.forward[:, :num_kinds].max(axis=1) + layers.forward[:, num_kinds:].sum(axis=1))[
        :, None
    ]
    backward_s = (most[:, 0] * backward[:, :num_kinds].max(axis=1) + layers.backward[:, num_kinds:, 0].sum(axis=1))[
        :, None
    ]
    extras = estimate_step_extras(
        layers.setting, layers.network, layers.layouts, params, assignment.rank, fewest_layers(layers, kinds),
        forward_s, backward_s, layers.frozen.ahead_s, alike, hiding_layers=most,
    )  # fmt: skip
    return np.asarray(extras.exposed_s[:, 0])


def fewest_layers(layers: PricedLayers, kinds: list[int], shift: float = 2.0 * MAX_SHIFT + 1.0) -> Column:
    """[n, 1] layers whose collectives a rank with the mean rank's parameters has at least, ends moved by ``shift``.

    Equal layers cost alike: where there is one kind the worst rank is no better than the mean. Where there are several
    the parameters may lie in a few large layers.
    """
    mean = len(kinds) * count_copies(layers.layouts) / layers.layouts.pp
    if len(set(kinds)) > 1:
        mean = np.where(layers.layouts.pp > 1, np.maximum(mean - shift, 1.0), mean)
    return np.asarray(mean)[:, None]


def placeable_worth(
    time_s: Column, budget_bytes: Column, layer_s: Column, layer_bytes: Column, worth: Column
) -> Column:
    """How much worth of layers fits a rank's time and memory at once, fractions allowed.

    max sum_q c_q y_q  subject to  sum_q t_q y_q <= time,  sum_q a_q y_q <= budget; two columns are enough for it.
    Shapes: time, budget [n, S]; layer_s, worth [n, 1, Q]; layer_bytes [n, S, Q].
    """
    time_s, budget_bytes = np.maximum(time_s, 0.0), np.maximum(budget_bytes, 0.0)
    best = np.zeros_like(time_s)
    for p in range(layer_s.shape[-1]):
        t, a, c = layer_s[..., p], layer_bytes[..., p], worth[..., p]
        best = np.maximum(best, c * np.minimum(time_s / t, budget_bytes / a))
        for q in range(p + 1, layer_s.shape[-1]):
            u, b, d = layer_s[..., q], layer_bytes[..., q], worth[..., q]
            determinant = t * b - u * a
            with np.errstate(invalid="ignore", divide="ignore"):
                first = (time_s * b - u * budget_bytes) / determinant
                second = (t * budget_bytes - time_s * a) / determinant
                mixed = np.where((first >= 0) & (second >= 0), c * first + d * second, 0.0)
            best = np.fmax(best, np.where(np.isfinite(mixed), mixed, 0.0))
    return best
