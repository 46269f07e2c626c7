"""Rows that took longer than others of the same kind with more work: what no model monotone in work can follow."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from planner.validation.result import PricedRow
from planner.validation.row import MeasuredRow

PLACE = (
    "source", "framework", "gpu", "precision", "heads", "vocab", "seq_len", "tp", "pp", "vpp", "cp", "ep", "sharding",
    "schedule", "recompute", "seq_parallel", "flash_attn", "compile",
)  # fmt: skip
"""Columns in which two rows agree, with the flags and the number of micro-batches, that run the same passes."""

WORK = ("layers", "hidden", "micro_batch", "dp")
"""Columns of which more is never less work for one device: longer passes, wider products, and a larger reduction."""


@dataclass(frozen=True)
class Contradiction:
    """A row ``slower`` than ``faster`` although it has no more of any column of WORK; ``ratio`` of their times, > 1."""

    slower: MeasuredRow
    faster: MeasuredRow
    ratio: float


def find_contradictions(results: Iterable[PricedRow]) -> list[Contradiction]:
    """For every measured row the fastest one of more work that it took longer than, largest ratio first."""
    places: dict[tuple[object, ...], list[MeasuredRow]] = defaultdict(list)
    for result in results:
        row = result.row
        if row.step_time_s and row.global_batch and all(getattr(row, name) for name in WORK):
            places[_place(row)].append(row)
    found = []
    for rows in places.values():
        work = np.array([[getattr(row, name) for name in WORK] for row in rows])
        seconds = np.array([row.step_time_s for row in rows])
        # [j, k]: row k has at least the work of row j.
        more = (work[:, None, :] <= work[None, :, :]).all(axis=-1)
        fastest = np.where(more, seconds[None, :], np.inf).argmin(axis=1)
        for row, at in zip(rows, fastest.tolist(), strict=True):
            ratio = (row.step_time_s or 0.0) / float(seconds[at])
            if ratio > 1.0:
                found.append(Contradiction(row, rows[at], ratio))
    return sorted(found, key=lambda one: -one.ratio)


def _place(row: MeasuredRow) -> tuple[object, ...]:
    microbatches = (row.global_batch or 0) / ((row.dp or 1) * (row.micro_batch or 1))
    return (*(getattr(row, name) for name in PLACE), tuple(sorted(row.flags.items())), microbatches)
