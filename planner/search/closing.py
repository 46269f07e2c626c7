"""Among one layout's choices the fastest on the timeline, and a bound that meets it.

Choices are built step by step (``joined.py``). Where more are left than are kept, those that look soonest are
simulated, and the chains of passes that set their makespans become known paths: they rule out what is like them. The
order of passes is the same for every choice, so a chain of one is a path of all.
Source: Kelley 1960, "The Cutting-Plane Method for Solving Convex Programs" (which paths to add).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any, Generic, Protocol, Self, TypeVar

import numpy as np

from costmodel.layouts import Column
from costmodel.schema.schedule import PassKind, Schedule
from planner.search.joined import Step, join_steps
from planner.search.stage_problem import Path
from planner.simulator import Simulation, StageTimes, simulate, simulate_many

WIDTHS = (100, 300, 1000, 3000, 10_000)
"""Ways kept after each step, at most: few while paths are being found."""

MOST_PASSES = 1_000_000
"""Choices x passes that are simulated at a time, at most."""

NEW_PATHS = 8
"""Choices whose chains join the paths at a time."""

MOST_EXACT = 1000
"""Choices that are timed by themselves, at most."""

CLOSE = 1e-9

Choice = TypeVar("Choice")


class Choices(Protocol[Choice]):
    """One layout's open choices: by step what may be taken, as it is and as what it adds to the known paths."""

    @property
    def choices(self) -> tuple[tuple[Choice, ...], ...]: ...

    @property
    def steps(self) -> tuple[Step, ...]: ...

    @property
    def delays_s(self) -> Column:
        """[paths] seconds of each path that no choice changes."""

    def times(self, several: Sequence[Sequence[Choice]]) -> tuple[StageTimes, Column]:
        """What each of several takes: a batch of times, and [n] seconds after the passes."""

    def with_found(self, paths: Sequence[Path]) -> Self:
        """The same with more known paths."""

    def split(self, chosen: Sequence[Choice]) -> tuple[tuple[int, ...], tuple[int, ...], list[Column]]:
        """What a choice is: layers of one copy's stages, by whose mix each goes, and the mixes [K, P]."""


class Closing(Generic[Choice]):
    """``whole``: the choices, with the paths found so far. ``best``: the fastest that was simulated, empty where none
    takes less than ``best_s`` at first; later that is its time. All seconds are without jitter.

    ``exactly``: the time of one choice where the simulated one only bounds it from below.
    """

    def __init__(
        self,
        whole: Choices[Choice],
        order: Schedule,
        best_s: float,
        exactly: Callable[[tuple[Choice, ...]], float] | None = None,
    ) -> None:
        self.whole, self.order, self.best_s, self.exactly = whole, order, best_s, exactly
        self.best: tuple[Choice, ...] = ()
        self.found: tuple[Path, ...] = ()
        self.known_s: dict[tuple[int, ...], float] = {}

    def open_to(self, whole: Choices[Choice]) -> None:
        """Choose among these from now on: paths hold for any; times are known by the identity of what was chosen."""
        self.whole, self.known_s = whole, {}

    def close(self, gap: float = 0.0) -> float:
        """Seconds that no choice beats, raised until they are as near as ``gap`` to ``best_s``, or the ways kept are as
        many as there may be."""
        bound_s = 0.0
        for width in WIDTHS:
            bound_s = max(bound_s, min(self._look_through(width), self.best_s))
            if bound_s >= self.best_s * (1.0 - max(gap, CLOSE)):
                break
        return bound_s

    def _look_through(self, width: int) -> float:
        """Seconds that no choice but ``best`` beats, with so many ways kept; the soonest are simulated."""
        whole, most = self.whole.with_found(self.found), max(1, MOST_PASSES // sum(map(len, self.order.orders)))
        found, dropped_s = join_steps(whole.steps, whole.delays_s, self.best_s * (1.0 - CLOSE), width)
        left_s = float(found.bounds_s[most:].min(initial=dropped_s))
        picked = found.picked[:most].tolist()
        if picked:
            steps_s = self.simulate([tuple(whole.choices[s][at] for s, at in enumerate(row)) for row in picked])
            left_s = min(left_s, float(steps_s.min()))
        return left_s

    def simulate(self, several: Sequence[tuple[Choice, ...]]) -> Column:
        """[n] seconds that each takes, at least; the chains of the first join the paths."""
        times, ends_s = self.whole.times(several)
        steps_s = np.asarray(simulate_many(self.order, times) + ends_s)
        if self.exactly is not None:
            steps_s = self._settled(several, steps_s, self.exactly)
        best = int(steps_s.argmin())
        if self.exactly is None and steps_s[best] < self.best_s:
            self.best, self.best_s = several[best], float(steps_s[best])
        chains = [found_path(simulate(self.order, row_of(times, row))) for row in range(min(NEW_PATHS, len(several)))]
        self.found = (*self.found, *chains)
        return steps_s

    def _settled(
        self, several: Sequence[tuple[Choice, ...]], least_s: Column, exactly: Callable[[tuple[Choice, ...]], float]
    ) -> Column:
        """``least_s`` [n] with the time itself of those that may be the fastest, as many as there may be."""
        steps_s = least_s.copy()
        for at in np.argsort(least_s, kind="stable").tolist():
            if least_s[at] >= self.best_s * (1.0 - CLOSE):
                break
            key = tuple(map(id, several[at]))
            if key not in self.known_s:
                if len(self.known_s) == MOST_EXACT:
                    break
                self.known_s[key] = exactly(several[at])
            steps_s[at] = self.known_s[key]
            if steps_s[at] < self.best_s:
                self.best, self.best_s = several[at], float(steps_s[at])
        return steps_s


def row_of(times: StageTimes, row: int) -> StageTimes:
    """One row of a batch."""
    batched: dict[str, Any] = {one.name: getattr(times, one.name) for one in fields(StageTimes)}
    own = {name: column[row] for name, column in batched.items() if np.ndim(column) == 2}
    return replace(times, **own)


def found_path(simulation: Simulation) -> Path:
    """The chain that sets the makespan; what it takes of other passes than layers' counts as a delay."""
    often = Counter((part.kind, part.stage) for step in simulation.critical_path() for part in step.work)
    times = simulation.times
    backward_s = times.input_grad_s + times.weight_grad_s + times.recompute_s
    times_s = np.stack([times.forward_s, backward_s, times.weight_grad_s])
    kinds = (PassKind.FORWARD, PassKind.BACKWARD, PassKind.INPUT_GRAD, PassKind.WEIGHT_GRAD)
    forward, full, input_grad, weight_grad = (
        np.array([often[kind, stage] for stage in range(times.num_stages)], np.float64) for kind in kinds
    )
    alone = Path(np.stack([forward, full + input_grad, weight_grad - input_grad]), 0.0)
    return replace(alone, delays_s=simulation.makespan_s - alone.length_s(times_s))
