"""Splits of layers over stages where they are given: ranks of several stages, one rank alone, a shared vocabulary."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from costmodel.even_split import even_split
from costmodel.layer_table import PricedLayers
from costmodel.layouts import Column, IntColumn, Layouts
from costmodel.schedules import SCHEDULES
from costmodel.stages import Stages, stages_of
from planner.problem import Problem
from planner.search.bounds import ends_in_layers
from planner.stage_ends import fewest_at_ends


def is_given(layouts: Layouts) -> bool:
    """Whether the rows' split is given: a rank holds more than one stage, there is one rank, or none holds an end."""
    form, pp, vpp = SCHEDULES[layouts.schedule_name(0)], int(layouts.pp[0]), int(layouts.vpp[0])
    return pp == 1 or vpp > 1 or form.copies > 1 or form.barriers > 0


@lru_cache(maxsize=4096)
def given_splits(
    total: int, schedule: str, pp: int, vpp: int, ends: tuple[int, ...], fewest: int = 1
) -> tuple[tuple[int, ...], ...]:
    """Layers by stage of one copy: the even split, and where ``ends`` (embedding, head; in layers) weigh, the one that
    relieves the ranks that hold them. ``ends`` empty: the runtime's stages must be even. ``fewest``: layers that the
    first and the last stage hold at least; every other holds one.

    From the even split, one layer at a time goes from the fullest rank's longest stage that may give one to the
    emptiest rank's shortest, as long as that evens them out and no more than the ends weigh.
    """
    stages = stages_of(schedule, pp, vpp)
    even = even_split(total, stages.per_copy)
    if not any(ends) or pp == 1:
        return (tuple(even),)
    lengths, least = np.array(even), np.ones(len(even), np.int64)
    least[[0, -1]] = fewest
    for _ in range(sum(ends)):
        load = _loads(lengths, stages, ends)
        full, empty = int(load.argmax()), int(load.argmin())
        giving, taking = _of_rank(stages, full), _of_rank(stages, empty)
        giver = giving[np.where(lengths > least, lengths, -1)[giving].argmax()]
        taker = taking[lengths[taking].argmin()]
        moved = lengths.copy()
        moved[giver] -= 1
        moved[taker] += 1
        if moved[giver] < least[giver] or _loads(moved, stages, ends).max() >= load.max():
            break
        lengths = moved
    return tuple(dict.fromkeys((tuple(even), tuple(lengths.tolist()))))


def _loads(lengths: IntColumn, stages: Stages, ends: tuple[int, ...]) -> Column:
    load = stages.embedding * float(ends[0]) + stages.head * float(ends[1])
    np.add.at(load, list(stages.stage_to_rank), np.tile(lengths, stages.copies).astype(np.float64))
    return load


def _of_rank(stages: Stages, rank: int) -> IntColumn:
    return np.array([at % stages.per_copy for at, home in enumerate(stages.stage_to_rank) if home == rank])


def splits_of_row(problem: Problem, layers: PricedLayers) -> tuple[tuple[int, ...], ...]:
    """The splits of the one row in ``layers``."""
    if problem.pinned.lengths:
        return (problem.pinned.lengths,)
    layout = layers.layouts.row(0)
    runtime = problem.setting.runtime
    ends = tuple(ends_in_layers(layers, problem.num_kinds)[0].tolist()) if runtime.uneven_stages else ()
    fewest = fewest_at_ends(problem.setting.model, runtime)
    return given_splits(len(problem.kinds), layers.layouts.schedule_name(0), layout.pp, layout.vpp, ends, fewest)
