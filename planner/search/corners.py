"""Which policies a bound has to look at: those that no mix of two others matches."""

from __future__ import annotations

import numpy as np

from costmodel.layer_table import PricedLayers
from costmodel.layouts import Column


def corner_policies(layers: PricedLayers, num_kinds: int, policies: tuple[int, ...]) -> tuple[int, ...]:
    """Of ``policies`` those that are left when each that others match is dropped, one after the other.

    Matched: for every kind and split some share of layers under one other policy and the rest under another take no
    longer, and keep and leave pending no more. What fits a rank's time and memory in fractions is the same without it.
    Leaves out: working memory, host and drives, which such bounds do not ration.
    """
    costs, used = layers.costs, np.unique(layers.index)
    columns = (costs.extra_s, costs.saved_bytes, costs.pending_bytes)
    cost = np.stack([column[used][:, :num_kinds] for column in columns]).reshape(3, -1, costs.num_policies)
    left = list(policies)
    # Where one other alone is no worse, no pairs need be tried.
    for pairs in (False, True):
        for policy in reversed(left):
            others = [other for other in left if other != policy]
            if others and _matched(cost[..., policy], cost[..., others], pairs).all():
                left.remove(policy)
    return tuple(left)


def _matched(own: Column, others: Column, pairs: bool) -> Column:
    """[u] whether mixes of ``others`` [3, u, O] are no worse than ``own`` [3, u] in all three costs."""
    if not pairs:
        return np.asarray((others <= own[..., None]).all(axis=0).any(axis=-1))
    first, second = others[..., :, None], others[..., None, :]
    difference, room = first - second, own[..., None, None] - second
    with np.errstate(divide="ignore", invalid="ignore"):
        bound = room / difference
    # share · first + (1 - share) · second <= own, cost by cost.
    least = np.where(difference < 0, bound, 0.0).max(axis=0)
    most = np.where(difference > 0, bound, 1.0).min(axis=0)
    possible = ((difference != 0) | (room >= 0)).all(axis=0)
    return np.asarray((possible & (np.maximum(least, 0.0) <= np.minimum(most, 1.0))).any(axis=(-2, -1)))
