"""What choosing would cost a model that had been corrected by the measured rows themselves.

A ladder of corrections of one source's predictions, from none to a factor of its own for each distinct layer. Where the
regret stays until the last rung, it sits in single layers that the others say nothing of; the rungs that leave each
layer out of their fit tell whether they do.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import exp, log

import numpy as np
from numpy.typing import NDArray

from planner.validation.regret import Regrets, judge_choices
from planner.validation.result import PricedRow
from planner.validation.row import MeasuredRow

LAYER = ("hidden", "seq_len", "tp", "cp", "ep", "micro_batch", "recompute", "seq_parallel", "flash_attn", "flags")
"""Columns that the time of one layer on one micro-batch depends on, where machine and framework are the same."""

STEP = ("layers", "pp", "vpp", "dp", "sharding", "global_batch")
"""Columns that a step depends on besides."""

ROW_STD, FACTOR_STD = 0.05, 0.2
"""Of the logarithms: what a row is off beyond its factors, and a factor before any row is seen. Prior."""

Matrix = NDArray[np.float64]
Effect = tuple[str, ...]


@dataclass(frozen=True)
class Attained:
    """One rung: how many ``factors`` it fits, the mean error that it leaves, and what choosing by it costs."""

    name: str
    factors: int
    mean_error: float
    regrets: Regrets


def attain_regrets(results: Iterable[PricedRow]) -> dict[str, list[Attained]]:
    """The ladder of every source that has groups to choose in, by ``planner.validation.regret``."""
    by_source: dict[str, list[PricedRow]] = defaultdict(list)
    for result in results:
        if result.step_error is not None:
            by_source[result.row.source].append(result)
    return {source: _climb(rows) for source, rows in by_source.items() if judge_choices(rows)}


def correct_steps(results: Sequence[PricedRow], effects: Sequence[Effect], leave_out: bool = False) -> list[PricedRow]:
    """The rows with step times times what the source's measured ones ask for.

    log(measured / predicted) = mean + sum over ``effects`` of one factor for each combination of values in its columns,
    by ridge regression. ``leave_out``: of each distinct layer's rows by all the others; a combination that only they
    have then has no factor. ``results``: rows of one source with both times.
    Source: Hoerl and Kennard 1970, "Ridge Regression"; its penalty as the ratio of two variances.
    """
    wanted = np.array([-log(1.0 + (one.step_error or 0.0)) for one in results])
    design = _indicators([one.row for one in results], effects)
    if not leave_out:
        fitted = design @ _solve(design, wanted)
    else:
        fitted = np.empty_like(wanted)
        layers = [_values(one.row, LAYER) for one in results]
        for layer in dict.fromkeys(layers):
            here = np.array([other == layer for other in layers])
            fitted[here] = design[here] @ _solve(design[~here], wanted[~here])
    return [
        replace(one, step_time_s=(one.step_time_s or 0.0) * exp(value))
        for one, value in zip(results, fitted, strict=True)
    ]


def _climb(results: list[PricedRow]) -> list[Attained]:
    varied = [name for name in (*LAYER, *STEP) if len({_values(one.row, (name,)) for one in results}) > 1]
    values: list[Effect] = [(name,) for name in varied]
    layer = tuple(name for name in varied if name in LAYER)
    pairs = values + list(combinations(layer, 2))
    rungs: tuple[tuple[str, list[Effect], bool | None], ...] = (
        ("as priced", [], None),
        ("a factor for each value", values, False),
        ("and for each pair of a layer's values", pairs, False),
        ("and for each layer", [*pairs, layer], False),
        ("each value, the layer left out", values, True),
        ("each pair, the layer left out", pairs, True),
    )
    found = []
    for name, effects, leave_out in rungs:
        rows = results if leave_out is None else correct_steps(results, effects, leave_out)
        factors = _indicators([one.row for one in rows], effects).shape[1] - 1
        error = float(np.mean([abs(one.step_error or 0.0) for one in rows]))
        found.append(Attained(name, factors, error, Regrets.of(judge_choices(rows))))
    return found


def _values(row: MeasuredRow, names: Effect) -> tuple[object, ...]:
    return tuple(tuple(sorted(row.flags.items())) if name == "flags" else getattr(row, name) for name in names)


def _indicators(rows: Sequence[MeasuredRow], effects: Sequence[Effect]) -> Matrix:
    """[rows, 1 + factors] a column of ones, then for each combination that occurs 1 where a row has it."""
    columns = [np.ones(len(rows))]
    for effect in effects:
        having = [_values(row, effect) for row in rows]
        columns += [np.array([one == value for one in having], np.float64) for value in dict.fromkeys(having)]
    return np.stack(columns, axis=1)


def _solve(design: Matrix, wanted: Matrix) -> Matrix:
    """Ridge coefficients; the mean, the first, is not drawn to zero."""
    penalty = np.full(design.shape[1], (ROW_STD / FACTOR_STD) ** 2)
    penalty[0] = 0.0
    return np.asarray(np.linalg.solve(design.T @ design + np.diag(penalty), design.T @ wanted))
