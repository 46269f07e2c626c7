"""What every rank takes at least where the split of layers over stages is one of a few (``splits.py``).

What a split's stages hold is known whatever the policies; of several splits the least of each figure counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from costmodel.even_split import counts_per_rank
from costmodel.layer_table import PricedLayers
from costmodel.layouts import Column, IntColumn, Layouts
from costmodel.pipeline import INTERLEAVED, splits_backward
from costmodel.stages import Stages, stages_of
from planner.problem import Problem
from planner.search.bounds import ends_in_layers, interleaved_alive
from planner.search.splits import given_splits
from planner.stage_ends import fewest_at_ends


@dataclass(frozen=True)
class GivenShares:
    """``chain``: [n, 1] layers of any pp - 1 stages. By rank, [n, pp]: ``worth`` of its layers of all copies;
    ``own_s``, seconds of one micro-batch there and back, the mean over copies; ``way_s``, those of the layers before
    each of the first pp stages, of a split backward its forwards alone; ``evenness``, what a rank keeps as a share of
    what it would were its stages equally long."""

    chain: Column
    worth: Column
    own_s: Column
    way_s: Column
    evenness: Column


def no_shares(n: int, pp: int) -> GivenShares:
    """Where the split is free: nothing is known."""
    zeros = np.zeros((n, pp))
    return GivenShares(zeros[:, :1], zeros, zeros, zeros, np.ones((n, pp)))


def given_shares(problem: Problem, layers: PricedLayers, worth: Column, least: Column) -> GivenShares:
    """Of rows whose stages lie alike. ``worth``, ``least``: [n, K] of a layer, its worth and its least seconds there
    and back."""
    layouts, kinds = layers.layouts, problem.num_kinds
    n, name, pp, vpp = len(layouts), layouts.schedule_name(0), int(layouts.pp[0]), int(layouts.vpp[0])
    stages, runtime = stages_of(name, pp, vpp), problem.setting.runtime
    fewest = fewest_at_ends(problem.setting.model, runtime)
    on_way_s = np.where(splits_backward(layouts)[:, None], layers.forward[:, :kinds], least)
    chain, columns = np.zeros((n, 1)), np.zeros((4, n, pp))
    ends = ends_in_layers(layers, kinds) * runtime.uneven_stages
    distinct, row = np.unique(ends, axis=0, return_inverse=True)
    for index, weights in enumerate(distinct.tolist()):
        rows = row.ravel() == index
        splits = given_splits(len(problem.kinds), name, pp, vpp, tuple(weights), fewest)
        chain[rows] = min(sum(sorted(split)[: pp - 1]) for split in splits)
        held = [counts_per_rank(problem.kinds, kinds, split, stages.stage_to_rank) for split in splits]
        of_splits = [
            (
                worth[rows] @ counts.T,
                least[rows] @ counts.T / stages.copies,
                _before_s(problem.kinds, split, on_way_s[rows], pp),
                _evenness(layouts.take(rows), stages, split, counts),
            )
            for split, counts in zip(splits, held, strict=True)
        ]
        columns[:, rows] = np.min([np.stack(own) for own in of_splits], axis=0)
    return GivenShares(chain, *columns)


def _before_s(kinds: list[int], split: tuple[int, ...], layer_s: Column, pp: int) -> Column:
    """[n, pp] seconds of the layers before each of the first pp stages, which lie on one rank after the other."""
    before_s = np.concatenate([np.zeros((len(layer_s), 1)), np.cumsum(layer_s[:, kinds], axis=1)], axis=1)
    return np.asarray(before_s[:, np.cumsum((0, *split))[:pp]])


def _evenness(layouts: Layouts, stages: Stages, split: tuple[int, ...], held: IntColumn) -> Column:
    """[n, pp] what a rank keeps at least, as a share of what it would were its stages equally long: as if every stage
    were as short as its shortest, or, interleaved, with what is alive of each after the warm-up."""
    pp = stages.num_ranks
    lengths = np.tile(np.array(split, np.float64), stages.copies)
    shortest = np.full(pp, np.inf)
    np.minimum.at(shortest, list(stages.stage_to_rank), lengths)
    least = shortest * len(stages.stage_to_rank) / pp / np.maximum(held.sum(axis=1), 1)
    if not (layouts.schedule == INTERLEAVED).any():
        return np.broadcast_to(least, (len(layouts), pp))
    alive = interleaved_alive(layouts, np.arange(pp))
    of_rank = lengths.reshape(-1, pp).T
    counted = (alive * of_rank).sum(axis=2) / np.maximum(of_rank.sum(axis=1), 1.0) / alive.mean(axis=2)
    return np.asarray(np.where((layouts.schedule == INTERLEAVED)[:, None], counted, least))
