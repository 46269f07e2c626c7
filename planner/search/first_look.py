"""A first look at promising layouts: closed-form prices under uniform policies, and which of them to place first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from costmodel.layouts import Column
from costmodel.pipeline import ONE_F_ONE_B
from planner.search.scan import PricedSpace
from planner.search.space import Rows

SEEDS = 2
"""Layouts placed before any bound is sharpened: the first incumbents."""

DEGREES = 8
"""Of the layouts that uniform policies make look best, how many are looked at under every schedule."""

FIRST_LOOK = 400
"""Layouts priced at a time."""

NO_ROOM = 1e30


@dataclass(frozen=True)
class UniformPrices:
    """Closed-form prices of some layouts under uniform policies: their numbers, step time, policy, and what the fullest
    rank claims, infinite where the host does not hold its share."""

    rows: Rows
    step_time_s: Column
    fits: NDArray[np.bool_]
    policy: NDArray[np.int64]
    claim_bytes: Column

    def fastest(self, most: int) -> list[int]:
        """Numbers of the fastest that fit."""
        good = np.flatnonzero(self.fits)
        best = good[np.argsort(self.step_time_s[good], kind="stable")][:most]
        return [int(row) for row in self.rows[best]]


def price_uniform(priced: PricedSpace, rows: Rows, policies: tuple[int, ...], budget: float) -> UniformPrices:
    """Closed-form price of layouts, each under the uniform policy that is fastest among those that fit."""
    found = [priced.price_uniform(rows, policy) for policy in policies]
    time_s = np.stack([one.step_time_s for one in found])
    claimed = np.stack([np.where(one.fits_host, one.peak_claim_bytes, np.inf) for one in found])
    fits = claimed <= budget
    ranked = np.where(fits, time_s, np.where(fits.any(axis=0), np.inf, np.minimum(claimed, NO_ROOM)))
    pick = ranked.argmin(axis=0)
    columns = np.arange(len(rows))
    return UniformPrices(
        rows, time_s[pick, columns], fits[pick, columns], np.array(policies)[pick], claimed[pick, columns]
    )


def look_first(priced: PricedSpace, rows: Rows, policies: tuple[int, ...], budget: float) -> UniformPrices:
    """Uniform prices of the first of ``rows``, the most promising, going on until some layout fits: of one schedule for
    each, as the degrees decide what fits and the schedule hardly does."""
    plain = rows[priced.space.outer["schedule"][priced.space.outer_of(rows)] == ONE_F_ONE_B]
    some = plain if len(plain) else rows
    for start in range(0, len(some), FIRST_LOOK):
        uniform = price_uniform(priced, some[start : start + FIRST_LOOK], policies, budget)
        if uniform.fits.any():
            return uniform
    return price_uniform(priced, rows[:FIRST_LOOK], policies, budget) if len(plain) else uniform


def other_schedules(
    priced: PricedSpace, uniform: UniformPrices, open_rows: Rows, policies: tuple[int, ...], budget: float
) -> list[int]:
    """The most promising of ``open_rows`` whose degrees do well under the first schedule looked at: at most one of each
    other schedule."""
    good = uniform.fastest(DEGREES)
    if not good:
        return []
    alike = np.unique(np.concatenate([priced.space.alike(number) for number in good]))
    rows = alike[np.isin(alike, open_rows) & ~np.isin(alike, uniform.rows)]
    if not len(rows):
        return []
    promising = price_uniform(priced, rows, policies, budget)
    fastest = promising.fastest(len(rows))
    best: dict[str, int] = {}
    for number, name in zip(fastest, priced.space.schedule_names(np.array(fastest, np.intp)), strict=True):
        best.setdefault(name, number)
    return list(best.values())[:SEEDS]
