"""The integer program that places layers on pipeline stages.

Sets
    s = 0..p-1          pipeline ranks, one stage each
    c in C_s            options of stage s: a range [a_c, b_c) of layers with its cheapest mix of policies that fits
    P                   paths through the order of passes (``planner.search.stage_problem``, (4)-(8))

Variables
    x_sc in {0, 1}      stage s takes option c
    F_s, B_s, W_s, E_s >= 0  its forward, backward, the weight gradient in it, and time outside the passes
    T, E >= 0           makespan; time after it

Objective   (0)  min T + E

Constraints
    (1) one option a stage          sum_c x_sc = 1                                        add_choice
    (2) ranges join                 sum_{c: b_c = i} x_sc = sum_{c: a_c = i} x_{s+1,c}    add_contiguity
    (3) what a stage takes          F_s = sum_c F_c x_sc, likewise B_s, W_s, E_s          add_times
    (4)-(8) paths                   T >= sum_s (f_s F_s + b_s B_s + w_s W_s) + delays     add_paths
    (9) end of the step             E >= E_s                                              add_end

Every path is one through the schedule, so the optimum is a lower bound of the simulated time. Options that alone are
slower than a known answer are left out beforehand (``planner.search.balance``): that keeps the min-max from stalling.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pulp

from planner.search.stage_problem import StageChoice, StageProblem, path_bound_s


@dataclass(frozen=True)
class StageSolution:
    """``status``: optimal, feasible or unsolved (stopped by a limit), infeasible. ``bound_s``: no choice is faster."""

    status: str
    chosen: tuple[StageChoice, ...]
    bound_s: float


def solve_stages(problem: StageProblem, time_limit_s: float = 1.0) -> StageSolution:
    """Choose one option a stage by (0)-(9)."""
    if any(not choices for choices in problem.choices):
        return StageSolution("infeasible", (), float("inf"))
    if all(len(choices) == 1 for choices in problem.choices):
        return _forced(problem)
    model = pulp.LpProblem("stages", pulp.LpMinimize)
    variables = _Variables(problem)
    model += variables.makespan + variables.end
    for add in (add_choice, add_contiguity, add_times, add_paths, add_end):
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
    """(3)"""
    rows = []
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
    return rows


def add_paths(problem: StageProblem, v: _Variables) -> list[Any]:
    """(4)-(8)"""
    passes, delays_s = problem.paths
    times = [*v.forward, *v.backward, *v.weight]
    return [
        v.makespan >= pulp.lpSum(often * time for often, time in zip(path, times, strict=True) if often) + delay_s
        for path, delay_s in zip(passes.reshape(len(passes), -1).tolist(), delays_s.tolist(), strict=True)
    ]


def add_end(problem: StageProblem, v: _Variables) -> list[Any]:
    """(9)"""
    return [v.end >= extra for extra in v.extra]


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
    # What the time limit stopped is "Optimal" to PuLP, too.
    proven = model.sol_status == pulp.LpSolutionOptimal
    return StageSolution("optimal" if proven else "feasible", tuple(chosen), bound)
