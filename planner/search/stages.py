"""The integer program that places layers on pipeline stages.

Sets
    s = 0..p-1          pipeline ranks, one stage each
    c in C_s            options of stage s: a range [a_c, b_c) of layers with its cheapest mix of policies that fits

Variables
    x_sc in {0, 1}      stage s takes option c
    F_s, B_s, W_s, E_s >= 0  its forward, backward, the weight gradient in it, and time outside the passes
    U_s >= 0            forwards and backwards of the stages before s:  U_s = sum_{r<s} (F_r + B_r)
    T, E >= 0           makespan; time after it

Objective   (0)  min T + E

Constraints
    (1) one option a stage          sum_c x_sc = 1                                        add_choice
    (2) ranges join                 sum_{c: b_c = i} x_sc = sum_{c: a_c = i} x_{s+1,c}    add_contiguity
    (3) what a stage takes          F_s = sum_c F_c x_sc, likewise B_s, W_s, E_s          add_times
    (4) reaching and draining       T >= U_s + 2 d_s + m (F_s + B_s)                      add_fill_paths
    (5) round trips                 T >= U_s + rest_s + F_s + m B_s + (m - a_s) F_s + 2 D
        with rest_s = U_p - U_{s+1}, d_s the delays of the edges before s and D of all, a_s the forwards before the
        stage's first backward (1 where all forwards of the step come first, as then all lie on the path), where
        m >= a_s; split: sum_r F_r + sum_{r>s} (B_r - W_r) for U_s + rest_s + F_s, and 2 D - d_s
                                                                                          add_round_trip_paths
    (6) loops (1f1b)                T >= U_s + 2 d_s + floor(m / k) (rest_{s-1} + 2 (D - d_s)),  k = p - s
                                                                                          add_loop_paths
    (7) shared cores                T >= (m · replicas / cores) U_p                       add_shared_cores
    (8) end of the step             E >= E_s                                              add_end

Each of (4)-(7) is the length of a path through the schedule, so the optimum is a lower bound of the simulated time.
Options that alone are slower than a known answer are left out beforehand (``planner.search.balance``): that keeps
the min-max from stalling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any

import pulp

from planner.search.options import Option


@dataclass(frozen=True)
class StageChoice:
    """One option of one stage: layers [start, stop)."""

    start: int
    stop: int
    option: Option


@dataclass(frozen=True)
class StageProblem:
    """``choices[s]``: the options of stage s. ``edges_s[s]``: delay from stage s to s + 1, and back. ``ahead[s]``: its
    forwards before its first backward, a_s above. ``one_f_one_b``: whether (6) holds for the schedule.

    ``split_backward``: only forwards come before a rank's first pass and only input gradients after its last (zb-h1).
    ``replicas_per_core``: pipelines per core that share a host; 0 where each rank has a device.
    """

    choices: tuple[tuple[StageChoice, ...], ...]
    num_microbatches: int
    edges_s: tuple[float, ...]
    ahead: tuple[int, ...]
    one_f_one_b: bool
    split_backward: bool
    replicas_per_core: float

    @cached_property
    def reach_s(self) -> tuple[float, ...]:
        """d_s: delays of the edges before every stage."""
        return tuple(accumulate(self.edges_s, initial=0.0))

    def rest_s(self, s: int) -> float:
        """D - d_s: delays of the edges from stage s on."""
        return self.reach_s[-1] - self.reach_s[s]


@dataclass(frozen=True)
class StageSolution:
    """``status``: optimal, feasible or unsolved (stopped by a limit), infeasible. ``bound_s``: no choice is faster."""

    status: str
    chosen: tuple[StageChoice, ...]
    bound_s: float


def solve_stages(problem: StageProblem, time_limit_s: float = 1.0) -> StageSolution:
    """Choose one option a stage by (0)-(8)."""
    if any(not choices for choices in problem.choices):
        return StageSolution("infeasible", (), float("inf"))
    if all(len(choices) == 1 for choices in problem.choices):
        return _forced(problem)
    model = pulp.LpProblem("stages", pulp.LpMinimize)
    variables = _Variables(problem)
    model += variables.makespan + variables.end
    for add in (
        add_choice,
        add_contiguity,
        add_times,
        add_fill_paths,
        add_round_trip_paths,
        add_loop_paths,
        add_shared_cores,
        add_end,
    ):
        for constraint in add(problem, variables):
            model += constraint
    model.solve(pulp.HiGHS(msg=False, timeLimit=time_limit_s, gapRel=1e-4, threads=1))
    return _read(model, problem, variables)


class _Variables:
    """The program's variables, by the names used above."""

    def __init__(self, problem: StageProblem) -> None:
        p = len(problem.choices)
        self.takes = [
            [pulp.LpVariable(f"x_{s}_{c}", cat="Binary") for c in range(len(choices))]
            for s, choices in enumerate(problem.choices)
        ]
        self.forward = [pulp.LpVariable(f"F_{s}", lowBound=0) for s in range(p)]
        self.backward = [pulp.LpVariable(f"B_{s}", lowBound=0) for s in range(p)]
        self.weight = [pulp.LpVariable(f"W_{s}", lowBound=0) for s in range(p)]
        self.extra = [pulp.LpVariable(f"E_{s}", lowBound=0) for s in range(p)]
        self.before = [pulp.LpVariable(f"U_{s}", lowBound=0) for s in range(p + 1)]
        self.makespan = pulp.LpVariable("T", lowBound=0)
        self.end = pulp.LpVariable("E", lowBound=0)


