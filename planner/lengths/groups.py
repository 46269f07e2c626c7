"""The program that divides a step's ranks into groups of unlike context parallelism.

Sets
    j = 0..J-1          lengths, n_j sequences of each
    s = 0..S-1          shapes of a group: c_s ranks, t_js seconds for one sequence of length j among others like it

Variables
    g_s in {0, 1, …}    groups of shape s
    x_js >= 0           sequences of length j that groups of shape s run

For a step of T seconds, the fewest ranks that finish in time:

Objective   (0)  N(T) = min sum_s c_s g_s

Constraints
    (1) every sequence runs         sum_s x_js = n_j                                      add_sequences
    (2) groups finish               sum_j t_js x_js <= T g_s                              add_time
    (3) sequences are whole         x_js <= floor(T / t_js) g_s                           add_whole

N(T) falls as T grows, so the least T with N(T) at most the ranks that there are is found by bisection. The makespan
itself as a variable would multiply g_s in (2): that product, or its linearisation, is what stalls.
(3) leaves x_js = 0 where one sequence alone takes longer than T. Groups of one shape share their sequences in
fractions, so the least T is a lower bound of every way to deal whole sequences to groups.

Source: Wang et al. 2025 (FlexSP), section 4, for the problem; the formulation is this project's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import pulp

from costmodel.layouts import Column

SLACK = 1e-9

CLOSEST = 1e-4
"""Bisection goes no further than this share of T, whatever the gap that is asked for."""

LOT = 0.005
"""Sequences are dealt in lots of at most this share of the step."""


@dataclass(frozen=True)
class GroupProblem:
    """``counts[j]`` sequences; ``ranks[s]`` of a group; ``seconds[j, s]``, infinite where a sequence does not fit;
    ``world``: ranks to divide.
    """

    counts: tuple[int, ...]
    ranks: tuple[int, ...]
    seconds: Column
    world: int

    @property
    def floor_s(self) -> float:
        """No division is faster: every sequence where it costs least of the ranks' time, or alone where it is fastest.

        max(sum_j n_j min_s c_s t_js / world, max_j min_s t_js).
        """
        cost = (self.seconds * np.array(self.ranks)).min(axis=1)
        return float(max(cost @ np.array(self.counts) / self.world, self.seconds.min(axis=1).max()))

    def only(self, shape: int) -> GroupProblem:
        """The same with groups of one shape alone."""
        return GroupProblem(self.counts, (self.ranks[shape],), self.seconds[:, [shape]], self.world)


@dataclass(frozen=True)
class Fewest:
    """``ranks`` = N(T), infinite where no number of them finishes in T; ``groups[s]`` that take so many."""

    ranks: float
    groups: tuple[int, ...] = ()


def fewest_ranks(problem: GroupProblem, step_s: float, time_limit_s: float = 2.0) -> Fewest | None:
    """N(T) by (0)-(3); None where the solver's limit came first."""
    fitting = problem.seconds <= step_s * (1.0 + SLACK)
    if not fitting.any(axis=1).all():
        return Fewest(float("inf"))
    model = pulp.LpProblem("groups", pulp.LpMinimize)
    variables = _Variables(problem, fitting)
    model += pulp.lpSum(ranks * groups for ranks, groups in zip(problem.ranks, variables.groups, strict=True))
    for constraint in add_sequences(problem, variables):
        model += constraint
    for add in (add_time, add_whole):
        for constraint in add(problem, variables, step_s):
            model += constraint
    model.solve(pulp.HiGHS(msg=False, timeLimit=time_limit_s, gapRel=0.0, threads=1))
    status = pulp.LpStatus[model.status]
    if status != "Optimal":
        return Fewest(float("inf")) if status == "Infeasible" else None
    groups = tuple(round(one.varValue or 0.0) for one in variables.groups)
    return Fewest(float(sum(ranks * number for ranks, number in zip(problem.ranks, groups, strict=True))), groups)


