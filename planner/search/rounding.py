"""The fastest mix of many layers where several resources are short: the linear program's corner, rounded nearby.

With x_q layers in column q = (kind, policy), c_q the seconds of one and a_qr its bytes of resource r:

    minimise  sum_q c_q x_q   subject to  sum_q of kind k x_q = n_k,  sum_q a_qr x_q <= room_r,  x >= 0

A corner has as many columns as there are rows, slacks included, and there are few: all of them are solved at once.
At most as many layers of a kind as there are resources are split between policies; those are dealt in every way.
"""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np

from costmodel.layouts import Column
from planner.search.fronts import list_compositions

MAX_CORNERS = 20_000
MAX_DEALS = 50_000
ROUNDING = 1e-9


def round_corner(counts: tuple[int, ...], costs: list[Column], room: Column) -> tuple[list[Column], Column] | None:
    """Layers of every kind under each of its policies, [P_k], and their cost [1 + R]; None where no deal near the
    corner fits, or corners are too many to list. ``costs``: [P_k, 1 + R] of one layer of each kind; ``room``: [R].
    """
    corner = _best_corner(counts, costs, room)
    if corner is None:
        return None
    deals = [_deals_near(count, part) for count, part in zip(counts, corner, strict=True)]
    if np.prod([len(deal) for deal in deals]) > MAX_DEALS:
        deals = [_deals_near(count, part, spare=0) for count, part in zip(counts, corner, strict=True)]
    total = np.zeros((1, 1 + len(room)))
    for deal, cost in zip(deals, costs, strict=True):
        total = (total[:, None] + (deal @ cost)[None]).reshape(-1, 1 + len(room))
    fits = (total[:, 1:] <= room).all(axis=1)
    if not fits.any():
        return None
    pick = int(np.where(fits, total[:, 0], np.inf).argmin())
    at = np.unravel_index(pick, [len(deal) for deal in deals])
    return [deal[index] for deal, index in zip(deals, at, strict=True)], np.asarray(total[pick])


def _best_corner(counts: tuple[int, ...], costs: list[Column], room: Column) -> list[Column] | None:
    """The linear program's best corner, [P_k] by kind."""
    kinds, rows = len(counts), len(counts) + len(room)
    columns = sum(map(len, costs)) + len(room)
    if comb(columns, rows) > MAX_CORNERS:
        return None
    table = np.zeros((rows, columns))
    seconds, start = np.zeros(columns), 0
    for kind, cost in enumerate(costs):
        here = slice(start, start + len(cost))
        table[kind, here], table[kinds:, here], seconds[here] = 1.0, cost[:, 1:].T, cost[:, 0]
        start += len(cost)
    table[kinds:, start:] = np.eye(len(room))
    right = np.concatenate([counts, room]).astype(np.float64)
    # Bytes against layers: rows of like size, or corners look singular that are not.
    scale = np.maximum(np.abs(table).max(axis=1), ROUNDING)
    table, right = table / scale[:, None], right / scale
    chosen = np.array(list(combinations(range(columns), rows)))
    square = np.moveaxis(table[:, chosen], 0, 1)
    solvable = np.abs(np.linalg.det(square)) > ROUNDING
    layers = np.linalg.solve(square[solvable], np.broadcast_to(right, (int(solvable.sum()), rows))[..., None])[..., 0]
    inside = (layers >= -ROUNDING * max(counts)).all(axis=1)
    if not inside.any():
        return None
    time_s = np.where(inside, (layers * seconds[chosen[solvable]]).sum(axis=1), np.inf)
    best = int(time_s.argmin())
    corner = np.zeros(columns)
    corner[chosen[solvable][best]] = np.maximum(layers[best], 0.0)
    return np.split(corner[:start], np.cumsum([len(cost) for cost in costs])[:-1])


def _deals_near(count: int, corner: Column, spare: int = 1) -> Column:
    """[q, P] whole layers near the corner: of each policy in it all but ``spare`` whole ones, the rest in every way."""
    sure = np.maximum(np.floor(corner + ROUNDING) - spare, 0.0)
    return np.asarray(sure + list_compositions(round(count - sure.sum()), len(corner)))