def add_choice(problem: StageProblem, v: _Variables) -> list[Any]:
    """(1)"""
    return [pulp.lpSum(takes) == 1 for takes in v.takes]


def add_contiguity(problem: StageProblem, v: _Variables) -> list[Any]:
    """(2)"""
    rows = []
    for s in range(len(problem.choices) - 1):
        cuts = {choice.stop for choice in problem.choices[s]} | {choice.start for choice in problem.choices[s + 1]}
        for cut in sorted(cuts):
            ending = [x for x, choice in zip(v.takes[s], problem.choices[s], strict=True) if choice.stop == cut]
            starting = [
                x for x, choice in zip(v.takes[s + 1], problem.choices[s + 1], strict=True) if choice.start == cut
            ]
            rows.append(pulp.lpSum(ending) - pulp.lpSum(starting) == 0)
    return rows


def add_times(problem: StageProblem, v: _Variables) -> list[Any]:
    """(3), and the running sums U"""
    rows = [v.before[0] == 0]
    for s, choices in enumerate(problem.choices):
        for variable, name in (
            (v.forward[s], "forward_s"),
            (v.backward[s], "backward_s"),
            (v.weight[s], "weight_grad_s"),
            (v.extra[s], "extras_s"),
        ):
            rows.append(
                pulp.lpSum(getattr(choice.option, name) * x for x, choice in zip(v.takes[s], choices, strict=True))
                == variable
            )
        rows.append(v.before[s + 1] == v.before[s] + v.forward[s] + v.backward[s])
    return rows


def add_fill_paths(problem: StageProblem, v: _Variables) -> list[Any]:
    """(4); with a split backward, weight gradients of earlier ranks need not lie on the path, so only forwards count"""
    m, rows = problem.num_microbatches, []
    for s, reach_s in enumerate(problem.reach_s):
        before = pulp.lpSum(v.forward[:s]) + reach_s if problem.split_backward else v.before[s] + 2 * reach_s
        rows.append(v.makespan >= before + m * (v.forward[s] + v.backward[s]))
    return rows


