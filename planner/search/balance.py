"""Quick answers before the integer program: the best-balanced choice, and what any choice must at least take.

All are shortest paths over the cuts between stages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from planner.search.stage_problem import StageChoice, StageProblem, path_bound_s

Key = Callable[[StageChoice], float]


def balance_stages(choices: Sequence[Sequence[StageChoice]]) -> list[StageChoice] | None:
    """The joined ranges whose slowest stage is fastest; None when no ranges join."""
    path = _path(choices, max, [_time_s] * len(choices))
    return path[1] if path else None


def with_least_end(problem: StageProblem) -> StageProblem:
    """The same program, where every option ends as late as some stage does in any case: (8) takes the latest end, so no
    solution changes, and each path alone is closer to the whole."""
    path = _path(problem.choices, max, [_extras_s] * len(problem.choices))
    if path is None:
        return problem
    least_s = path[0]
    choices = tuple(
        tuple(choice if choice.option.extras_s >= least_s else _ending(choice, least_s) for choice in of_stage)
        for of_stage in problem.choices
    )
    return replace(problem, choices=choices)


def _ending(choice: StageChoice, extras_s: float) -> StageChoice:
    return replace(choice, option=replace(choice.option, extras_s=extras_s))


class Floors:
    """What the stage program cannot go below, option by option.

    ``total_s``: the least sum of stage times. ``trip_s[s]``: of forwards, and of input gradients after stage s.
    ``reach_s[s][cut]``: the least that comes before stage s when it starts at that cut - whole passes, or forwards only
    where the backward is split.
    """

    def __init__(self, problem: StageProblem) -> None:
        self.problem = problem
        self.total_s = _least_sum(problem.choices, [_time_s] * len(problem.choices))
        # All forwards, and the input gradients of stages after s: the least sum, each stage's passes kept together.
        self.trip_s = (
            [
                _least_sum(
                    problem.choices, [_forward_s] * (s + 1) + [_without_weight_s] * (len(problem.choices) - s - 1)
                )
                for s in range(len(problem.choices))
            ]
            if problem.split_backward
            else []
        )
        key = _forward_s if problem.split_backward else _time_s
        self.reach_s = _reach(problem.choices, key)

    def alone_s(self, s: int, choice: StageChoice) -> float:
        """The largest of (4), (5) plus (8) for one option of stage s, whatever the others are."""
        problem, option = self.problem, choice.option
        m, across_s = problem.num_microbatches, problem.reach_s[-1]
        sends = problem.reach_s[s] * (1 if problem.split_backward else 2)
        before = self.reach_s[s].get(choice.start, float("inf"))
        paths = [before + sends + m * (option.forward_s + option.backward_s)]
        ahead = problem.ahead[s]
        if m >= ahead:
            own = m * option.backward_s + (m - ahead) * option.forward_s
            if problem.split_backward:
                paths.append(self.trip_s[s] + across_s + problem.rest_s(s) + own)
            else:
                paths.append(self.total_s + own - option.backward_s + 2 * across_s)
        return max(paths) + option.extras_s

    def useful(self, limit_s: float) -> tuple[tuple[StageChoice, ...], ...]:
        """The options that could be part of a solution no slower than ``limit_s``."""
        return tuple(
            tuple(choice for choice in choices if self.alone_s(s, choice) <= limit_s)
            for s, choices in enumerate(self.problem.choices)
        )

    def bottleneck_s(self) -> float:
        """A lower bound of the whole program: over joined ranges, the least of the largest ``alone_s``."""
        keys = [lambda choice, s=s: self.alone_s(s, choice) for s in range(len(self.problem.choices))]
        path = _path(self.problem.choices, max, keys)
        return path[0] if path else float("inf")


def reached_s(problem: StageProblem, chosen: Sequence[StageChoice]) -> float:
    """What the stage program's objective is for choices already made."""
    return path_bound_s(problem, [choice.option for choice in chosen])


def _least_sum(choices: Sequence[Sequence[StageChoice]], keys: Sequence[Key]) -> float:
    path = _path(choices, _add, keys)
    return path[0] if path else float("inf")


def _without_weight_s(choice: StageChoice) -> float:
    return choice.option.forward_s + choice.option.backward_s - choice.option.weight_grad_s


def _time_s(choice: StageChoice) -> float:
    return choice.option.forward_s + choice.option.backward_s


def _extras_s(choice: StageChoice) -> float:
    return choice.option.extras_s


def _forward_s(choice: StageChoice) -> float:
    return choice.option.forward_s


def _add(so_far: float, own: float) -> float:
    return so_far + own


def _reach(choices: Sequence[Sequence[StageChoice]], key: Key) -> list[dict[int, float]]:
    reach: list[dict[int, float]] = [{0: 0.0}]
    for options in choices[:-1]:
        here = reach[-1]
        after: dict[int, float] = {}
        for choice in options:
            if choice.start in here:
                value = here[choice.start] + key(choice)
                after[choice.stop] = min(value, after.get(choice.stop, value))
        reach.append(after)
    return reach


def _path(
    choices: Sequence[Sequence[StageChoice]], combine: Callable[[float, float], float], keys: Sequence[Key]
) -> tuple[float, list[StageChoice]] | None:
    """Dynamic programme over (stage, cut): the best value of stages so far, and how it was reached."""
    best: dict[int, tuple[float, list[StageChoice]]] = {0: (0.0, [])}
    for options, key in zip(choices, keys, strict=True):
        reached: dict[int, tuple[float, list[StageChoice]]] = {}
        for choice in options:
            if choice.start not in best:
                continue
            value, path = best[choice.start]
            value = combine(value, key(choice))
            if choice.stop not in reached or value < reached[choice.stop][0]:
                reached[choice.stop] = (value, [*path, choice])
        best = reached
    return min(best.values(), key=lambda one: one[0]) if best else None
