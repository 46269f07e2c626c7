"""Mixes of policies for equal layers, by what they cost: the compositions, and of them those that no other beats.

A cost is a row of (seconds, bytes kept on the device, and bytes of every other resource that is short).
"""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations
from math import comb
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from costmodel.layouts import Column

MAX_COMPOSITIONS = 20_000
"""Mixes of one kind's layers tried in full, at most; beyond it those of three policies, or of two."""


class Front(NamedTuple):
    """Mixes [q, K, P] that no other beats in all of their costs [q, C], by ascending seconds."""

    mixes: Column
    cost: Column


class Fit(NamedTuple):
    """A mix [K, P] and its cost [C]."""

    mix: Column
    cost: Column


def front_of(kind: int, count: int, policies: tuple[int, ...], cost: Column, num_kinds: int) -> Front:
    """Of ``count`` layers of one kind under ``policies``; ``cost``: [P, C] of one layer under each."""
    compositions = list_compositions(count, len(policies))
    total = compositions @ cost[list(policies)]
    keep = undominated_rows(total)
    mixes = np.zeros((len(keep), num_kinds, len(cost)))
    mixes[:, kind, list(policies)] = compositions[keep]
    return Front(mixes, total[keep])


def first_fit(fronts: list[Front], room: Column, shape: tuple[int, int]) -> Fit | None:
    """The fastest sum of one mix from each front whose costs but seconds stay within ``room`` [C - 1]."""
    if not fronts:
        return Fit(np.zeros(shape), np.zeros(1 + len(room)))
    leanest = np.sum([front.cost[:, 1:].min(axis=0) for front in fronts], axis=0)
    if np.any(leanest > room):
        return None
    *others, last = fronts
    some = others[0] if others else Front(np.zeros((1, *shape)), np.zeros((1, last.cost.shape[1])))
    for front in others[1:]:
        some = _summed(some, front)
    if len(room) == 1:
        # Along the last front seconds rise and bytes fall: the first that fits beside one of the others is its fastest.
        first = np.searchsorted(-last.cost[:, 1], some.cost[:, 1] - room[0])
        fits = first < len(last.cost)
    else:
        inside = (some.cost[:, None, 1:] + last.cost[None, :, 1:] <= room).all(axis=2)
        first, fits = np.argmax(inside, axis=1), np.any(inside, axis=1)
    if not fits.any():
        return None
    first = np.minimum(first, len(last.cost) - 1)
    pick = int(np.where(fits, some.cost[:, 0] + last.cost[first, 0], np.inf).argmin())
    return Fit(some.mixes[pick] + last.mixes[first[pick]], some.cost[pick] + last.cost[first[pick]])


def _summed(left: Front, right: Front) -> Front:
    """The front of all sums."""
    cost = (left.cost[:, None] + right.cost[None]).reshape(-1, left.cost.shape[1])
    keep = undominated_rows(cost)
    one, other = np.divmod(keep, len(right.cost))
    return Front(left.mixes[one] + right.mixes[other], cost[keep])


def undominated(policies: tuple[int, ...], cost: Column) -> tuple[int, ...]:
    """Policies that no other beats in all costs; of equal ones the first."""
    number, own = np.array(policies), cost[list(policies)]
    no_worse = (own[:, None] <= own).all(axis=2)
    beats = no_worse & ((own[:, None] < own).any(axis=2) | (number[:, None] < number))
    return tuple(number[~beats.any(axis=0)].tolist())


def undominated_rows(cost: Column) -> NDArray[np.intp]:
    """Indices of the rows of [q, C] that no other beats, by ascending first column."""
    order = np.lexsort(cost.T[::-1])
    if cost.shape[1] == 2:
        least = np.minimum.accumulate(cost[order, 1])
        return np.asarray(order[np.concatenate([[True], cost[order[1:], 1] < least[:-1]])])
    kept, others = [], [np.ascontiguousarray(column) for column in cost[order, 1:].T]
    while len(order):
        # In lexical order the first of what is left is beaten by none of it, and beats all that save nothing elsewhere.
        kept.append(order[0])
        left = np.logical_or.reduce([column < column[0] for column in others])
        order, others = order[left], [column[left] for column in others]
    return np.array(kept, np.intp)


def count_compositions(count: int, parts: int) -> int:
    """Ways to give ``count`` equal layers to so many policies."""
    return comb(count + parts - 1, parts - 1)


@lru_cache(maxsize=1024)
def list_compositions(count: int, parts: int) -> Column:
    """[q, parts] all ways to give ``count`` equal layers to policies; of three or two policies where that is too many.

    q = C(count + parts - 1, parts - 1).
    """
    if parts == 1 or count_compositions(count, parts) <= MAX_COMPOSITIONS:
        return _all_compositions(count, parts)
    few = 3 if comb(parts, 3) * comb(count + 2, 2) <= MAX_COMPOSITIONS else 2
    rows = []
    for chosen in combinations(range(parts), few):
        table = np.zeros((comb(count + few - 1, few - 1), parts))
        table[:, list(chosen)] = _all_compositions(count, few)
        rows.append(table)
    return np.concatenate(rows)


@lru_cache(maxsize=4096)
def _all_compositions(count: int, parts: int) -> Column:
    if parts == 1:
        return np.array([[float(count)]])
    rows = []
    for first in range(count + 1):
        rest = _all_compositions(count - first, parts - 1)
        rows.append(np.concatenate([np.full((len(rest), 1), float(first)), rest], axis=1))
    return np.concatenate(rows)
