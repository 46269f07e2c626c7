"""How soon a slot's layers can be through their backward in the room that memory leaves them, in fractions.

    min  sum_k c_k sum_q b_kq y_kq    over  sum_q y_kq = 1, y >= 0,  sum_k c_k sum_q a_kq y_kq <= room

with c_k layers of kind k, b_kq seconds and a_kq bytes of one under policy q. The dual's value at any price l >= 0 of a
byte, sum_k c_k min_q (b_kq + l · a_kq) - l · room, is no larger, and the largest is it; it is met where two policies of
a kind weigh the same, of which a few are tried. Whole layers take no less.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

from costmodel.layouts import Column
from planner.search.bounds import ROUNDING
from planner.search.options import SlotRooms

PRICES = 12
"""Prices of a byte that are tried, beside none."""


def least_backward_s(rooms: SlotRooms, budget_bytes: float) -> Column:
    """[S] seconds of one micro-batch's backward in each slot's layers at least, in the most room that any row leaves
    it; inf where they do not fit at all."""
    chooser, slots = rooms.chooser, rooms.slots
    chosen, ranks = list(chooser.policies), [slot.rank for slot in slots]
    counts = np.array([slot.counts for slot in slots], np.float64)
    in_flight = np.array(chooser.in_flight)[ranks]
    waiting = (np.array(chooser.waiting)[ranks] / in_flight)[:, None, None]
    time_s = chooser.time_s[:, chosen]
    # What a layer keeps beyond what it would with nothing recomputed, as rooms are counted.
    saved, pending = (column[:, chosen] - column[:, :1] for column in (chooser.saved_bytes, chooser.pending_bytes))
    room = budget_bytes * ROUNDING - rooms.always.min(axis=0) - chooser.least_held(slots, rooms.logits[0])
    room = room / in_flight
    unit = saved + waiting * pending
    least_s = counts @ time_s.min(axis=1)
    for per_byte in _prices(time_s, saved + float(np.median(waiting)) * pending):
        least_s = np.maximum(least_s, (counts * (time_s + per_byte * unit).min(axis=2)).sum(axis=1) - per_byte * room)
    return np.where(rooms.can_fit(budget_bytes).any(axis=0), least_s, np.inf)


def _prices(time_s: Column, kept_bytes: Column) -> list[float]:
    """Seconds a byte at which two policies of a kind, [K, Q] each, weigh the same: a few of them, evenly by rank."""
    found: set[float] = set()
    for one, other in combinations(range(time_s.shape[1]), 2):
        less, longer = kept_bytes[:, one] - kept_bytes[:, other], time_s[:, other] - time_s[:, one]
        trades = less * longer > 0.0
        found.update((longer[trades] / less[trades]).tolist())
    prices = sorted(found)
    if len(prices) <= PRICES:
        return prices
    return [prices[at] for at in np.linspace(0, len(prices) - 1, PRICES).astype(int).tolist()]
