"""Where a slot's duration and the delay of what it awaits stand in two flat tables of times.

The indices depend on the schedule alone, the tables on the times: one graph serves any times, one row or many.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from costmodel.schema.errors import InvalidSpec
from planner.simulator.columns import (
    BACKWARD,
    FROZEN_FORWARD,
    JOINT_MAKERS,
    REDUCE_GRAD,
    UNSHARD,
    VOCAB_IN_FORWARD,
    VOCAB_WEIGHT_GRAD,
    WEIGHT_GRAD,
    Columns,
    Index,
)

if TYPE_CHECKING:
    from planner.simulator.times import Array, StageTimes

_VOCAB_KINDS = VOCAB_WEIGHT_GRAD + 1 - VOCAB_IN_FORWARD


@dataclass(frozen=True)
class Delays:
    """How long what is awaited is under way: edge 0 … edge S-2 | none | edge - wire by edge | broadcast | frozen edges.

    The first bytes of a message reach its receiver's link an edge_s after its sender's link starts on them: edge - wire
    after that link is done.
    """

    num_stages: int
    num_pieces: int

    @property
    def none(self) -> int:
        return self.num_stages - 1

    @property
    def first_bytes(self) -> int:
        return self.num_stages

    @property
    def broadcast(self) -> int:
        return 2 * self.num_stages - 1

    @property
    def frozen(self) -> int:
        return 2 * self.num_stages

    def table_s(self, times: StageTimes) -> Array:
        """Shape ``[..., delays]``."""
        table = np.zeros((*times.batch_shape, self.frozen + max(self.num_pieces - 1, 0)))
        table[..., : self.none] = times.edge_s
        table[..., self.first_bytes : self.broadcast] = np.subtract(times.edge_s, times.wire_s)
        if times.vocab is not None:
            table[..., self.broadcast] = times.vocab.broadcast_s
        if times.frozen is not None and self.num_pieces > 1:
            table[..., self.frozen :] = times.frozen.edge_s
        return table


@dataclass(frozen=True, eq=False)
class Durations:
    """F, B, I, W by stage | nothing | gather, reduce by stage | wire by edge | vocabulary kinds by rank | joint
    products | frozen pieces | pairs.

    pairs  ``[pairs, 3]``: stage of the F, stage of the backward, whether that is a full B
    """

    num_stages: int
    num_ranks: int
    num_pieces: int
    pairs: Index

    @property
    def nothing(self) -> int:
        return 4 * self.num_stages

    @property
    def wire(self) -> int:
        return 6 * self.num_stages + 1

    @property
    def vocab(self) -> int:
        return self.wire + self.num_stages - 1

    @property
    def joint(self) -> int:
        return self.vocab + _VOCAB_KINDS * self.num_ranks

    @property
    def frozen(self) -> int:
        return self.joint + len(JOINT_MAKERS)

    @property
    def pair(self) -> int:
        return self.frozen + self.num_pieces

    def index(self, columns: Columns) -> Index:
        """Of every pass but the pairs; shape ``[passes]``."""
        kind, stage = columns.kind, columns.stage
        index = np.full(len(kind), self.nothing)
        whole = kind <= WEIGHT_GRAD
        index[whole] = kind[whole] * self.num_stages + stage[whole]
        for code in (UNSHARD, REDUCE_GRAD):
            of_stage = kind == code
            index[of_stage] = self.nothing + 1 + (code == REDUCE_GRAD) * self.num_stages + stage[of_stage]
        vocab = (kind >= VOCAB_IN_FORWARD) & (kind <= VOCAB_WEIGHT_GRAD)
        index[vocab] = self.vocab + (kind[vocab] - VOCAB_IN_FORWARD) * self.num_ranks + stage[vocab]
        frozen = kind == FROZEN_FORWARD
        index[frozen] = self.frozen + stage[frozen]
        return index

    def table_s(self, times: StageTimes) -> Array:
        """Shape ``[..., durations]``. The times have passed ``check``."""
        stages, ranks, batch = self.num_stages, self.num_ranks, times.batch_shape
        table = np.zeros((*batch, self.pair + len(self.pairs)))
        table[..., : self.nothing] = times.pass_table_s().reshape(*batch, self.nothing)
        table[..., self.nothing + 1 : self.nothing + 1 + stages] = times.gather_s
        table[..., self.nothing + 1 + stages : self.wire] = times.reduce_s
        table[..., self.wire : self.vocab] = times.wire_s
        if times.vocab is not None:
            for number, part in enumerate(times.vocab.passes()):
                start = self.vocab + number * ranks
                table[..., start : start + ranks] = part
            for number, joint in enumerate(times.vocab.joints()):
                table[..., self.joint + number] = joint
        if times.frozen is not None and self.num_pieces:
            table[..., self.frozen : self.pair] = times.frozen.forward_s
        if len(self.pairs):
            table[..., self.pair :] = times.pair_s(*self.pairs.T)
        return table

    def check(self, times: StageTimes, present: frozenset[int], name: str) -> None:
        """Raises InvalidSpec when ``times`` lack this schedule's vocabulary passes or frozen pieces, or have others."""
        if times.vocab is None:
            if present & set(range(VOCAB_IN_FORWARD, VOCAB_WEIGHT_GRAD + 1)):
                raise InvalidSpec(f"schedule {name!r} has vocabulary passes, but the times have none", "give vocab=")
        elif times.vocab.num_ranks not in (1, self.num_ranks):
            ranks = f"{times.vocab.num_ranks} ranks, but schedule {name!r} has {self.num_ranks}"
            raise InvalidSpec(f"times of vocabulary passes are of {ranks}")
        if self.num_pieces:
            pieces = 0 if times.frozen is None else times.frozen.num_pieces
            if pieces != self.num_pieces:
                raise InvalidSpec(f"schedule {name!r} has {self.num_pieces} frozen pieces, but times of {pieces}")


def durations_of(columns: Columns) -> tuple[Durations, Index]:
    """The layout, and the index of every pass; shape ``[passes]``."""
    paired = np.flatnonzero(np.bincount(columns.owner, minlength=len(columns.kind)) == 2)
    first = np.searchsorted(columns.owner, paired)
    stages, kind = columns.work_stage, columns.work_kind
    each = np.stack([stages[first], stages[first + 1], kind[first + 1] == BACKWARD], axis=1) if len(paired) else None
    if each is None:
        durations = Durations(columns.num_stages, columns.num_ranks, columns.num_pieces, np.zeros((0, 3), np.int64))
        return durations, durations.index(columns)
    pairs, which = np.unique(each, axis=0, return_inverse=True)
    durations = Durations(columns.num_stages, columns.num_ranks, columns.num_pieces, pairs)
    index = durations.index(columns)
    index[paired] = durations.pair + which.reshape(-1)
    return durations, index
