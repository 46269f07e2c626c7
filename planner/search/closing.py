"""Among one layout's choices the fastest on the timeline, and a bound that meets it.

Choices are built stage by stage (``joined.py``). Where more are left than are kept, those that look soonest are
simulated, and the chains of passes that set their makespans join the known paths: they rule out what is like them. The
order of passes is the same for every choice, so a chain of one is a path of all.
Source: Kelley 1960, "The Cutting-Plane Method for Solving Convex Programs" (which paths to add).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from costmodel.layouts import Column
from costmodel.schema.schedule import PassKind, Schedule
from planner.search.joined import join_choices
from planner.search.stage_problem import Path, StageChoice, StageProblem, pass_times_s
from planner.simulator import Simulation, StageTimes, simulate, simulate_many

WIDTHS = (100, 300, 1000, 3000, 10_000)
"""Ways kept after each stage, at most: few while paths are being found."""

MOST_PASSES = 1_000_000
"""Choices x passes that are simulated at a time, at most."""

NEW_PATHS = 8
"""Choices whose chains join the paths at a time."""

CLOSE = 1e-9

Chosen = tuple[StageChoice, ...]


class Closing:
    """``whole``: the choices, with the paths found so far. ``best``: the fastest that was simulated, empty where none
    takes less than ``best_s`` at first; later that is its time. All seconds are without jitter."""

    def __init__(self, whole: StageProblem, order: Schedule, best_s: float) -> None:
        self.whole, self.order, self.best_s = whole, order, best_s
        self.best: Chosen = ()

    def open_to(self, choices: tuple[Chosen, ...]) -> None:
        """Choose among these from now on: paths hold for any."""
        self.whole = replace(self.whole, choices=choices)

    def close(self, gap: float = 0.0) -> float:
        """Seconds that no choice beats, raised until they are as near as ``gap`` to ``best_s``, or the ways kept are as
        many as there may be."""
        bound_s, most = 0.0, max(1, MOST_PASSES // sum(map(len, self.order.orders)))
        for width in WIDTHS:
            found, dropped_s = join_choices(self.whole, self.best_s * (1.0 - CLOSE), width)
            picked = found.picked[:most].tolist()
            if picked:
                self.simulate([tuple(self.whole.choices[s][at] for s, at in enumerate(row)) for row in picked])
            left_s = float(found.bounds_s[most:].min(initial=dropped_s))
            bound_s = max(bound_s, min(left_s, self.best_s))
            if bound_s >= self.best_s * (1.0 - max(gap, CLOSE)):
                break
        return bound_s

    def simulate(self, several: Sequence[Chosen]) -> Column:
        """[n] seconds of each; the chains of the first join the paths."""
        options = [[choice.option for choice in chosen] for chosen in several]
        ends_s = np.array([max(option.extras_s for option in row) for row in options])
        times_s = np.stack([pass_times_s(row) for row in options], axis=1)
        steps_s = np.asarray(simulate_many(self.order, self._times(times_s)) + ends_s)
        best = int(steps_s.argmin())
        if steps_s[best] < self.best_s:
            self.best, self.best_s = several[best], float(steps_s[best])
        chains = [self._chain(times_s[:, row]) for row in range(min(NEW_PATHS, len(several)))]
        self.whole = replace(self.whole, found=(*self.whole.found, *chains))
        return steps_s

    def _times(self, passes_s: Column) -> StageTimes:
        """[3, ..., p] F, B and W."""
        forward_s, backward_s, weight_s = passes_s
        edges_s = np.array(self.whole.edges_s)
        return StageTimes(forward_s, np.maximum(backward_s - weight_s, 0.0), weight_s, edge_s=edges_s)

    def _chain(self, times_s: Column) -> Path:
        return found_path(simulate(self.order, self._times(times_s)), times_s)


def found_path(simulation: Simulation, times_s: Column) -> Path:
    """The chain that sets the makespan; ``times_s``: [3, p] F, B and W."""
    often = Counter((step.kind, step.stage) for step in simulation.critical_path())
    kinds = (PassKind.FORWARD, PassKind.BACKWARD, PassKind.INPUT_GRAD, PassKind.WEIGHT_GRAD)
    forward, full, input_grad, weight_grad = (
        np.array([often[kind, stage] for stage in range(times_s.shape[1])], np.float64) for kind in kinds
    )
    alone = Path(np.stack([forward, full + input_grad, weight_grad - input_grad]), 0.0)
    return replace(alone, delays_s=simulation.makespan_s - alone.length_s(times_s))
