"""Whether every pass stands where and as often as it may: the verdict of ``check_schedule``, from columns."""

from __future__ import annotations

import numpy as np

from costmodel.schema.schedule import NO_MICROBATCH
from planner.simulator.columns import (
    BACKWARD,
    FORWARD,
    FROZEN_FORWARD,
    INPUT_GRAD,
    OVERLAP,
    REDUCE_GRAD,
    RESHARD,
    UNSHARD,
    VOCAB_BACKWARD,
    VOCAB_FORWARD,
    VOCAB_IN_FORWARD,
    VOCAB_WEIGHT_GRAD,
    WEIGHT_GRAD,
    Columns,
    Index,
)

_EMBEDDING = VOCAB_IN_FORWARD, VOCAB_FORWARD
_OUTPUT = VOCAB_FORWARD, VOCAB_WEIGHT_GRAD + 1


def fits(columns: Columns) -> bool:
    """Placement and counts. The order on a rank and between ranks is found by ``waits_of`` and ``running_order``."""
    return (
        columns.copies > 0
        and columns.num_stages % columns.copies == 0
        and _pairs_are_pairs(columns)
        and _in_place(columns)
        and _crosses_one_copy(columns)
        and _vocab_complete(columns)
        and _frozen_complete(columns)
        and _reduced_last(columns)
    )


def _pairs_are_pairs(columns: Columns) -> bool:
    pairs = np.flatnonzero(columns.kind == OVERLAP)
    if not len(pairs):
        return True
    if not (np.bincount(columns.owner, minlength=len(columns.kind))[pairs] == 2).all():
        return False
    first = np.searchsorted(columns.owner, pairs)
    backward = columns.work_kind[first + 1]
    return bool(
        (columns.work_kind[first] == FORWARD).all() and ((backward == BACKWARD) | (backward == INPUT_GRAD)).all()
    )


def _in_place(columns: Columns) -> bool:
    kind, stage = columns.work_kind, columns.work_stage
    rank = columns.rank[columns.owner]
    if columns.num_stages and not ((columns.home >= 0) & (columns.home < columns.num_ranks)).all():
        return False
    of_rank = (kind >= VOCAB_IN_FORWARD) & (kind <= VOCAB_WEIGHT_GRAD)
    of_stage = ~of_rank & (kind != FROZEN_FORWARD)
    exists = (stage >= 0) & (~of_stage | (stage < columns.num_stages))
    if not exists.all():
        return False
    at_home = np.where(of_rank, stage == rank, True)
    at_home[of_stage] = columns.home[stage[of_stage]] == rank[of_stage]
    microbatch = columns.work_microbatch
    whole = (kind >= UNSHARD) & (kind <= REDUCE_GRAD)
    counted = np.where(whole, microbatch == NO_MICROBATCH, (microbatch >= 0) & (microbatch < columns.num_microbatches))
    return bool(at_home.all() and counted.all())


def _crosses_one_copy(columns: Columns) -> bool:
    """Every micro-batch has all its passes in one copy, and none in another: F once, B once or I and W once."""
    shape = (columns.copies, columns.stages_per_copy, columns.num_microbatches)
    forward, backward, input_grad, weight_grad = (
        np.bincount(columns.unit(columns.works(kind)), minlength=int(np.prod(shape))).reshape(shape)
        for kind in (FORWARD, BACKWARD, INPUT_GRAD, WEIGHT_GRAD)
    )
    once = (forward == 1) & (backward + input_grad == 1) & (input_grad == weight_grad)
    never = forward + backward + input_grad + weight_grad == 0
    crosses = once.all(axis=1)
    return bool((crosses | never.all(axis=1)).all() and (crosses.sum(axis=0) == 1).all())


def _vocab_complete(columns: Columns) -> bool:
    """Both kinds of the embedding or neither; of the output layer F with B, F with W, or none; each that is there once
    per rank and micro-batch.
    """
    embedding, output = (frozenset(range(*bounds)) & columns.present for bounds in (_EMBEDDING, _OUTPUT))
    cells = columns.num_ranks * columns.num_microbatches
    return (
        (columns.copies == 1 or not embedding | output)
        and len(embedding) in (0, 2)
        and output in (set(), {VOCAB_FORWARD, VOCAB_BACKWARD}, {VOCAB_FORWARD, VOCAB_WEIGHT_GRAD})
        and all(
            bool((np.bincount(columns.unit(columns.works(kind)), minlength=cells) == 1).all())
            for kind in embedding | output
        )
    )


def _frozen_complete(columns: Columns) -> bool:
    """All pieces once for every micro-batch that has any."""
    shape = (columns.num_pieces, columns.num_microbatches)
    units = columns.unit(columns.works(FROZEN_FORWARD))
    times = np.bincount(units, minlength=shape[0] * shape[1]).reshape(shape)
    return bool(((times == 1).all(axis=0) | (times == 0).all(axis=0)).all())


def _reduced_last(columns: Columns) -> bool:
    """A stage's REDUCE_GRADs have something to reduce each, and leave nothing."""
    works = _by_stage(columns, BACKWARD, WEIGHT_GRAD, REDUCE_GRAD)
    stage, reduces = columns.work_stage[works], columns.work_kind[works] == REDUCE_GRAD
    if not reduces.any():
        return True
    fresh = np.concatenate([[True], stage[1:] != stage[:-1]])
    after_gradient = np.concatenate([[False], ~reduces[:-1]]) & ~fresh
    last = np.concatenate([fresh[1:], [True]])
    leaves = last & ~reduces & np.isin(stage, stage[reduces])
    return bool(after_gradient[reduces].all() and not leaves.any())


def gathered_in_time(columns: Columns) -> tuple[bool, Index, Index]:
    """(whether every pass of a stage that is gathered at all finds it gathered, and no gather or drop is idle; takers;
    gathers): each taker is the first pass after that UNSHARD.
    """
    none = np.zeros(0, np.int64)
    if not columns.present & {UNSHARD, RESHARD}:
        return True, none, none
    works = _by_stage(columns, FORWARD, BACKWARD, INPUT_GRAD, WEIGHT_GRAD, UNSHARD, RESHARD)
    kind, stage, owner = columns.work_kind[works], columns.work_stage[works], columns.owner[works]
    managed = np.isin(stage, stage[kind >= UNSHARD])
    kind, stage, owner = kind[managed], stage[managed], owner[managed]
    latest = np.maximum.accumulate(np.where(kind >= UNSHARD, np.arange(len(kind)), -1))
    before = np.concatenate([[-1], latest[:-1]])
    held = (before >= np.searchsorted(stage, stage)) & (kind[before] == UNSHARD)
    taker = np.flatnonzero((kind[1:] < UNSHARD) & (kind[:-1] == UNSHARD) & (stage[1:] == stage[:-1])) + 1
    return bool((held != (kind == UNSHARD)).all()), owner[taker], owner[taker - 1]


def _by_stage(columns: Columns, *kinds: int) -> Index:
    """Works of these kinds, stage after stage, each stage's in order, as a stage lives on one rank."""
    works = columns.works(*kinds)
    return works[np.argsort(columns.work_stage[works], kind="stable")]
