"""Which pass waits for which: ``costmodel.passes.Rules`` on columns.

What a pass takes from its own rank it need not wait for, as a rank runs its passes in order; what is left are products
of other ranks, joint products, and gathers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner.simulator.columns import (
    BACKWARD,
    FORWARD,
    FROZEN_FORWARD,
    INPUT_GRAD,
    JOINT_MAKERS,
    VOCAB_BACKWARD,
    VOCAB_FORWARD,
    VOCAB_IN_BACKWARD,
    VOCAB_IN_FORWARD,
    VOCAB_WEIGHT_GRAD,
    WEIGHT_GRAD,
    Columns,
    Index,
)
from planner.simulator.fits import gathered_in_time
from planner.simulator.table import Delays

_NOBODY = -1


@dataclass(frozen=True, eq=False)
class Waits:
    """Shape ``[waits]``, ascending by taker.

    taker  the pass that waits
    source the pass it waits for; or passes + j · micro-batches + m, the joint product j (as JOINT_MAKERS) of m
    delay  index into Delays' table; the sends between stages are those below num_stages - 1
    """

    taker: Index
    source: Index
    delay: Index


def waits_of(columns: Columns) -> Waits | None:
    """All waits; None when something taken is made by nobody, or made later on the same rank."""
    in_time, gather_taker, gather = gathered_in_time(columns)
    delays = Delays(columns.num_stages, columns.num_pieces)
    found = [*_stage_waits(columns, delays), *_vocab_waits(columns, delays), *_frozen_waits(columns, delays)]
    takers, sources, delay = (np.concatenate([part[at] for part in found]) for at in range(3))
    if not in_time or (sources == _NOBODY).any():
        return None
    passes = len(columns.kind)
    made_here = np.flatnonzero(sources < passes)
    made_here = made_here[columns.rank[sources[made_here]] == columns.rank[takers[made_here]]]
    if (sources[made_here] >= takers[made_here]).any():
        return None
    elsewhere = np.ones(len(takers), bool)
    elsewhere[made_here] = False
    takers, sources, delay = takers[elsewhere], sources[elsewhere], delay[elsewhere]
    takers, sources = np.concatenate([takers, gather_taker]), np.concatenate([sources, gather])
    delay = np.concatenate([delay, np.full(len(gather), delays.none)])
    by_taker = np.argsort(takers, kind="stable")
    return Waits(takers[by_taker], sources[by_taker], delay[by_taker])


_Found = tuple[Index, Index, Index]


def _stage_waits(columns: Columns, delays: Delays) -> list[_Found]:
    m, per_copy = columns.num_microbatches, columns.stages_per_copy
    activation = _makers(columns, FORWARD)
    gradient = _makers(columns, BACKWARD, INPUT_GRAD)
    found = []

    forward = columns.works(FORWARD)
    inner = forward[columns.work_stage[forward] % per_copy > 0]
    found.append((columns.owner[inner], activation[columns.unit(inner) - m], columns.work_stage[inner] - 1))
    if VOCAB_IN_FORWARD in columns.present:
        entry = forward[columns.work_stage[forward] % per_copy == 0]
        found.append(_joint(columns, entry, VOCAB_IN_FORWARD, delays))

    backward = columns.works(BACKWARD, INPUT_GRAD)
    ends = (columns.work_stage[backward] + 1) % per_copy == 0
    inner, last = backward[~ends], backward[ends]
    found.append((columns.owner[inner], gradient[columns.unit(inner) + m], columns.work_stage[inner]))
    if VOCAB_FORWARD in columns.present:
        maker = VOCAB_BACKWARD if VOCAB_BACKWARD in columns.present else VOCAB_FORWARD
        found.append(_joint(columns, last, maker, delays))
    weight_grad = columns.works(WEIGHT_GRAD)
    for works, product in ((backward, activation), (weight_grad, gradient)):
        source = product[columns.unit(works)]
        found.append((columns.owner[works], source, np.full(len(works), delays.none)))
    return found


def _vocab_waits(columns: Columns, delays: Delays) -> list[_Found]:
    found = []
    rules = (
        (VOCAB_FORWARD, columns.stages_per_copy - 1, (FORWARD,)),
        (VOCAB_IN_BACKWARD, 0, (BACKWARD, INPUT_GRAD)),
    )
    for taker, stage, makers in rules:
        if taker in columns.present:
            works = columns.works(taker)
            unit = stage * columns.num_microbatches + columns.work_microbatch[works]
            source = _makers(columns, *makers)[unit]
            found.append((columns.owner[works], source, np.full(len(works), delays.broadcast)))
    for taker in (VOCAB_BACKWARD, VOCAB_WEIGHT_GRAD):
        if taker in columns.present:
            found.append(_joint(columns, columns.works(taker), VOCAB_FORWARD, delays))
    return found


def _frozen_waits(columns: Columns, delays: Delays) -> list[_Found]:
    if FROZEN_FORWARD not in columns.present:
        return []
    works = columns.works(FROZEN_FORWARD)
    made = np.full(columns.num_pieces * columns.num_microbatches, _NOBODY)
    made[columns.unit(works)] = columns.owner[works]
    later = works[columns.work_stage[works] > 0]
    source = made[columns.unit(later) - columns.num_microbatches]
    return [(columns.owner[later], source, delays.frozen + columns.work_stage[later] - 1)]


def _makers(columns: Columns, *kinds: int) -> Index:
    """The pass that makes a stage's product; shape ``[stages · micro-batches]``."""
    works = columns.works(*kinds)
    made = np.full(columns.num_stages * columns.num_microbatches, _NOBODY)
    made[columns.unit(works)] = columns.owner[works]
    return made


def _joint(columns: Columns, takers: Index, maker: int, delays: Delays) -> _Found:
    if maker in columns.present:
        number = JOINT_MAKERS.index(maker) * columns.num_microbatches
        source = len(columns.kind) + number + columns.work_microbatch[takers]
    else:
        source = np.full(len(takers), _NOBODY)
    return columns.owner[takers], source, np.full(len(takers), delays.none)
