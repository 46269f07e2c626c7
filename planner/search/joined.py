"""All ways to join one option a step whose known paths are short enough: branch and bound, step by step.

A step is a stage with its ranges of layers, or a rank with its mixes of policies. Of the way to a cut between two steps
what matters is how long each path is so far. Every step after the cut adds to a path at least the least of what it and
later steps can, each path looked at alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import inf

import numpy as np
from numpy.typing import NDArray

from costmodel.layouts import Column, IntColumn


@dataclass(frozen=True)
class Step:
    """The options of one step. ``cuts``: [n] of each the cut where it starts and where it stops; ``added_s``:
    [n, paths] seconds that it adds to each path; ``ends_s``: [n] its own after all passes."""

    cuts: tuple[tuple[int, int], ...]
    added_s: Column
    ends_s: tuple[float, ...]


@dataclass(frozen=True)
class Ways:
    """Ways to one cut. ``picked``: [n, steps] the option of each step before it; ``lengths_s``: [n, paths] so far;
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


def join_steps(steps: Sequence[Step], delays_s: Column, limit_s: float, width: int) -> tuple[Ways, float]:
    """The ways through all steps that may take less than ``limit_s``, the soonest first; and, as after each step only
    ``width`` are kept, the least that any of the others may take, inf where there is no other. ``delays_s``: [paths] of
    each path whatever is chosen."""
    rest = _Rest(steps, len(delays_s))
    first = Ways(np.zeros((1, 0), np.int64), delays_s[None], np.zeros(1), np.zeros(1))
    none = Ways(np.zeros((0, len(steps)), np.int64), np.zeros((0, len(delays_s))), np.zeros(0), np.zeros(0))
    here, dropped_s = {0: first}, inf
    for number, step in enumerate(steps):
        after = rest.lengths_s[number + 1]
        open_to = [at for at, (start, stop) in enumerate(step.cuts) if start in here and stop in after]
        bounds_s = [rest.bounds_s(number, here[step.cuts[at][0]], step, at) for at in open_to]
        kept, left_s = _soonest(bounds_s, limit_s, width)
        parts: dict[int, list[Ways]] = {}
        for at, keep, bound_s in zip(open_to, kept, bounds_s, strict=True):
            if keep.any():
                start, stop = step.cuts[at]
                parts.setdefault(stop, []).append(_going_on(here[start].take(keep), step, at, bound_s[keep]))
        here = {cut: Ways.join(ways) for cut, ways in parts.items()}
        dropped_s = min(dropped_s, left_s)
    found = Ways.join([none, *here.values()])
    return found.take(np.argsort(found.bounds_s, kind="stable")), dropped_s


def _soonest(bounds_s: Sequence[Column], limit_s: float, width: int) -> tuple[list[NDArray[np.bool_]], float]:
    """So many of the soonest below the limit, by option, and the least of the others below it."""
    together_s = np.concatenate([np.zeros(0), *bounds_s])
    keep, left_s = together_s < limit_s, inf
    if keep.sum() > width:
        order = np.argsort(together_s, kind="stable")
        keep[order[width:]], left_s = False, float(together_s[order[width]])
    return np.split(keep, np.cumsum([len(own) for own in bounds_s])[:-1]) if len(bounds_s) else [], left_s


def _going_on(ways: Ways, step: Step, at: int, bounds_s: Column) -> Ways:
    """The ways to a step, going on by its option ``at``."""
    picked = np.concatenate([ways.picked, np.full((len(ways.picked), 1), at)], axis=1)
    return Ways(picked, ways.lengths_s + step.added_s[at], np.maximum(ways.ends_s, step.ends_s[at]), bounds_s)


class _Rest:
    """By step and where it starts, the least that it and later steps add to each path, [paths], and the least of their
    latest ends; no entry where none join."""

    def __init__(self, steps: Sequence[Step], num_paths: int) -> None:
        total = max((stop for _, stop in steps[-1].cuts), default=0)
        self.lengths_s, self.ends_s = [{total: np.zeros(num_paths)}], [{total: 0.0}]
        for step in reversed(steps):
            lengths_s: dict[int, Column] = {}
            ends_s: dict[int, float] = {}
            for (start, stop), own_s, own_end_s in zip(step.cuts, step.added_s, step.ends_s, strict=True):
                if stop in self.lengths_s[0]:
                    left_s = self.lengths_s[0][stop] + own_s
                    end_s = max(self.ends_s[0][stop], own_end_s)
                    lengths_s[start] = np.minimum(left_s, lengths_s.get(start, left_s))
                    ends_s[start] = min(end_s, ends_s.get(start, inf))
            self.lengths_s.insert(0, lengths_s)
            self.ends_s.insert(0, ends_s)

    def bounds_s(self, number: int, ways: Ways, step: Step, at: int) -> Column:
        """[n] what the whole takes at least where the ways to a step, the ``number``-th, go on by its option ``at``."""
        cut = step.cuts[at][1]
        lengths_s = ways.lengths_s + (step.added_s[at] + self.lengths_s[number + 1][cut])
        ends_s = np.maximum(ways.ends_s, max(step.ends_s[at], self.ends_s[number + 1][cut]))
        return np.asarray(lengths_s.max(axis=1) + ends_s)
