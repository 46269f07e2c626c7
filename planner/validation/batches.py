"""Measured rows that share one problem, priced together: what a fit asks for thousands of times."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from costmodel.layer_table import price_layers
from costmodel.layouts import Assignment, Column, Layouts
from costmodel.price import Priced, price
from planner.evaluate import Evaluated
from planner.spread import names_of
from planner.validation.catalog import Catalog
from planner.validation.row import MeasuredRow
from planner.validation.row_problem import problem_of


@dataclass(frozen=True)
class RowBatch:
    """Rows of one model on one machine under one software, each with its layout.

    ``members``: the rows' places in the list they came from. ``log_simulated``: of each row log(simulated / closed
    form), held while parameters move. ``names``: of the device, the cluster and the runtime.
    """

    members: tuple[int, ...]
    example: MeasuredRow
    layouts: Layouts
    assignment: Assignment
    log_simulated: Column
    names: Mapping[str, str]

    def price(self, catalog: Catalog) -> Priced:
        problem, _ = problem_of(self.example, catalog)
        return price(price_layers(problem.setting, problem.network, self.layouts), self.assignment)

    def log_time(self, catalog: Catalog) -> Column:
        """[members] log of the predicted step time in seconds."""
        return np.asarray(np.log(self.price(catalog).step_time_s) + self.log_simulated)


def build_batches(evaluated: Iterable[tuple[int, MeasuredRow, Evaluated]], catalog: Catalog) -> list[RowBatch]:
    """Evaluated rows with their places, grouped; what a row left open stays as it was chosen under ``catalog``."""
    groups: dict[object, list[tuple[int, MeasuredRow, Evaluated]]] = defaultdict(list)
    for place, row, one in evaluated:
        problem, setting = one.problem, one.problem.setting
        # The global batch is in the layout's micro-batches already.
        workload = setting.workload.model_copy(update={"global_batch_size": 1})
        machine = (setting.device.name, problem.cluster.name, problem.cluster.levels)
        groups[(setting.model, machine, workload, setting.runtime)].append((place, row, one))
    return [_batch(members, catalog) for members in groups.values()]


def _batch(members: list[tuple[int, MeasuredRow, Evaluated]], catalog: Catalog) -> RowBatch:
    placements = [one.placement for _, _, one in members]
    problem = members[0][2].problem
    batch = RowBatch(
        members=tuple(place for place, _, _ in members),
        example=members[0][1],
        layouts=Layouts.from_rows([(placement.layout, placement.schedule) for placement in placements]),
        assignment=_stacked([one.priced.assignment for _, _, one in members]),
        log_simulated=np.zeros(len(members)),
        names=names_of(problem),
    )
    simulated = np.log([one.step_time_s for _, _, one in members])
    return replace(batch, log_simulated=simulated - batch.log_time(catalog))


def _stacked(assignments: Sequence[Assignment]) -> Assignment:
    """One row each, padded with empty slots to the longest pipeline."""
    slots = max(one.rank.shape[1] for one in assignments)

    def padded(column: np.ndarray) -> np.ndarray:
        return np.pad(column, [(0, 0), (0, slots - column.shape[1]), *[(0, 0)] * (column.ndim - 2)])

    return Assignment(
        **{
            name: np.concatenate([padded(getattr(one, name)) for one in assignments])
            for name in ("counts", "rank", "multiplicity", "embedding", "head")
        }
    )
