"""What NumPy lacks for columns, or does slowly: rows of many columns at once, distinct ones, the largest of a few."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from functools import reduce
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Column = NDArray[np.float64]
Columns = TypeVar("Columns")


def take_rows(columns: Columns, rows: NDArray[np.intp]) -> Columns:
    """Some rows, by number, of every column [n, ...] in a dataclass or dictionary of them, nested ones included; what
    is no column stays as it is."""
    return _taken(columns, rows)  # type: ignore[no-any-return]


def distinct_rows(code: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """One row of each distinct code, by ascending code, and for every row the place of its own among them."""
    _, rows, place = np.unique(code, return_index=True, return_inverse=True)
    return rows, place.reshape(-1)


def distinct_columns(columns: Column) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """One column of each distinct one of [c, n], and for every column the place of its own among them.

    Sorted by a weighted sum, equal columns lie side by side; unlike ones are told apart by comparing them.
    """
    weights = np.sqrt(np.arange(2.0, 2.0 + len(columns)))
    order = np.argsort(sum(weight * column for weight, column in zip(weights, columns, strict=True)))
    starts = np.ones(len(order), bool)
    starts[1:] = (np.diff(columns[:, order]) != 0.0).any(axis=0)
    place = np.empty(len(order), np.intp)
    place[order] = np.cumsum(starts) - 1
    return order[starts], place


def largest(columns: Column) -> Column:
    """[n] over the last axis of [n, L]: one comparison for each of its places, as NumPy's own is slow where it is
    short."""
    return reduce(np.maximum, (columns[..., at] for at in range(columns.shape[-1])))


def smallest(columns: Column) -> Column:
    """[n] over the last axis of [n, L], as ``largest``."""
    return reduce(np.minimum, (columns[..., at] for at in range(columns.shape[-1])))


def _taken(value: Any, rows: NDArray[np.intp]) -> Any:
    if isinstance(value, np.ndarray):
        # Several times as fast as value[rows] where rows of a column are short.
        return value.take(rows, axis=0)
    if isinstance(value, dict):
        return {name: _taken(one, rows) for name, one in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{one.name: _taken(getattr(value, one.name), rows) for one in fields(value)})
    return value
