"""Scan the space: memory and time floors of every layout, in blocks, those that may be done soonest first.

What the passes take at least depends on a layout's outer row alone: rows that cannot beat the incumbent by it are never
unfolded. Of the others the memory floor comes first, then the time floor; what is left is remembered by number. Shares
of the optimizer on the host are sized for those whose memory floor fits with all of it there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from costmodel.columns import distinct_rows, take_rows
from costmodel.even_split import uniform_assignment
from costmodel.layer_table import PricedLayers, price_layers
from costmodel.layouts import Column, IntColumn
from costmodel.pipeline import count_copies, placement_codes
from costmodel.price import RowPrices, join_prices, price_pipeline, price_state
from planner.problem import Problem
from planner.search.bounds import (
    estimate_kept_floor_bytes,
    estimate_passes_floor_s,
    extras_floor_s,
    mean_state_bytes,
)
from planner.search.offload import ShareSizes
from planner.search.pinned import floor_of_lengths_s, pin_costs
from planner.search.space import Rows, Space

MOST_COPIES = 4
"""More than any schedule has of the model."""

BLOCK = 8192
"""Layouts unfolded at a time: their columns stay in the cache."""


class PricedSpace:
    """The space with its layer table: costs of every outer row are priced once."""

    def __init__(self, problem: Problem, space: Space) -> None:
        self.problem, self.space = problem, space
        self.outer = pin_costs(price_layers(problem.setting, problem.network, space.outer_layouts()), problem.pinned)

    def take(self, numbers: Rows) -> PricedLayers:
        """The layer table of some layouts."""
        return self.outer.of(self.space.take(numbers), self.space.outer_of(numbers))

    def price_uniform(self, numbers: Rows, policy: int) -> RowPrices:
        """Price of some layouts with one policy for every layer: what an outer row fixes is priced once for all its
        layouts, what becomes of state once for all of one inner row whose stages lie alike."""
        outer, inner = self.space.split(numbers)
        rows, place = distinct_rows(outer)
        layers = self.outer.take(outer[rows])
        assignment = uniform_assignment(self.problem.kinds, self.problem.num_kinds, layers.layouts, policy)
        pipeline = price_pipeline(layers, assignment)
        alike = inner * (self._stages.max() + 1) + self._stages[outer]
        # Shares of the optimizer that were sized since are no part of the inner row.
        rows, back = distinct_rows(np.where(numbers < self.space.num_tabled, alike, -1 - numbers))
        held = place[rows]
        _, state = price_state(self.take(numbers[rows]), take_rows(pipeline.params, held), pipeline.num_layers[held])
        return join_prices(layers.setting, take_rows(pipeline.rows, place), take_rows(state, back))

    @cached_property
    def _stages(self) -> IntColumn:
        """[outer rows] equal where as many stages lie on the same ranks."""
        outer = self.space.outer
        return np.asarray(placement_codes(self.outer.layouts) * (outer["vpp"].max() + 1) + outer["vpp"])


@dataclass(frozen=True)
class Found:
    """Layouts that fit by their floor and may beat a limit: numbers, bounds, seconds after the passes at least."""

    numbers: Rows
    bounds: Column
    after_s: Column

    def within(self, limit_s: float) -> Found:
        return self.take(self.bounds < limit_s)

    def take(self, keep: Rows | NDArray[np.bool_]) -> Found:
        return Found(self.numbers[keep], self.bounds[keep], self.after_s[keep])

    @classmethod
    def join(cls, parts: list[Found]) -> Found:
        """By ascending bound."""
        whole = [np.concatenate([getattr(part, name) for part in parts]) for name in ("numbers", "bounds", "after_s")]
        return cls(*whole).take(np.argsort(whole[1], kind="stable"))


NOTHING = Found(np.zeros(0, np.intp), np.zeros(0), np.zeros(0))


class Scan:
    """``shares``: which shares of the optimizer on the host to try besides, if any.

    ``too_large``, ``too_slow``: layouts that a floor ruled out; ``left``, ``left_s``: how many were not come to, and
    the least that they take; ``least_bytes``, ``leanest``: the smallest memory floor, and the layout that has it.
    """

    def __init__(
        self, problem: Problem, priced: PricedSpace, policies: tuple[int, ...], budget_bytes: float,
        shares: ShareSizes | None = None,
    ) -> None:  # fmt: skip
        self.priced, self.budget_bytes, self.shares = priced, budget_bytes, shares
        self.about = (problem.kinds, problem.num_kinds, policies)
        outer, space = priced.outer, priced.space
        self.lengths_given = bool(problem.pinned.lengths)
        if self.lengths_given:
            # The other floors are of stages near the even split.
            self.passes_s = floor_of_lengths_s(problem, outer, policies)
            self.kept_bytes = np.zeros(space.num_outer)
        else:
            self.passes_s = estimate_passes_floor_s(outer, *self.about)
            self.kept_bytes = estimate_kept_floor_bytes(outer, *self.about)
        # Outer layouts are at stage 0, which waits for no gathers: the least jitter.
        self.soonest_s = self.passes_s * (1.0 + outer.jitter)
        self.order = np.argsort(self.soonest_s, kind="stable")
        self.sizes = np.diff(space.start)[self.order]
        self.too_large = self.too_slow = 0
        self.left, self.left_s = len(space), np.inf
        self.least_bytes, self.leanest = np.inf, -1

    def blocks(self) -> Iterator[Rows]:
        """Outer rows, some BLOCK layouts at a time."""
        block = (np.cumsum(self.sizes) - 1) // BLOCK
        for rows in np.split(self.order, np.flatnonzero(np.diff(block)) + 1):
            self.left_s = float(self.soonest_s[rows[0]])
            yield rows
        self.left_s = np.inf

    def look(self, rows: Rows, limit_s: float) -> Found:
        """What is left of some outer rows' layouts."""
        space = self.priced.space
        sizes, soon = space.start[rows + 1] - space.start[rows], self.soonest_s[rows] < limit_s
        self.left -= int(sizes.sum())
        self.too_slow += int(sizes[~soon].sum())
        rows = rows[soon]
        numbers, place = space.numbers_of(rows)
        if not len(numbers):
            return NOTHING
        numbers, layers, outer = self._fitting(numbers, rows[place])
        found = self._within(numbers, layers, outer, limit_s)
        if self.shares is None or not len(numbers):
            return found
        some, share = self.shares.of(layers)
        sized = space.add_shares(numbers[some], share)
        return Found.join([found, self._within(*self._fitting(sized, outer[some]), limit_s)])

    def _fitting(self, numbers: Rows, outer: Rows) -> tuple[Rows, PricedLayers, Rows]:
        """Those whose memory floor fits, with their layers and outer rows."""
        layers = self.priced.take(numbers)
        floor_bytes = mean_state_bytes(layers, *self.about) + self.kept_bytes[outer]
        least = int(floor_bytes.argmin()) if len(numbers) else -1
        if len(numbers) and floor_bytes[least] < self.least_bytes:
            self.least_bytes, self.leanest = float(floor_bytes[least]), int(numbers[least])
        fits = np.flatnonzero(floor_bytes <= self.budget_bytes)
        self.too_large += len(numbers) - len(fits)
        return numbers[fits], layers.take(fits), outer[fits]

    def _within(self, numbers: Rows, layers: PricedLayers, outer: Rows, limit_s: float) -> Found:
        """Those whose time floor is below the limit."""
        if not len(numbers):
            return NOTHING
        if self.lengths_given:
            after_s = np.zeros(len(numbers))
        else:
            alike = self.priced.space.split(numbers)[1] * MOST_COPIES + count_copies(layers.layouts).astype(np.int64)
            after_s = extras_floor_s(layers, *self.about, alike)
        bounds = (self.passes_s[outer] + after_s * layers.contention) * (1.0 + layers.jitter)
        found = Found(numbers, bounds, after_s).within(limit_s)
        self.too_slow += len(numbers) - len(found.numbers)
        return found
