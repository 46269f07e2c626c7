"""One layout's stages and what each may take; and the paths through its order of passes that bound the makespan.

A path is a chain of passes, each of which waits for the one before: the makespan is no shorter. With F_s, B_s, W_s a
stage's forward, backward and the weight gradient in it, I_s = B_s - W_s, d_s the delays of the edges before s and D of
all:

    (4) reaching and draining       T >= U_s + 2 d_s + m (F_s + B_s),  U_s = sum_{r<s} (F_r + B_r)
        of a split backward         T >= sum_{r<s} F_r + d_s + m (F_s + B_s)
                                    T >= sum_{r<s} (F_r + I_r) + 2 d_s + m (F_s + I_s) + W_0,  s > 0
    (5) round trips                 T >= U_p + 2 D + (m - 1) B_s + (m - a_s) F_s
        of a split backward         T >= sum_r F_r + sum_{r>s} I_r + 2 D - d_s + m B_s + (m - a_s) F_s
                                    T >= sum_r (F_r + I_r) + 2 D + (m - 1) F_s + W_0
        with a_s the forwards before the stage's first backward (1 where all forwards of the step come first)
    (6) loops (1f1b)                T >= U_s + 2 d_s + floor(m / k) (U_p - U_s + 2 (D - d_s)),  k = p - s
    (7) shared cores                T >= (m · replicas / cores) U_p
    (8) found on the timeline       whatever chain set the makespan of a choice that was simulated
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate

import numpy as np

from costmodel.layouts import Column
from planner.search.joined import Step
from planner.search.options import Option
from planner.simulator import StageTimes


@dataclass(frozen=True)
class StageChoice:
    """One option of one stage: layers [start, stop)."""

    start: int
    stop: int
    option: Option


@dataclass(frozen=True)
class Path:
    """``passes``: [3, p] how often it takes each stage's F, B and W; an input gradient is B less W. ``delays_s``: of
    the edges on its way."""

    passes: Column
    delays_s: float

    def length_s(self, times_s: Column) -> float:
        """``times_s``: [3, p] F, B and W of every stage."""
        return float((self.passes * times_s).sum()) + self.delays_s


@dataclass(frozen=True)
class StageProblem:
    """``choices[s]``: the options of stage s. ``edges_s[s]``: delay from stage s to s + 1, and back. ``ahead[s]``: its
    forwards before its first backward, a_s above. ``one_f_one_b``: whether (6) holds for the schedule.

    ``split_backward``: only forwards come before a rank's first pass and only input gradients after its last (zb-h1).
    ``replicas_per_core``: pipelines per core that share a host; 0 where each rank has a device. ``found``: paths (8).
    """

    choices: tuple[tuple[StageChoice, ...], ...]
    num_microbatches: int
    edges_s: tuple[float, ...]
    ahead: tuple[int, ...]
    one_f_one_b: bool
    split_backward: bool
    replicas_per_core: float
    found: tuple[Path, ...] = ()

    @cached_property
    def reach_s(self) -> tuple[float, ...]:
        """d_s: delays of the edges before every stage."""
        return tuple(accumulate(self.edges_s, initial=0.0))

    def rest_s(self, s: int) -> float:
        """D - d_s: delays of the edges from stage s on."""
        return self.reach_s[-1] - self.reach_s[s]

    @cached_property
    def paths(self) -> tuple[Column, Column]:
        """[paths, 3, p] passes and [paths] delays of all that are known."""
        known = [*_known_paths(self), *self.found]
        return np.stack([path.passes for path in known]), np.array([path.delays_s for path in known])

    @cached_property
    def delays_s(self) -> Column:
        """[paths]"""
        return self.paths[1]

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """The choices of every stage, by what they add to the paths."""
        passes = self.paths[0]
        return tuple(
            Step(
                tuple((choice.start, choice.stop) for choice in choices),
                pass_times_s([choice.option for choice in choices]).reshape(3, -1).T @ passes[:, :, s].T,
                tuple(choice.option.extras_s for choice in choices),
            )
            for s, choices in enumerate(self.choices)
        )

    def with_found(self, paths: Sequence[Path]) -> StageProblem:
        """The same problem with more known paths."""
        return replace(self, found=(*self.found, *paths))

    def split(self, chosen: Sequence[StageChoice]) -> tuple[tuple[int, ...], tuple[int, ...], list[Column]]:
        """What a choice is: layers of each stage, the stage by whose mix it goes, and the mixes [K, P]."""
        lengths = tuple(choice.stop - choice.start for choice in chosen)
        return lengths, tuple(range(len(lengths))), [choice.option.mix for choice in chosen]

    def times(self, several: Sequence[Sequence[StageChoice]]) -> tuple[StageTimes, Column]:
        """What each of several choices takes: a batch of times, and [n] seconds after the passes."""
        options = [[choice.option for choice in chosen] for chosen in several]
        forward_s, backward_s, weight_s = np.stack([pass_times_s(row) for row in options], axis=1)
        times = StageTimes(forward_s, np.maximum(backward_s - weight_s, 0.0), weight_s, edge_s=np.array(self.edges_s))
        return times, np.array([max(option.extras_s for option in row) for row in options])


def path_bound_s(problem: StageProblem, options: Sequence[Option]) -> float:
    """The longest of (4)-(8), and the latest end after it, for options that are already chosen."""
    passes, delays_s = problem.paths
    lengths_s = passes.reshape(len(passes), -1) @ pass_times_s(options).ravel() + delays_s
    return float(lengths_s.max()) + max(option.extras_s for option in options)


def pass_times_s(options: Sequence[Option]) -> Column:
    """[3, p] F, B and W of every stage."""
    return np.array([(one.forward_s, one.backward_s, one.weight_grad_s) for one in options]).T


def _known_paths(problem: StageProblem) -> Iterator[Path]:
    p, m, across_s = len(problem.choices), problem.num_microbatches, problem.reach_s[-1]
    every, stage = np.ones(p), np.arange(p)

    def path(forward: Column, backward: Column, weight: Column, delays_s: float) -> Path:
        return Path(np.stack([forward, backward, weight]), delays_s)

    for s, (ahead, reach_s) in enumerate(zip(problem.ahead, problem.reach_s, strict=True)):
        before, here = (stage < s) * 1.0, (stage == s) * 1.0
        after, first, none = every - before - here, (stage == 0) * 1.0, 0.0 * every
        if problem.split_backward:
            yield path(before + m * here, m * here, none, reach_s)
            own = m * here + after
            yield path(every + (m - ahead) * here, own, -after, across_s + problem.rest_s(s))
            yield path(every + (m - 1) * here, every, first - every, 2 * across_s)
            if s:
                there = before + m * here
                yield path(there, there, first - there, 2 * reach_s)
            continue
        yield path(before + m * here, before + m * here, none, 2 * reach_s)
        yield path(every + (m - ahead) * here, every + (m - 1) * here, none, 2 * across_s)
        if problem.one_f_one_b:
            loops = before + (m // (p - s)) * (every - before)
            yield path(loops, loops, none, 2 * reach_s + (m // (p - s)) * 2 * problem.rest_s(s))
    if problem.replicas_per_core:
        shared = m * problem.replicas_per_core * every
        yield path(shared, shared, 0.0 * every, 0.0)
