"""All ways to join one option a stage whose known paths are short enough: branch and bound, stage by stage.

Of the way to a cut between two stages what matters is how long each path is so far. Every stage after the cut adds to a
path at least the least of what it and later stages can, each path looked at alone.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import inf

import numpy as np
from numpy.typing import NDArray

from costmodel.layouts import Column, IntColumn
from planner.search.stage_problem import StageProblem, pass_times_s


@dataclass(frozen=True)
class Ways:
    """Ways to one cut. ``picked``: [n, stages] the option of each stage before it; ``lengths_s``: [n, paths] so far;
    ``ends_s``: [n] the latest end so far; ``bounds_s``: [n] what the whole takes at least."""

    picked: IntColumn
    lengths_s: Column
    ends_s: Column
    bounds_s: Column

    def take(self, keep: NDArray[np.intp] | NDArray[np.bool_]) -> Ways:
        return Ways(*(getattr(self, one.name)[keep] for one in fields(self)))

    @classmethod
    def join(cls, parts: list[Ways]) -> Ways:
        return cls(*(np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(cls)))


def join_choices(whole: StageProblem, limit_s: float, width: int) -> tuple[Ways, float]:
    """The ways through all stages that may take less than ``limit_s``, the soonest first; and, as after each stage only
    ``width`` are kept, the least that any of the others may take, inf where there is no other."""
    delays_s = whole.paths[1]
    added = _added_s(whole)
    rest = _Rest(whole, added)
    first = Ways(np.zeros((1, 0), np.int64), delays_s[None], np.zeros(1), np.zeros(1))
    none = Ways(np.zeros((0, len(whole.choices)), np.int64), np.zeros((0, len(delays_s))), np.zeros(0), np.zeros(0))
    here, dropped_s = {0: first}, inf
    for s, choices in enumerate(whole.choices):
        parts: dict[int, list[Ways]] = {}
        for at, choice in enumerate(choices):
            if choice.start in here and choice.stop in rest.lengths_s[s + 1]:
                ways = rest.after(s, here[choice.start], at, choice.stop, added[s][at], choice.option.extras_s)
                parts.setdefault(choice.stop, []).append(ways.take(ways.bounds_s < limit_s))
        after = {cut: Ways.join(ways) for cut, ways in parts.items()}
        bounds_s = np.concatenate([np.zeros(0), *(ways.bounds_s for ways in after.values())])
        if len(bounds_s) > width:
            limit_s = float(np.partition(bounds_s, width)[width])
            dropped_s = min(dropped_s, limit_s)
        here = {cut: ways.take(ways.bounds_s < limit_s) for cut, ways in after.items()}
    found = Ways.join([none, *here.values()])
    return found.take(np.argsort(found.bounds_s, kind="stable")), dropped_s


def _added_s(whole: StageProblem) -> list[Column]:
    """By stage, [options, paths] seconds that each option adds."""
    passes = whole.paths[0]
    return [
        pass_times_s([choice.option for choice in choices]).reshape(3, -1).T @ passes[:, :, s].T
        for s, choices in enumerate(whole.choices)
    ]


class _Rest:
    """By stage and where it starts, the least that it and later stages add to each path, [paths], and the least of
    their latest ends; no entry where none join."""

    def __init__(self, whole: StageProblem, added: list[Column]) -> None:
        total = max((choice.stop for choice in whole.choices[-1]), default=0)
        self.lengths_s, self.ends_s = [{total: np.zeros(len(whole.paths[1]))}], [{total: 0.0}]
        for choices, more_s in zip(reversed(whole.choices), reversed(added), strict=True):
            lengths_s: dict[int, Column] = {}
            ends_s: dict[int, float] = {}
            for choice, own_s in zip(choices, more_s, strict=True):
                if choice.stop in self.lengths_s[0]:
                    left_s = self.lengths_s[0][choice.stop] + own_s
                    end_s = max(self.ends_s[0][choice.stop], choice.option.extras_s)
                    lengths_s[choice.start] = np.minimum(left_s, lengths_s.get(choice.start, left_s))
                    ends_s[choice.start] = min(end_s, ends_s.get(choice.start, inf))
            self.lengths_s.insert(0, lengths_s)
            self.ends_s.insert(0, ends_s)

    def after(self, s: int, ways: Ways, at: int, cut: int, own_s: Column, end_s: float) -> Ways:
        """The ways to stage s, going on by its option ``at`` to ``cut``."""
        lengths_s, ends_s = ways.lengths_s + own_s, np.maximum(ways.ends_s, end_s)
        bounds_s = (lengths_s + self.lengths_s[s + 1][cut]).max(axis=1)
        bounds_s = bounds_s + np.maximum(ends_s, self.ends_s[s + 1][cut])
        return Ways(np.pad(ways.picked, ((0, 0), (0, 1)), constant_values=at), lengths_s, ends_s, bounds_s)
