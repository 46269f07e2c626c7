"""The space: every combination of degrees that the model, the cluster, the batch and the runtime admit, as columns.

Two tables are kept, and a layout is a row of each. *Outer* columns are all that layer costs, the order of passes and
sends depend on. *Inner* ones say how data-parallel ranks split, keep and move their state: which of them are legal
depends on degrees alone (KEYS), so that equal degrees share them. A layout's number counts outer rows, then inner ones.
Shares of the optimizer on the host that are sized by prices (``offload.py``) come after them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from costmodel.layouts import SCHEDULE_CODES, Column, IntColumn, Layouts
from costmodel.schema.layout import Layout
from planner.constraints.keys import KEYS as CONSTRAINABLE
from planner.constraints.rows import admitted_rows, constrained_keys
from planner.request import Request
from planner.search.frozen import frozen_choice
from planner.search.rules import (
    Choice,
    Table,
    degree_choices,
    format_choice,
    micro_batch_choice,
    offload_choice,
    order_choice,
    schedule_choices,
    sequence_parallel_choice,
    shard_choice,
    split_vocabulary,
    zero_choice,
)
from planner.search.shards import grow_shard_groups

Rows = NDArray[np.intp]

KEYS = ("tp", "pp", "cp_ring", "cp_ulysses", "ep", "etp", "order", "vocab_parallel", "frozen_fill")
"""The outer columns that inner rules may ask for, beside ``dp``, their replicas in all."""

OF_SCHEDULE = ("schedule", "vpp", "vocab_parallel", "frozen_fill")
"""Outer columns in which the orders of passes of one layout differ."""


@dataclass
class Sized:
    """Layouts beside the tables: ``base``, the number of one of theirs, and the ``share`` of the optimizer on the host
    that was sized for it."""

    base: Rows = field(default_factory=lambda: np.zeros(0, np.intp))
    share: Column = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True)
class Space:
    """``key``: [outer rows] which group of inner rows goes with it; ``first``: [keys + 1] where each group starts.

    ``sized``: what was added since; its layouts have the numbers after the tables'.
    """

    outer: Table
    inner: Table
    key: Rows
    first: Rows
    sized: Sized = field(default_factory=Sized)

    @cached_property
    def start(self) -> Rows:
        """[outer rows + 1] number of each outer row's first layout."""
        return np.concatenate([[0], np.cumsum(self.sizes)]).astype(np.intp)

    @cached_property
    def sizes(self) -> Rows:
        """[outer rows] layouts of each."""
        return np.asarray(np.diff(self.first)[self.key])

    def __len__(self) -> int:
        return self.num_tabled + len(self.sized.base)

    @property
    def num_tabled(self) -> int:
        """Layouts of the two tables."""
        return int(self.start[-1])

    def add_shares(self, base: Rows, share: Column) -> Rows:
        """Numbers of new layouts: those of the tables, each with another share of the optimizer on the host."""
        numbers = len(self) + np.arange(len(base))
        self.sized.base = np.concatenate([self.sized.base, base])
        self.sized.share = np.concatenate([self.sized.share, share])
        return numbers

    def base_of(self, numbers: Rows) -> Rows:
        """The layout of the tables that each is, but for its share."""
        if not len(self.sized.base):
            return numbers
        added = np.maximum(numbers - self.num_tabled, 0)
        return np.where(numbers < self.num_tabled, numbers, self.sized.base[added])

    @property
    def num_outer(self) -> int:
        return len(self.key)

    def outer_of(self, numbers: Rows) -> Rows:
        """The outer row of each layout."""
        return np.asarray(np.searchsorted(self.start, self.base_of(numbers), side="right") - 1)

    def split(self, numbers: Rows) -> tuple[Rows, Rows]:
        """The outer and the inner row of each layout."""
        outer, base = self.outer_of(numbers), self.base_of(numbers)
        return outer, self.first[self.key[outer]] + base - self.start[outer]

    def numbers_of(self, rows: Rows) -> tuple[Rows, Rows]:
        """All layouts of some outer rows: their numbers, and for each its place in ``rows``."""
        counts = self.sizes[rows]
        place = np.repeat(np.arange(len(rows)), counts)
        before = np.cumsum(counts) - counts
        return self.start[rows][place] + np.arange(len(place)) - before[place], place

    def take(self, numbers: Rows) -> Layouts:
        """Some layouts, by number."""
        base = self.base_of(numbers)
        outer, inner = self.split(base)
        columns = {name: column[outer] for name, column in self.outer.items()}
        columns |= {name: column[inner] for name, column in self.inner.items()}
        if base is not numbers:
            share = self.sized.share[np.maximum(numbers - self.num_tabled, 0)]
            columns["optimizer_offload"] = np.where(base == numbers, columns["optimizer_offload"], share)
        return _as_layouts(columns)

    def all_layouts(self) -> Layouts:
        """Every layout."""
        return self.take(np.arange(len(self)))

    def outer_layouts(self) -> Layouts:
        return _outer_layouts(self.outer)

    def row(self, number: int) -> Layout:
        return self.take(np.array([number])).row(0)

    def schedule_names(self, numbers: Rows) -> list[str]:
        return [SCHEDULE_CODES[code] for code in self.outer["schedule"][self.outer_of(numbers)].tolist()]

    def alike(self, number: int) -> Rows:
        """Numbers of the layouts that differ from this one in their schedule's columns alone, itself included; of a
        share that was sized for one schedule, itself."""
        if number >= self.num_tabled:
            return np.array([number])
        outer = int(self.outer_of(np.array([number]))[0])
        inner = self.first[self.key[outer]] + number - self.start[outer]
        own = {name: column[inner] for name, column in self.inner.items()}
        same = np.flatnonzero(self._but_schedule == self._but_schedule[outer])
        places = {key: self._inner_place(key, own) for key in np.unique(self.key[same]).tolist()}
        found = [(row, places[key]) for row, key in zip(same.tolist(), self.key[same].tolist(), strict=True)]
        return np.array([self.start[row] + place for row, place in found if place is not None], np.intp)

    def _inner_place(self, key: int, values: dict[str, Any]) -> int | None:
        """Where in a group of inner rows these values stand; None where they don't."""
        group = slice(self.first[key], self.first[key + 1])
        equal = np.all([self.inner[name][group] == value for name, value in values.items()], axis=0)
        return int(equal.argmax()) if equal.any() else None

    def number_of(self, layout: Layouts) -> int | None:
        """The number of the one layout given; None where the space has none such."""
        keep = np.ones(self.num_outer, bool)
        for name in self.outer.keys() - {"world", "dp"}:
            keep &= self.outer[name] == getattr(layout, name)[0]
        own = {name: getattr(layout, name)[0] for name in self.inner}
        for outer in np.flatnonzero(keep).tolist():
            place = self._inner_place(int(self.key[outer]), own)
            if place is not None:
                return int(self.start[outer] + place)
        return None

    @cached_property
    def _but_schedule(self) -> IntColumn:
        """[outer rows] equal where all but the schedule's columns are."""
        return _codes([column for name, column in self.outer.items() if name not in OF_SCHEDULE])


