"""Scan the space: memory and time floors of every layout, in blocks, those that may be done soonest first.

What the passes take at least depends on a layout's outer row and on the room that state leaves for activations, which
is the same for many layouts: so every layout is asked whether it leaves the room that beating the incumbent needs, and
is unfolded only if so. What is left after the whole time floor is remembered by number. Shares of the optimizer on the
host are sized later, for layouts of which tight bounds say that their passes alone may beat the incumbent with all of
it there.
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
from planner.search.bounds import ROUNDING, extras_floor_s, mean_state_bytes
from planner.search.offload import ShareSizes
from planner.search.passes import PassesFloor, passes_floor
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

    def first(self, most: int) -> Found:
        return self.take(np.arange(min(most, len(self.numbers))))

    @classmethod
    def join(cls, parts: list[Found]) -> Found:
        """By ascending bound."""
        whole = [
            np.concatenate([getattr(part, name) for part in (NOTHING, *parts)])
            for name in ("numbers", "bounds", "after_s")
        ]
        return cls(*whole).take(np.argsort(whole[1], kind="stable"))


NOTHING = Found(np.zeros(0, np.intp), np.zeros(0), np.zeros(0))


class Scan:
    """``shares``: which shares of the optimizer on the host to try besides, if any.

    ``too_large``, ``too_slow``: layouts that a floor ruled out; ``left``, ``left_s``: how many were not come to, and
    the least that they take; ``least_bytes``, ``leanest``: the smallest memory floor, and the layout that has it.
    ``hosted``: of layouts with all of the optimizer on the host those whose passes alone may beat the limit, with
    bounds of their passes alone: where shares are worth sizing.
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
            self.passes = PassesFloor.constant(floor_of_lengths_s(problem, outer, policies))
        else:
            self.passes = passes_floor(outer, *self.about)
        self._price_state()
        # Outer layouts are at stage 0, which waits for no gathers: the least jitter.
        self.soonest_s = self.passes.floor_s(self._room(self.least_state_bytes)) * (1.0 + outer.jitter)
        self.order = np.argsort(self.soonest_s, kind="stable")
        self.sizes = space.sizes[self.order]
        self.too_large = self.too_slow = 0
        self.left, self.left_s = len(space), np.inf
        self.least_bytes, self.leanest = np.inf, -1
        self.hosted: list[Found] = []

    def _price_state(self) -> None:
        """What state claims on the mean rank is the same for layouts of equal degrees, copies of the model and inner
        rows: ``state_bytes`` of each of these, those of one outer row from ``first_state`` on."""
        space = self.priced.space
        copies = count_copies(self.priced.outer.layouts).astype(np.int64)
        _, rows, group = np.unique(space.key * MOST_COPIES + copies, return_index=True, return_inverse=True)
        numbers, _ = space.numbers_of(rows)
        # One more than there are, for groups without a layout.
        self.state_bytes = np.append(mean_state_bytes(self.priced.take(numbers), *self.about), np.inf)
        first = np.cumsum(space.sizes[rows]) - space.sizes[rows]
        self.first_state = first[group]
        self.least_state_bytes = np.minimum.reduceat(self.state_bytes, first)[group]

    def _room(self, state_bytes: Column) -> Column:
        return self.budget_bytes * ROUNDING - state_bytes

    def _passes_s(self, outer: Rows, state_bytes: Column) -> Column:
        """[n] seconds of all passes at least, in what state leaves of the budget."""
        return self.passes.take(outer).floor_s(self._room(state_bytes))

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
        sizes, soon = space.sizes[rows], self.soonest_s[rows] < limit_s
        self.left -= int(sizes.sum())
        self.too_slow += int(sizes[~soon].sum())
        numbers, place = space.numbers_of(rows[soon])
        outer = rows[soon][place]
        state_bytes = self.state_bytes[self._state_of(numbers, outer)]
        fits = self._fitting(numbers, outer, state_bytes, limit_s)
        if not len(fits):
            return NOTHING
        numbers, outer, layers = numbers[fits], outer[fits], self.priced.take(numbers[fits])
        found = self._within(numbers, outer, layers, state_bytes[fits], limit_s)
        if self.shares is not None:
            whole = np.flatnonzero(layers.layouts.optimizer_offload == 1.0)
            none = np.zeros(len(whole))
            passes_s = self._passes_s(outer[whole], state_bytes[fits][whole])
            self.hosted.append(Found(numbers[whole], passes_s * (1.0 + layers.jitter[whole]), none))
        return found

    def size_shares(self, hosted: Found, limit_s: float) -> Found:
        """What is left of the shares of the optimizer on the host that are sized for some layouts of ``hosted``."""
        if self.shares is None or not len(hosted.numbers):
            return NOTHING
        some, share = self.shares.of(self.priced.take(hosted.numbers))
        base = hosted.numbers[some]
        numbers, outer = self.priced.space.add_shares(base, share), self.priced.space.outer_of(base)
        layers = self.priced.take(numbers)
        state_bytes = mean_state_bytes(layers, *self.about)
        fits = self._fitting(numbers, outer, state_bytes, limit_s)
        return self._within(numbers[fits], outer[fits], layers.take(fits), state_bytes[fits], limit_s)

    def _state_of(self, numbers: Rows, outer: Rows) -> Rows:
        """Where in ``state_bytes`` layouts of the tables have theirs."""
        space = self.priced.space
        return np.asarray(self.first_state[outer] + space.base_of(numbers) - space.start[outer])

    def _fitting(self, numbers: Rows, outer: Rows, state_bytes: Column, limit_s: float) -> Rows:
        """Places of those whose state leaves room for activations, and enough of it for passes within the limit."""
        if not len(numbers):
            return numbers
        rows, place = np.unique(outer, return_inverse=True)
        passes = self.passes.take(rows)
        needed_bytes = passes.needed_bytes(limit_s / (1.0 + self.priced.outer.jitter[rows]))
        least_room_bytes, room_bytes = passes.least_room_bytes[place], self._room(state_bytes)
        floor_bytes = state_bytes + least_room_bytes
        least = int(floor_bytes.argmin())
        if floor_bytes[least] < self.least_bytes:
            self.least_bytes, self.leanest = float(floor_bytes[least]), int(numbers[least])
        small = least_room_bytes <= room_bytes
        soon = small & (needed_bytes[place] <= room_bytes)
        self.too_large += int((~small).sum())
        self.too_slow += int((small & ~soon).sum())
        return np.flatnonzero(soon)

    def _within(self, numbers: Rows, outer: Rows, layers: PricedLayers, state_bytes: Column, limit_s: float) -> Found:
        """Those whose time floor is below the limit."""
        if not len(numbers):
            return NOTHING
        if self.lengths_given:
            after_s = np.zeros(len(numbers))
        else:
            after_s = extras_floor_s(layers, *self.about, self._state_of(numbers, outer))
        bounds = (self._passes_s(outer, state_bytes) + after_s * layers.contention) * (1.0 + layers.jitter)
        found = Found(numbers, bounds, after_s).within(limit_s)
        self.too_slow += len(numbers) - len(found.numbers)
        return found
