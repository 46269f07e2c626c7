"""Layers split evenly over a pipeline's stages, and rows of them under one policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

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
    codes = (layouts.schedule * (np.max(layouts.pp, initial=0) + 1) + layouts.pp) * (
        np.max(layouts.vpp, initial=0) + 1
    ) + layouts.vpp
    _, first, row = np.unique(codes, return_index=True, return_inverse=True)
    keys = np.stack([layouts.schedule, layouts.pp, layouts.vpp], axis=1)[first]
    tables = [_slots(tuple(kinds), num_kinds, SCHEDULE_CODES[code], pp, vpp) for code, pp, vpp in keys.tolist()]
    shape = (len(tables), max((len(table.rank) for table in tables), default=1))
    counts = np.zeros((*shape, num_kinds))
    columns = {name: np.zeros(shape, np.int64) for name in ("rank", "multiplicity", "embedding", "head")}
    for index, table in enumerate(tables):
        counts[index, : len(table.rank)] = table.counts
        for name, column in columns.items():
            column[index, : len(table.rank)] = getattr(table, name)
    chosen = np.arange(np.max(policy, initial=0) + 1) == np.broadcast_to(policy, len(layouts))[:, None]
    row = row.ravel()
    return Assignment(
        counts=counts[row][..., None] * chosen[:, None, None, :],
        rank=columns["rank"][row],
        multiplicity=columns["multiplicity"][row],
        embedding=columns["embedding"][row] > 0,
        head=columns["head"][row] > 0,
    )
