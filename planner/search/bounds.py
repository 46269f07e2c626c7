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
from costmodel.pipeline import INTERLEAVED, count_barriers, count_copies, estimate_in_flight, estimate_least_in_flight
from costmodel.state import LocalParams, estimate_local_params, estimate_state_bytes

ROUNDING = 1.0 + 1e-9
"""Beyond a limit, of time or memory, what sums in another order may come to: nothing so near it is ruled out."""

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


def end_ranks(layouts: Layouts) -> IntColumn:
    """[n, 3] the first rank, the one in the middle and the last: those that may keep most, or least."""
    return np.stack([np.zeros_like(layouts.pp), layouts.pp // 2, layouts.pp - 1], axis=1)


def _least_rank(layouts: Layouts) -> IntColumn:
    """[n, 1] the rank that keeps least: forms fall or rise with the rank, or towards the middle."""
    ranks = end_ranks(layouts)
    least = estimate_in_flight(layouts, ranks).argmin(axis=1)
    return np.take_along_axis(ranks, least[:, None], axis=1)


def kept_share(layers: PricedLayers, num_layers: int, num_kinds: int) -> Column:
    """[n] what the mean rank keeps at once at least, as a multiple of what a micro-batch keeps in all layers."""
    at_once = least_in_flight(layers.layouts) * least_evenness(layers, num_layers, num_kinds)
    return np.asarray(at_once / layers.layouts.pp)


def mean_state_bytes(layers: PricedLayers, kinds: list[int], num_kinds: int, policies: tuple[int, ...]) -> Column:
    """[n] bytes that the mean rank claims before any activation, the two ends and what only lives for a while left
    out."""
    layouts = layers.layouts
    assignment = mean_rank(layers, kinds, num_kinds, policies[0])
    state = estimate_state_bytes(layers.setting, layouts, _mean_params(layers, assignment))
    static = (state.params + state.grads + state.optimizer)[:, 0] + layers.setting.runtime.memory.workspace_bytes
    static = static + estimate_communicator_bytes(layers.setting, layouts)
    return estimate_claim_bytes(layers.setting, static, state.gathered[:, 0])


def least_in_flight(layouts: Layouts) -> Column:
    """[n] micro-batches of all of a rank's layers of one copy that any rank keeps at least."""
    return np.asarray(estimate_least_in_flight(layouts, end_ranks(layouts)).min(axis=1))


def least_evenness(layers: PricedLayers, num_layers: int, num_kinds: int) -> Column:
    """[n] what a rank keeps at least, as a share of what it would were its stages equally long: shortest over longest.

    Were every stage as short as the shortest, each would still be alive as often. Interleaved, the last rank keeps
    least: a whole round of all chunks but the last, of which it keeps one micro-batch - the longest, at worst.
    """
    layouts = layers.layouts
    stages = layouts.pp * layouts.vpp
    moved = ends_in_layers(layers, num_kinds).sum(axis=1) * layers.setting.runtime.uneven_stages
    shortest, longest = np.maximum(num_layers // stages - moved, 0.0), -(-num_layers // stages) + moved
    ahead, after = _first_round(layouts), layouts.vpp - 1.0
    weighed = (ahead * after * shortest + longest) / (after * shortest + longest)
    interleaved = weighed / ((ahead * after + 1.0) / layouts.vpp)
    evenness = np.where(layouts.schedule == INTERLEAVED, interleaved, shortest / longest)
    return np.asarray(np.where(layouts.vpp * count_copies(layouts) > 1.0, evenness, 1.0))


def interleaved_alive(layouts: Layouts, rank: IntColumn) -> Column:
    """[n, S, v] micro-batches of every chunk that ranks [S] keep after their warm-up and a forward more, under
    interleaved 1F1B of v chunks; the schedule as ``planner/schedules/interleaved.py`` builds it."""
    m, p, v = (column.astype(np.float64)[:, None] for column in (layouts.num_microbatches, layouts.pp, layouts.vpp))
    size, chunk = _first_round(layouts)[:, None], np.arange(int(layouts.vpp[0]))
    forwards = np.minimum(m * v, 2.0 * (p - rank - 1.0) + (v - 1.0) * size + 1.0)
    alive = np.clip(forwards[:, :, None] - chunk * size[:, :, None], 0.0, size[:, :, None])
    alive[:, :, 0] += np.maximum(forwards - v * size, 0.0)
    return alive


def _first_round(layouts: Layouts) -> Column:
    """[n] micro-batches of an interleaved schedule's first round."""
    return np.asarray(np.ceil(layouts.num_microbatches / np.maximum(layouts.num_microbatches // layouts.pp, 1)))


def _mean_params(layers: PricedLayers, assignment: Assignment) -> LocalParams:
    params = estimate_local_params(layers.setting, layers.layouts, assignment)
    # A gathered unit of a rank is never smaller than a fraction of one layer; the mean rank claims none.
    return replace(params, largest=np.zeros_like(params.largest))


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


def most_shift(layers: PricedLayers, num_kinds: int) -> Column:
    """[n] layers by which stages of one rank each, and boundaries between them, may differ from the even split: what
    the heavier end weighs in lightest layers, and one more; 0 where the runtime's stages are even."""
    work = layers.forward + layers.backward[:, :, 0]
    lightest = np.maximum(work[:, :num_kinds].min(axis=1), 1e-12)
    shift = np.minimum(np.ceil(work[:, num_kinds:].max(axis=1) / lightest) + 1.0, MAX_SHIFT)
    return np.asarray(shift * layers.setting.runtime.uneven_stages)


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
