"""Which layers each pipeline rank might hold, and which of that a step time leaves whatever memory there is."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from costmodel.even_split import even_split
from costmodel.layer_table import PricedLayers
from costmodel.layouts import Assignment
from costmodel.rank_work import sum_work
from costmodel.schedules import SCHEDULES
from costmodel.stages import stages_of
from planner.problem import Problem
from planner.search.bounds import ROUNDING, most_shift
from planner.stage_ends import fewest_by_stage

Range = tuple[int, int, int]
"""(rank, start, stop): a pipeline rank and the layers [start, stop) it might hold."""


def list_ranges(problem: Problem, layers: PricedLayers) -> dict[Range, tuple[int, ...]]:
    """{range: layers by kind} of all that lies near the even split, for rows that share layer costs; empty where an
    end of the model may stand alone."""
    kinds, num_kinds = problem.kinds, problem.num_kinds
    layout = layers.layouts.row(0)
    total, pp = len(kinds), layout.pp
    prefix = np.zeros((total + 1, num_kinds), np.int64)
    for index, kind in enumerate(kinds):
        prefix[index + 1] = prefix[index]
        prefix[index + 1, kind] += 1
    if problem.pinned.lengths:
        ends = np.concatenate([[0], np.cumsum(problem.pinned.lengths)]).tolist()
        return {
            (rank, start, stop): tuple((prefix[stop] - prefix[start]).tolist())
            for rank, (start, stop) in enumerate(pairwise(ends))
        }
    shift = int(most_shift(layers, problem.num_kinds)[0])
    cuts = np.concatenate([[0], np.cumsum(even_split(total, pp))])
    fewest = fewest_by_stage(problem.setting.model, problem.setting.runtime, pp)
    found = []
    for rank in range(pp):
        starts = [0] if rank == 0 else range(cuts[rank] - shift, cuts[rank] + shift + 1)
        stops = [total] if rank == pp - 1 else range(cuts[rank + 1] - shift, cuts[rank + 1] + shift + 1)
        for start in starts:
            for stop in stops:
                length = stop - start
                inside = 0 <= start <= total - length and length >= fewest[rank]
                if inside and abs(length - (cuts[rank + 1] - cuts[rank])) <= shift:
                    found.append((rank, int(start), int(stop)))
    where = np.array(found)
    counts = (prefix[where[:, 2]] - prefix[where[:, 1]]).tolist()
    return {key: tuple(own) for key, own in zip(found, counts, strict=True)}


def ranges_in_time(
    layers: PricedLayers,
    ranges: Mapping[Range, tuple[int, ...]],
    policies: tuple[int, ...],
    limit_s: float,
    least_s: Mapping[Range, float] | None = None,
) -> dict[Range, tuple[int, ...]]:
    """Of ``ranges`` of one stage a rank those that joined ranges within ``limit_s`` of makespan could have.

    Every layer runs under its fastest policy, so no placement that is left out meets the limit; ``least_s``: seconds
    that a range's layers take for their backward at least, where more is known of it. The path is that of
    reaching a stage, all its micro-batches, and draining, (4) in ``planner.search.stages``: before a stage lies the
    least of all ways there of which every stage meets the limit. Empty when no ranges join.
    """
    one, layout = layers.take(np.zeros(1, np.intp)), layers.layouts.row(0)
    name, pp = layers.layouts.schedule_name(0), layout.pp
    rank, start, stop = np.array(list(ranges)).T
    held = np.array(list(ranges.values()))
    stages = stages_of(name, pp, 1)
    kinds = np.arange(held.shape[1])
    counts = np.zeros((1, *held.shape, layers.costs.num_policies))
    fastest = np.array(policies)[layers.backward[0, :-2][:, list(policies)].argmin(axis=1)]
    counts[0][:, kinds, fastest] = held
    once = np.ones_like(rank)[None]
    work = sum_work(one, Assignment(counts, rank[None], once, stages.embedding[None, rank], stages.head[None, rank]))
    work_s = (work.forward_pass_s + work.backward_pass_s)[0]
    if least_s is not None:
        own_s = held @ layers.backward[0, kinds, fastest]
        work_s = work_s + np.maximum(np.array([least_s[key] for key in ranges]) - own_s, 0.0)
    split = SCHEDULES[name].splits_backward
    way_s = work.forward_pass_s[0] if split else work_s
    sends_s = (1.0 if split else 2.0) * float(layers.edge_s[0])
    before_s = np.full((pp + 1, int(stop.max()) + 1), np.inf)
    before_s[0, 0] = 0.0
    meets = np.zeros(len(rank), bool)
    of_rank = [np.flatnonzero(rank == at) for at in range(pp)]
    for at, own in enumerate(of_rank):
        reach_s = before_s[at, start[own]]
        soon = np.isfinite(reach_s) & (
            reach_s + at * sends_s + layout.num_microbatches * work_s[own] <= limit_s * ROUNDING
        )
        own, reach_s = own[soon], reach_s[soon]
        meets[own] = True
        np.minimum.at(before_s[at + 1], stop[own], reach_s + way_s[own])
    return that_join({key: own for (key, own), kept in zip(ranges.items(), meets.tolist(), strict=True) if kept}, pp)


def that_join(ranges: Mapping[Range, tuple[int, ...]], pp: int) -> dict[Range, tuple[int, ...]]:
    """Of ``ranges`` of one stage a rank those on some way from the first layer to the last, over all ranks."""
    if not ranges:
        return {}
    rank, start, stop = np.array(list(ranges)).T
    of_rank, joins = [np.flatnonzero(rank == at) for at in range(pp)], np.ones(len(rank), bool)
    for ways, near, far, first in ((of_rank, start, stop, 0), (of_rank[::-1], stop, start, int(stop.max()))):
        reached = np.zeros(int(stop.max()) + 1, bool)
        reached[first] = True
        for own in ways:
            joins[own] &= reached[near[own]]
            reached = np.zeros_like(reached)
            reached[far[own[joins[own]]]] = True
    return {key: own for (key, own), kept in zip(ranges.items(), joins.tolist(), strict=True) if kept}
