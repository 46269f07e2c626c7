"""A schedule's passes as integer columns, read once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from costmodel.schema.schedule import Pass, PassKind, Schedule
from planner.simulator.per_schedule import PerSchedule

Index = NDArray[np.int64]
Flags = NDArray[np.bool_]

KINDS = tuple(PassKind)
"""PassKind by code."""

_CODE = {kind: code for code, kind in enumerate(KINDS)}
_CODE_OF_ID = {id(kind): code for kind, code in _CODE.items()}

FORWARD, BACKWARD, INPUT_GRAD, WEIGHT_GRAD, OVERLAP, UNSHARD, RESHARD, REDUCE_GRAD = (_CODE[kind] for kind in KINDS[:8])
VOCAB_IN_FORWARD, VOCAB_IN_BACKWARD, VOCAB_FORWARD, VOCAB_BACKWARD, VOCAB_WEIGHT_GRAD, FROZEN_FORWARD = (
    _CODE[kind] for kind in KINDS[8:]
)

JOINT_MAKERS = (VOCAB_IN_FORWARD, VOCAB_FORWARD, VOCAB_BACKWARD)
"""The kinds whose parts make a joint product: embedded, statistics, vocab_gradient."""


@dataclass(frozen=True, eq=False)
class Columns:
    """Passes rank after rank, ``[passes]``; and what they run, ``[works]``: an OVERLAP runs two works, any other one.

    num_microbatches, copies  as Schedule has them
    home           [stages]  rank of every stage
    lengths        [ranks]   passes of each rank
    kind, stage    [passes]  codes as in KINDS; an OVERLAP's stage is that of its F
    rank           [passes]
    work_kind, work_stage, work_microbatch  [works]
    owner          [works]   the pass that runs it, ascending; of a pair the F comes first
    """

    num_microbatches: int
    copies: int
    home: Index
    lengths: Index
    kind: Index
    stage: Index
    rank: Index
    work_kind: Index
    work_stage: Index
    work_microbatch: Index
    owner: Index

    @property
    def num_ranks(self) -> int:
        return len(self.lengths)

    @property
    def num_stages(self) -> int:
        return len(self.home)

    @property
    def stages_per_copy(self) -> int:
        return self.num_stages // self.copies

    @cached_property
    def present(self) -> frozenset[int]:
        """The codes of all works."""
        return frozenset(np.flatnonzero(np.bincount(self.work_kind, minlength=len(KINDS))).tolist())

    @cached_property
    def num_pieces(self) -> int:
        """Pieces of frozen models."""
        pieces = self.work_stage[self.work_kind == FROZEN_FORWARD]
        return int(pieces.max()) + 1 if len(pieces) else 0

    def works(self, *kinds: int) -> Index:
        """Numbers of the works of these kinds."""
        chosen = self.work_kind == kinds[0]
        for kind in kinds[1:]:
            chosen |= self.work_kind == kind
        return np.flatnonzero(chosen)

    def unit(self, works: Index) -> Index:
        """stage · micro-batches + micro-batch of these works."""
        return self.work_stage[works] * self.num_microbatches + self.work_microbatch[works]


_COLUMNS: PerSchedule[Columns] = PerSchedule()


def passes_of(schedule: Schedule) -> list[Pass]:
    """All passes, rank after rank: the order of every ``[passes]`` array."""
    return list(chain.from_iterable(schedule.orders))


def columns_of(schedule: Schedule) -> Columns:
    """Read the passes, once per schedule object. Nothing is checked."""
    return _COLUMNS.of(schedule, _columns)


def _columns(schedule: Schedule) -> Columns:
    passes = passes_of(schedule)
    kind, stage, microbatch = _read(passes)
    lengths = np.array([len(order) for order in schedule.orders], dtype=np.int64)
    rank = np.repeat(np.arange(len(lengths)), lengths)
    sizes = (schedule.num_microbatches, schedule.copies, np.array(schedule.stage_to_rank, dtype=np.int64), lengths)
    owner = np.arange(len(passes))
    paired = np.flatnonzero(kind == OVERLAP)
    if not len(paired):
        return Columns(*sizes, kind, stage, rank, kind, stage, microbatch, owner)
    pairs = [passes[at].parts for at in paired.tolist()]
    alone = np.flatnonzero(kind != OVERLAP)
    both = _read(list(chain.from_iterable(pairs)))
    owner = np.concatenate([alone, np.repeat(paired, [len(pair) for pair in pairs])])
    by_owner = np.argsort(owner, kind="stable")
    work_kind, work_stage, work_microbatch = (
        np.concatenate([single[alone], part])[by_owner]
        for single, part in zip((kind, stage, microbatch), both, strict=True)
    )
    return Columns(*sizes, kind, stage, rank, work_kind, work_stage, work_microbatch, owner[by_owner])


def _read(passes: list[Pass]) -> tuple[Index, Index, Index]:
    # By identity, for an enum's hash is a Python call.
    kind = np.fromiter(map(_CODE_OF_ID.__getitem__, map(id, map(itemgetter(0), passes))), np.int64, len(passes))
    stage, microbatch = (np.fromiter(map(itemgetter(at), passes), np.int64, len(passes)) for at in (1, 2))
    return kind, stage, microbatch
