"""The stage program with two families of its paths, by dynamic programming: reaching and draining, and round trips.

    min max_s max(reach_s, U + trip_s)        over joined ranges, names as in ``planner.search.stages``
    reach_s = d_s + U_s + m (F_s + B_s) + E_s
    trip_s  = (m - 1) B_s + (m - a_s) F_s + 2 D + E_s, U = sum_r (F_r + B_r)
    with a split backward U_s and U count forwards only, d_s once, and
    trip_s  = m B_s + (m - a_s) F_s + sum_{r>s} (B_r - W_r) + 2 D - d_s + E_s

Nothing matters of what came before a cut between two stages but how long it took to get there, the longest reach and
the longest trip so far. Of the ways to a cut those stay that no other beats in all three; they are few, as all grow
with the layers. The optimum is a lower bound of the whole program, and mostly its answer.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from planner.search.stage_problem import StageChoice, StageProblem


class _Way(NamedTuple):
    """One way to reach a cut: seconds there, longest reach, longest trip, the last stage's choice, the way to it."""

    before_s: float
    reach_s: float
    trip_s: float
    choice: StageChoice | None = None
    back: _Way | None = None


@dataclass(frozen=True)
class _Step:
    """What a choice adds: to what comes before later stages, a path of its own each, and to trips begun before."""

    before_s: float
    reach_s: float
    trip_s: float
    onward_s: float


def solve_fill_paths(problem: StageProblem, limit_s: float) -> tuple[list[StageChoice], float] | None:
    """The choices whose longest such path is shortest, and its length; None where none is within ``limit_s``."""
    steps = [[(choice, _step(problem, s, choice)) for choice in of] for s, of in enumerate(problem.choices)]
    rest_s = _least_rest_s(steps)
    ways: dict[int, list[_Way]] = {0: [_Way(0.0, 0.0, 0.0)]}
    for s, choices in enumerate(steps):
        after: dict[int, list[_Way]] = {}
        for choice, step in choices:
            left_s = rest_s[s + 1].get(choice.stop, inf)
            if choice.start not in ways or left_s == inf:
                continue
            found = after.setdefault(choice.stop, [])
            for way in ways[choice.start]:
                reach_s = max(way.reach_s, way.before_s + step.reach_s)
                if reach_s > limit_s:
                    # Ways are sorted by how soon they are here.
                    break
                before_s = way.before_s + step.before_s
                trip_s = max(way.trip_s + step.onward_s, step.trip_s)
                if before_s + left_s + trip_s <= limit_s:
                    found.append(_Way(before_s, reach_s, trip_s, choice, way))
        ways = {cut: _unbeaten(found) for cut, found in after.items()}
    ends = [(max(way.reach_s, way.before_s + way.trip_s), way) for found in ways.values() for way in found]
    if not ends:
        return None
    longest_s, best = min(ends, key=lambda end: end[0])
    return _choices(best), longest_s


def _step(problem: StageProblem, s: int, choice: StageChoice) -> _Step:
    m, ahead, option = problem.num_microbatches, problem.ahead[s], choice.option
    forward_s, backward_s, d_s, across_s = option.forward_s, option.backward_s, problem.reach_s[s], problem.reach_s[-1]
    work_s = forward_s + backward_s
    trip_s = -inf
    if problem.split_backward:
        if m >= ahead:
            trip_s = m * backward_s + (m - ahead) * forward_s + 2.0 * across_s - d_s + option.extras_s
        reach_s = d_s + m * work_s + option.extras_s
        return _Step(forward_s, reach_s, trip_s, backward_s - option.weight_grad_s)
    if m >= ahead:
        trip_s = (m - 1) * backward_s + (m - ahead) * forward_s + 2.0 * across_s + option.extras_s
    return _Step(work_s, 2.0 * d_s + m * work_s + option.extras_s, trip_s, 0.0)


def _least_rest_s(steps: list[list[tuple[StageChoice, _Step]]]) -> list[dict[int, float]]:
    """By stage and its start, the least that it and later stages add to what comes before; no entry where none join."""
    total = max((choice.stop for choice, _ in steps[-1]), default=0)
    rest: list[dict[int, float]] = [{total: 0.0}]
    for choices in reversed(steps):
        here: dict[int, float] = {}
        for choice, step in choices:
            if choice.stop in rest[-1]:
                left_s = rest[-1][choice.stop] + step.before_s
                here[choice.start] = min(left_s, here.get(choice.start, inf))
        rest.append(here)
    return rest[::-1]


def _unbeaten(ways: list[_Way]) -> list[_Way]:
    """Those that no other beats in seconds there, longest reach and longest trip at once, soonest first."""
    kept: list[_Way] = []
    # Of what is kept, (reach, trip) that no other beats in both: ascending in the one, descending in the other.
    front: list[tuple[float, float]] = []
    for way in sorted(ways, key=lambda way: way[:3]):
        at = bisect_right(front, (way.reach_s, inf))
        if at and front[at - 1][1] <= way.trip_s:
            continue
        kept.append(way)
        front = [one for one in front if one[0] < way.reach_s or one[1] < way.trip_s]
        insort(front, (way.reach_s, way.trip_s))
    return kept


def _choices(way: _Way) -> list[StageChoice]:
    found: list[StageChoice] = []
    at: _Way | None = way
    while at is not None and at.choice is not None:
        found.append(at.choice)
        at = at.back
    return found[::-1]
