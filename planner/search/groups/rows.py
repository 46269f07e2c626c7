"""Rows of a space over unlike groups of nodes, with the layer tables of every group."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from costmodel.layer_table import PricedLayers
from costmodel.layouts import Column, IntColumn, Layouts
from planner.mixed import Edges, estimate_edges, group_of_ranks, price_groups
from planner.problem import Problem
from planner.search.pinned import pin_costs


@dataclass(frozen=True)
class MixedRows:
    """``tables``: one for each group, of all rows."""

    problem: Problem
    layouts: Layouts
    tables: tuple[PricedLayers, ...]

    @classmethod
    def price(cls, problem: Problem, layouts: Layouts) -> MixedRows:
        tables = price_groups(problem, layouts)
        return cls(problem, layouts, tuple(pin_costs(table, problem.pinned) for table in tables))

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> MixedRows:
        return MixedRows(self.problem, self.layouts.take(rows), tuple(table.take(rows) for table in self.tables))

    def __len__(self) -> int:
        return len(self.layouts)

    @property
    def jitter(self) -> Column:
        """[n] as it is in every group."""
        return self.tables[0].jitter

    @cached_property
    def ranks(self) -> IntColumn:
        """[n, G] pipeline ranks that lie in each group."""
        each = self.layouts.world_size // self.layouts.pp
        devices = np.array([group.num_devices for group in self.problem.cluster.unlike_groups])
        return np.asarray(devices // each[:, None])

    @cached_property
    def last_group(self) -> IntColumn:
        """[n] the group that holds the last rank."""
        return np.asarray((self.layouts.first_group - 1) % len(self.tables))

    @cached_property
    def homes(self) -> tuple[int, ...]:
        """The group of every rank of the first row, and of all that are ``alike``."""
        return group_of_ranks(self.problem.cluster, self.layouts.row(0))

    @cached_property
    def edges(self) -> Edges:
        return estimate_edges(self.tables, self.homes)

    def alike(self) -> Iterator[NDArray[np.intp]]:
        """Rows whose ranks lie in the same groups."""
        keys = np.stack([self.layouts.pp, self.layouts.first_group], axis=1)
        distinct, key = np.unique(keys, axis=0, return_inverse=True)
        for index in range(len(distinct)):
            yield np.flatnonzero(key.ravel() == index)
