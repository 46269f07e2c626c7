"""The paths through one layout's order of passes where mixes are dealt to several stages a rank.

What a mix changes is how long its stages' backwards take; all else is known. Three paths to begin with, for the rest
chains that are found on the timeline (``closing.py``):

    (1) a rank's own work           T >= m w_r
        of one copy of the model    T >= sum over stages s before its first, F_s (and B_s, unless split) + m w_r
    (2) shared cores                T >= (m · replicas / cores) W
    (3) frozen parts in bubbles     T >= (m / p) (W + all pieces)

with w_r and W one micro-batch through a rank's stages, and through all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from costmodel.layer_table import PricedLayers
from costmodel.layouts import Column
from costmodel.schema.schedule import Schedule
from planner.evaluate import stage_times
from planner.order import build_order
from planner.placement import Placement
from planner.problem import Problem
from planner.search.dealt import DealtMix
from planner.search.joined import Step
from planner.search.placed import dealt_by
from planner.search.stage_problem import Path
from planner.simulator import StageTimes


@dataclass(frozen=True)
class DealtProblem:
    """What ranks may take. ``lengths``, ``homes``: layers of one copy's stages, and the rank by whose mix each goes;
    ``plain``: the stages' times with nothing recomputed."""

    choices: tuple[tuple[DealtMix, ...], ...]
    lengths: tuple[int, ...]
    homes: tuple[int, ...]
    plain: StageTimes
    paths: tuple[Path, ...]

    @cached_property
    def stages(self) -> tuple[NDArray[np.intp], ...]:
        """By rank, the stages of all copies that go by its mix."""
        homes = np.tile(self.homes, self.plain.num_stages // len(self.homes))
        return tuple(np.flatnonzero(homes == rank) for rank in range(len(self.choices)))

    @cached_property
    def delays_s(self) -> Column:
        """[paths] with nothing recomputed."""
        plain = self.plain
        times_s = np.stack([plain.forward_s, plain.input_grad_s + plain.weight_grad_s, plain.weight_grad_s])
        return np.array([path.length_s(times_s) for path in self.paths])

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """The mixes of every rank, by what they add to the paths."""
        backwards = np.stack([path.passes[1] for path in self.paths])
        return tuple(
            Step(
                ((rank, rank + 1),) * len(own),
                self._of_all_copies(own, stages) @ backwards[:, stages].T,
                tuple(one.extras_s for one in own),
            )
            for rank, (own, stages) in enumerate(zip(self.choices, self.stages, strict=True))
        )

    def most_recompute_s(self, limit_s: float) -> Column:
        """[ranks] seconds that a rank's mix may add to one micro-batch's backwards, of passes within ``limit_s``; less
        than 0 where not even passes without recomputation are."""
        if self.delays_s.max() > limit_s:
            return np.full(len(self.stages), -1.0)
        often = np.array([[path.passes[1, stages].min() for stages in self.stages] for path in self.paths])
        left_s = np.broadcast_to((limit_s - self.delays_s)[:, None], often.shape)
        return np.asarray(np.divide(left_s, often, out=np.full(often.shape, np.inf), where=often > 0.0).min(axis=0))

    def with_found(self, paths: Sequence[Path]) -> DealtProblem:
        """The same with more known paths."""
        return replace(self, paths=(*self.paths, *paths))

    def times(self, several: Sequence[Sequence[DealtMix]]) -> tuple[StageTimes, Column]:
        """What each of several choices takes: a batch of times, and [n] seconds after the passes."""
        recompute_s = np.zeros((len(several), self.plain.num_stages))
        for rank, stages in enumerate(self.stages):
            recompute_s[:, stages] = self._of_all_copies([chosen[rank] for chosen in several], stages)
        ends_s = [max(one.extras_s for one in chosen) for chosen in several]
        return replace(self.plain, recompute_s=recompute_s), np.array(ends_s)

    def split(self, chosen: Sequence[DealtMix]) -> tuple[tuple[int, ...], tuple[int, ...], list[Column]]:
        """What a choice is: layers of one copy's stages, the rank by whose mix each goes, and the mixes [K, P]."""
        return self.lengths, self.homes, [one.mix for one in chosen]

    def _of_all_copies(self, mixes: Sequence[DealtMix], stages: NDArray[np.intp]) -> Column:
        """[n, stages]"""
        recompute_s = np.stack([mix.recompute_s for mix in mixes])
        return np.tile(recompute_s, len(stages) // recompute_s.shape[1])


def dealt_problem(problem: Problem, layers: PricedLayers, lengths: tuple[int, ...]) -> DealtProblem:
    """The one row in ``layers`` under one split, with the paths above, and nothing to choose from yet."""
    placement = Placement(layers.layouts.row(0), layers.layouts.schedule_name(0), lengths, (0,) * len(problem.kinds))
    plain = replace(stage_times(layers, placement, problem), recompute_s=0.0, frozen=None)
    paths = tuple(_known_paths(problem, layers, build_order(layers)))
    homes = dealt_by(layers)
    return DealtProblem(((),) * (max(homes) + 1), lengths, homes, plain, paths)


def _known_paths(problem: Problem, layers: PricedLayers, order: Schedule) -> list[Path]:
    layout, homes = layers.layouts.row(0), np.array(order.stage_to_rank)
    each, every = order.num_microbatches / order.copies, np.ones(len(homes))
    none, paths = 0.0 * every, []
    for rank in range(order.num_ranks):
        own = homes == rank
        before = (np.arange(len(homes)) < own.argmax()) * (order.copies == 1)
        forward = before + each * own
        paths.append(Path(np.stack([forward, each * own if order.splits_backward else forward, none]), 0.0))
    cores = problem.setting.shared_cores
    if cores is not None:
        shared = each * layout.world_size / layout.pp / cores * every
        paths.append(Path(np.stack([shared, shared, none]), 0.0))
    mean = each / layout.pp * every
    frozen_s = float(layers.frozen.piece_s[0].sum()) * order.num_microbatches / layout.pp
    return [*paths, Path(np.stack([mean, mean, none]), frozen_s)]