class _Variables:
    """The program's variables, by the names used above; x only where a sequence fits."""

    def __init__(self, problem: GroupProblem, fitting: Any) -> None:
        # One group more than there is room for says that no number of them would do.
        most = [problem.world // ranks + 1 for ranks in problem.ranks]
        self.groups = [pulp.LpVariable(f"g_{s}", 0, upper, cat="Integer") for s, upper in enumerate(most)]
        self.runs = {(j, s): pulp.LpVariable(f"x_{j}_{s}", lowBound=0) for j, s in np.argwhere(fitting).tolist()}


def add_sequences(problem: GroupProblem, v: _Variables) -> list[Any]:
    """(1)"""
    return [
        pulp.lpSum(x for (of, _), x in v.runs.items() if of == j) == count for j, count in enumerate(problem.counts)
    ]


def add_time(problem: GroupProblem, v: _Variables, step_s: float) -> list[Any]:
    """(2), divided by T"""
    return [
        pulp.lpSum(float(problem.seconds[j, s]) / step_s * x for (j, on), x in v.runs.items() if on == s) <= groups
        for s, groups in enumerate(v.groups)
    ]


def add_whole(problem: GroupProblem, v: _Variables, step_s: float) -> list[Any]:
    """(3)"""
    return [x <= int(step_s * (1.0 + SLACK) / problem.seconds[j, s]) * v.groups[s] for (j, s), x in v.runs.items()]


@dataclass(frozen=True)
class Dealt:
    """Whole sequences on groups: ``shapes[i]`` of group i, ``sequences[i][j]`` how many of length j, ``loads_s[i]``."""

    shapes: tuple[int, ...]
    sequences: tuple[tuple[int, ...], ...]
    loads_s: tuple[float, ...]

    @property
    def makespan_s(self) -> float:
        return max(self.loads_s)


def deal(problem: GroupProblem, groups: Sequence[int]) -> Dealt | None:
    """Longest sequences first, each to the group that would finish it earliest; None where one fits no group.

    Short sequences go in lots that take at most LOT of the floor. Ranks that ``groups`` leave over become groups of the
    largest shapes that still have room.
    """
    numbers = list(groups)
    left = problem.world - sum(ranks * number for ranks, number in zip(problem.ranks, numbers, strict=True))
    for s in sorted(range(len(numbers)), key=lambda s: -problem.ranks[s]):
        numbers[s] += left // problem.ranks[s]
        left %= problem.ranks[s]
    shapes = np.repeat(np.arange(len(numbers)), numbers)
    if left or not len(shapes) or not np.isfinite(problem.seconds[:, shapes]).any(axis=1).all():
        return None
    loads = np.zeros(len(shapes))
    given = np.zeros((len(shapes), len(problem.counts)), np.int64)
    quickest, most_s = problem.seconds[:, shapes].min(axis=1), LOT * problem.floor_s
    for j in np.argsort(-quickest, kind="stable").tolist():
        each = problem.seconds[j, shapes]
        lot = max(int(most_s / quickest[j]), 1)
        for start in range(0, problem.counts[j], lot):
            number = min(lot, problem.counts[j] - start)
            after = loads + number * each
            first = int(after.argmin())
            loads[first] = after[first]
            given[first, j] += number
    return Dealt(tuple(shapes.tolist()), tuple(map(tuple, given.tolist())), tuple(loads.tolist()))


@dataclass(frozen=True)
class Division:
    """The best way found to divide ranks, and what no way can beat."""

    dealt: Dealt
    bound_s: float


def divide_alike(problem: GroupProblem) -> Division | None:
    """All groups of one shape, the best one; None where no shape holds every sequence."""
    best: Division | None = None
    alone = [problem.only(s) for s in range(len(problem.ranks))]
    for s in sorted(range(len(alone)), key=lambda s: alone[s].floor_s):
        if best is not None and alone[s].floor_s >= best.dealt.makespan_s:
            break
        dealt = deal(alone[s], [problem.world // problem.ranks[s]])
        if dealt is not None and (best is None or dealt.makespan_s < best.dealt.makespan_s):
            shapes = tuple(s for _ in dealt.shapes)
            best = Division(Dealt(shapes, dealt.sequences, dealt.loads_s), alone[s].floor_s)
    return best


def divide(problem: GroupProblem, best: Division, gap: float, deadline_s: float = float("inf")) -> Division:
    """Bisection over T between the floor and ``best``: each program that finishes in time proposes groups to deal to.

    Ends when nothing above the bound is left to try, to a quarter of ``gap``, or when ``perf_counter()`` is past
    ``deadline_s``; the bound holds either way.
    """
    low_s, high_s, dealt = problem.floor_s, best.dealt.makespan_s, best.dealt
    close = 1.0 - max(gap / 4.0, CLOSEST)
    while low_s < high_s * close and (left_s := deadline_s - perf_counter()) > 0.0:
        step_s = 0.5 * (low_s + high_s)
        found = fewest_ranks(problem, step_s, min(left_s, 2.0))
        if found is None:
            break
        if found.ranks > problem.world:
            low_s = step_s
            continue
        high_s = step_s
        proposed = deal(problem, found.groups)
        if proposed is not None and proposed.makespan_s < dealt.makespan_s:
            dealt = proposed
    return Division(dealt, min(low_s, dealt.makespan_s))