def add_round_trip_paths(problem: StageProblem, v: _Variables) -> list[Any]:
    """(5)"""
    p, m, across_s = len(problem.choices), problem.num_microbatches, problem.reach_s[-1]
    rows = []
    for s, ahead in enumerate(problem.ahead):
        if m < ahead:
            continue
        if problem.split_backward:
            trip = pulp.lpSum(v.forward) + pulp.lpSum(v.backward[s + 1 :]) - pulp.lpSum(v.weight[s + 1 :])
            delays_s = across_s + problem.rest_s(s)
            rows.append(v.makespan >= trip + delays_s + m * v.backward[s] + (m - ahead) * v.forward[s])
        else:
            trip = v.before[p] - v.backward[s] + 2 * across_s
            rows.append(v.makespan >= trip + m * v.backward[s] + (m - ahead) * v.forward[s])
    return rows


def add_loop_paths(problem: StageProblem, v: _Variables) -> list[Any]:
    """(6)"""
    p, m = len(problem.choices), problem.num_microbatches
    if not problem.one_f_one_b:
        return []
    rows = []
    for s, reach_s in enumerate(problem.reach_s):
        loop = v.before[p] - v.before[s] + 2 * problem.rest_s(s)
        rows.append(v.makespan >= v.before[s] + 2 * reach_s + (m // (p - s)) * loop)
    return rows


def add_shared_cores(problem: StageProblem, v: _Variables) -> list[Any]:
    """(7)"""
    if not problem.replicas_per_core:
        return []
    return [v.makespan >= problem.num_microbatches * problem.replicas_per_core * v.before[len(problem.choices)]]


def add_end(problem: StageProblem, v: _Variables) -> list[Any]:
    """(8)"""
    return [v.end >= extra for extra in v.extra]


def path_bound_s(problem: StageProblem, options: Sequence[Option]) -> float:
    """The largest of (4)-(7), plus (8), for options that are already chosen."""
    p, m, across_s = len(options), problem.num_microbatches, problem.reach_s[-1]
    work = [option.forward_s + option.backward_s for option in options]
    before = [sum(work[:s]) for s in range(p + 1)]
    paths = []
    for s, option in enumerate(options):
        ahead, reach_s = problem.ahead[s], problem.reach_s[s]
        if problem.split_backward:
            paths.append(sum(one.forward_s for one in options[:s]) + reach_s + m * work[s])
            if m >= ahead:
                trip = sum(one.forward_s for one in options)
                trip += sum(one.backward_s - one.weight_grad_s for one in options[s + 1 :])
                delays_s = across_s + problem.rest_s(s)
                paths.append(trip + delays_s + m * option.backward_s + (m - ahead) * option.forward_s)
            continue
        paths.append(before[s] + 2 * reach_s + m * work[s])
        if m >= ahead:
            paths.append(before[p] + (m - 1) * option.backward_s + (m - ahead) * option.forward_s + 2 * across_s)
        if problem.one_f_one_b:
            paths.append(before[s] + 2 * reach_s + (m // (p - s)) * (before[p] - before[s] + 2 * problem.rest_s(s)))
    paths.append(m * problem.replicas_per_core * before[p])
    return max(paths) + max(option.extras_s for option in options)


def _forced(problem: StageProblem) -> StageSolution:
    chosen = tuple(choices[0] for choices in problem.choices)
    joined = all(left.stop == right.start for left, right in pairwise(chosen))
    if not joined:
        return StageSolution("infeasible", (), float("inf"))
    return StageSolution("optimal", chosen, path_bound_s(problem, [choice.option for choice in chosen]))


def _read(model: Any, problem: StageProblem, v: _Variables) -> StageSolution:
    status = pulp.LpStatus[model.status]
    if status == "Infeasible":
        return StageSolution("infeasible", (), float("inf"))
    bound = float(getattr(model.solverModel.getInfo(), "mip_dual_bound", 0.0))
    chosen = []
    for takes, choices in zip(v.takes, problem.choices, strict=True):
        picked = [choice for x, choice in zip(takes, choices, strict=True) if (x.varValue or 0.0) > 0.5]
        if len(picked) != 1:
            return StageSolution("unsolved", (), bound)
        chosen.append(picked[0])
    return StageSolution("optimal" if status == "Optimal" else "feasible", tuple(chosen), bound)
