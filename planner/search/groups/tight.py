"""Bounds over unlike groups that heed memory: how soon the ranks together can take the model, by bisection."""

from __future__ import annotations

import numpy as np

from costmodel.layouts import Column
from planner.search.groups.rank_limits import RankLimits
from planner.search.groups.rows import MixedRows

BISECTIONS = 12


def tighten(
    rows: MixedRows, policies: tuple[int, ...], budgets: tuple[float, ...], floor_s: Column, after_s: Column,
    best_s: float,
) -> Column:  # fmt: skip
    """[n] seconds that no placement of a row beats within every group's memory, at least ``floor_s``; inf for rows that
    cannot reach ``best_s``.
    """
    bounds = np.full(len(rows), np.inf)
    for members in rows.alike():
        limits = RankLimits(rows.take(members), policies, budgets, after_s[members])
        low, high = floor_s[members], np.full(len(members), best_s)
        reachable = limits.can_reach(high)
        if not reachable.any():
            continue
        for _ in range(BISECTIONS):
            middle = np.sqrt(low * high)
            ok = limits.can_reach(middle)
            low, high = np.where(ok, low, middle), np.where(ok, middle, high)
        bounds[members] = np.where(reachable, low, np.inf)
    return bounds


def held_shares(rows: MixedRows, policies: tuple[int, ...], budgets: tuple[float, ...]) -> Column:
    """[n] the share of all layers for which all ranks together have the memory, each under its leanest policy."""
    found = np.zeros(len(rows))
    for members in rows.alike():
        limits = RankLimits(rows.take(members), policies, budgets, np.zeros(len(members)))
        found[members] = limits.held_share()
    return found
