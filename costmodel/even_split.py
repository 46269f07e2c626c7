"""Layers split evenly over a pipeline's stages, and rows of them under one policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from costmodel.layouts import SCHEDULE_CODES, Assignment, BoolColumn, IntColumn, Layouts
from costmodel.stages import stages_of


def even_split(num_layers: int, num_stages: int) -> list[int]:
    """Layers per stage as equal as can be; the remainder goes to middle stages, which hold no embedding or head."""
    base, extra = divmod(num_layers, num_stages)
    middle = sorted(range(num_stages), key=lambda stage: (stage in (0, num_stages - 1), stage))
    chosen = set(middle[:extra])
    return [base + (stage in chosen) for stage in range(num_stages)]


def counts_per_rank(
    kinds: Sequence[int], num_kinds: int, layers_per_stage: Sequence[int], stage_to_rank: Sequence[int]
) -> IntColumn:
    """[p, K]: layers of each kind on each pipeline rank.

    ``layers_per_stage``: of one copy, in model order. ``stage_to_rank``: of all copies, one after the other.
    """
    counts = np.zeros((max(stage_to_rank) + 1, num_kinds), np.int64)
    per_stage = np.zeros((len(layers_per_stage), num_kinds), np.int64)
    home = np.repeat(np.arange(len(layers_per_stage)), layers_per_stage)
    np.add.at(per_stage, (home, np.asarray(kinds, np.int64)), 1)
    copies = len(stage_to_rank) // len(layers_per_stage)
    np.add.at(counts, list(stage_to_rank), np.tile(per_stage, (copies, 1)))
    return counts


@dataclass(frozen=True)
class _Slots:
    """Distinct ranks of an even split: layers by kind [S, K], first rank [S], how many [S], ends [S]."""

    counts: IntColumn
    rank: IntColumn
    multiplicity: IntColumn
    embedding: BoolColumn
    head: BoolColumn


@lru_cache(maxsize=4096)
def _slots(kinds: tuple[int, ...], num_kinds: int, schedule: str, pp: int, vpp: int) -> _Slots:
    """Ranks with equal layers and ends share a slot.

    Memory falls with the rank for equal counts, so the first rank of a slot is its worst: nothing is lost.
    """
    stages = stages_of(schedule, pp, vpp)
    lengths = even_split(len(kinds), stages.per_copy)
    counts = counts_per_rank(kinds, num_kinds, lengths, stages.stage_to_rank)
    members: dict[tuple[object, ...], list[int]] = {}
    for rank in range(stages.num_ranks):
        members.setdefault((stages.embedding[rank], stages.head[rank], *counts[rank]), []).append(rank)
    ranks = np.array([those[0] for those in members.values()], np.int64)
    many = np.array([len(those) for those in members.values()], np.int64)
    return _Slots(counts[ranks], ranks, many, stages.embedding[ranks], stages.head[ranks])


def uniform_assignment(kinds: Sequence[int], num_kinds: int, layouts: Layouts, policy: IntColumn | int) -> Assignment:
    """One policy for every layer of a row, layers split evenly; ``policy``: [n], or one for all rows."""
    vpp, pp = (int(column.max(initial=0)) + 1 for column in (layouts.vpp, layouts.pp))
    kinds = tuple(kinds)
    codes, row = np.unique((layouts.schedule * pp + layouts.pp) * vpp + layouts.vpp, return_inverse=True)
    tables = [
        _slots(kinds, num_kinds, SCHEDULE_CODES[code // vpp // pp], code // vpp % pp, code % vpp)
        for code in codes.tolist()
    ]
    sizes = np.array([len(table.rank) for table in tables], np.intp)
    # Where a table is short of slots it ends in empty ones, all of them the last row of every column.
    real = np.arange(sizes.max(initial=1)) < sizes[:, None]
    slot = np.full(real.shape, sizes.sum())
    slot[real] = np.arange(sizes.sum())
    slot = slot[row.ravel()]

    def column(name: str, empty: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(np.concatenate([*(getattr(table, name) for table in tables), empty]).take(slot, axis=0))

    chosen = np.arange(np.max(policy, initial=0) + 1) == np.broadcast_to(policy, len(layouts))[:, None]
    none, no = np.zeros(1, np.int64), np.zeros(1, bool)
    return Assignment(
        counts=column("counts", np.zeros((1, num_kinds)))[..., None] * chosen[:, None, None, :],
        rank=column("rank", none),
        multiplicity=column("multiplicity", none),
        embedding=column("embedding", no),
        head=column("head", no),
    )