def enumerate_layouts(request: Request) -> Layouts:
    """Every layout of the request's space, one row each."""
    return enumerate_space(request).all_layouts()


def enumerate_space(request: Request) -> Space:
    """World equation, divisibility of heads, experts, sequence and batch, the schedules' own rules, and what the
    runtime cannot do are applied while the columns grow, so nothing illegal is ever held.
    """
    world = np.array([request.cluster.num_devices], np.int64)
    outer: Table = {"world": world}
    for choice in degree_choices(request):
        outer = _cross(outer, choice)
    outer["dp"] = outer["world"] // (outer["tp"] * outer["pp"] * outer["cp_ring"] * outer["cp_ulysses"])
    outer = _cross(outer, micro_batch_choice(request))
    outer["num_microbatches"] = request.workload.global_batch_size // (outer["dp"] * outer["micro_batch_size"])
    for choice in schedule_choices(request):
        outer = _cross(outer, choice)
    outer = split_vocabulary(request, outer)
    for choice in (sequence_parallel_choice(request), order_choice(request), frozen_choice(request)):
        outer = _cross(outer, choice)
    return _with_inner(request, outer)


def _with_inner(request: Request, outer: Table) -> Space:
    """The inner rows of every combination of KEYS in ``outer``; what constraints rule out goes from either table."""
    _, where, key = np.unique(_codes([outer[name] for name in KEYS]), return_index=True, return_inverse=True)
    inner: Table = {name: outer[name][where] for name in ("world", "dp", *KEYS)} | {"key": np.arange(len(where))}
    inner = _cross(inner, shard_choice(request))
    inner["dp_replicate"] = inner["dp"] // inner["dp_shard"]
    inner = grow_shard_groups(request, _cross(inner, zero_choice(request)))
    for choice in (format_choice(request), offload_choice(request)):
        inner = _cross(inner, choice)
    shared = {"world", "dp", "key", *KEYS}
    own, key = [name for name in inner if name not in shared], key.reshape(-1)
    if constrained_keys(request):
        others = [name for name in CONSTRAINABLE if name not in own]
        inner = _keep(inner, admitted_rows(request, _as_layouts(inner), others))
        keep = admitted_rows(request, _outer_layouts(outer), own)
        outer, key = _keep(outer, keep), key[keep]
    inner = _keep(inner, np.argsort(inner["key"], kind="stable"))
    first = np.searchsorted(inner["key"], np.arange(len(where) + 1))
    return Space(outer, {name: inner[name] for name in own}, key, first)


def _outer_layouts(outer: Table) -> Layouts:
    """Every outer row once, its state split over all replicas but nothing said of how."""
    return _as_layouts(outer | {"dp_shard": outer["dp"], "dp_replicate": np.ones_like(outer["dp"])})


def _keep(table: Table, rows: Rows | NDArray[np.bool_]) -> Table:
    return {name: column[rows] for name, column in table.items()}


def _codes(columns: list[IntColumn]) -> IntColumn:
    """[n] equal where rows are: the columns as digits of one number."""
    code = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        values, digit = np.unique(column, return_inverse=True)
        code = code * len(values) + digit
    return code


def _cross(table: Table, choice: Choice) -> Table:
    """Every row with every value, less what is not legal."""
    name, values, legal = choice
    rows = len(next(iter(table.values())))
    grown = {key: np.repeat(column, len(values)) for key, column in table.items()}
    whole = all(isinstance(value, int) for value in values)
    grown[name] = np.tile(np.asarray(values, np.int64 if whole else np.float64), rows)
    return _keep(grown, legal(grown))


def _as_layouts(table: Table) -> Layouts:
    """Choices that the space does not name are left at their defaults, whose code is 0."""
    none = np.zeros_like(table["tp"])
    columns: dict[str, Any] = {field.name: table.get(field.name, none) for field in fields(Layouts)}
    return Layouts(**columns | {"optimizer_offload": columns["optimizer_offload"].astype(np.float64)})
