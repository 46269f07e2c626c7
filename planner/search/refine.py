"""Where the paths of the stage program leave a gap: of one layout, simulate every split that may still win.

The program's optimum is a lower bound, and the choice that attains it need not be the fastest on the timeline. Options
that alone are too slow are dropped first; what is left is counted before it is listed, and left alone where it is much.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from costmodel.layer_table import PricedLayers
from planner.evaluate import evaluate
from planner.order import build_order
from planner.placement import Placement
from planner.problem import Problem
from planner.search.balance import Floors, reached_s
from planner.search.chunks import is_given
from planner.search.mixes import Slot
from planner.search.options import OptionColumns, SlotRooms
from planner.search.place import list_choices, stage_problem
from planner.search.placed import Placed, deal
from planner.search.ranges import list_ranges
from planner.search.stages import StageChoice
from planner.simulator import StageTimes, simulate_many

MOST_PASSES = 4_000_000
"""Splits x passes that are simulated at once, at most."""

Chosen = tuple[StageChoice, ...]


def refine(
    problem: Problem, layers: PricedLayers, sets: tuple[tuple[int, ...], ...], budget_bytes: float, best_s: float
) -> Placed | None:
    """The fastest placement of the one row in ``layers``, each stage under its fastest mix that fits, if it takes less
    than ``best_s``; its bound is then exact, or ``best_s`` where there is none. None where there is too much to try."""
    if is_given(layers.layouts) or problem.setting.shared_cores is not None:
        return None
    late = 1.0 + float(layers.jitter[0])
    fastest, least_s = None, best_s
    for policies in sets:
        found = _joined_choices(problem, layers, policies, budget_bytes, best_s / late)
        if found is None:
            return None
        if not found:
            continue
        step_s = _simulated_s(layers, found)
        at = int(step_s.argmin())
        if step_s[at] < least_s:
            fastest, least_s = found[at], float(step_s[at])
    if fastest is None:
        return Placed(None, best_s, slower=True)
    layout = layers.layouts.row(0)
    lengths = tuple(choice.stop - choice.start for choice in fastest)
    dealt = deal(problem, lengths, range(layout.pp), [choice.option.mix for choice in fastest])
    placement = Placement(layout, layers.layouts.schedule_name(0), lengths, dealt)
    evaluated = evaluate(problem, placement, layers=layers)
    return Placed(evaluated, min(least_s, evaluated.step_time_s), step_s=evaluated.step_time_s)


def _joined_choices(
    problem: Problem, layers: PricedLayers, policies: tuple[int, ...], budget_bytes: float, limit_s: float
) -> list[Chosen] | None:
    """Every way to join options whose paths are all shorter than ``limit_s``; None where there are too many."""
    ranges = list_ranges(problem, layers)
    slots = {key: Slot(key[0], counts) for key, counts in ranges.items()}
    distinct = sorted(set(slots.values()), key=lambda slot: (slot.rank, slot.counts))
    options = OptionColumns(SlotRooms(layers, distinct, policies), budget_bytes).of_row(0)
    whole = stage_problem(problem, layers, list_choices(ranges, slots, options))
    useful = Floors(whole).useful(limit_s)
    passes = 3 * len(whole.choices) * whole.num_microbatches
    if _count(useful) * passes > MOST_PASSES:
        return None
    joined: list[Chosen] = [()]
    for choices in useful:
        joined = [(*so_far, one) for so_far in joined for one in choices if one.start == _end(so_far)]
    return [chosen for chosen in joined if reached_s(whole, chosen) < limit_s]


def _count(choices: Sequence[Sequence[StageChoice]]) -> int:
    """Ways to join options of the first stages, at most."""
    ways, most = {0: 1}, 0
    for options in choices:
        after: dict[int, int] = {}
        for choice in options:
            after[choice.stop] = after.get(choice.stop, 0) + ways.get(choice.start, 0)
        ways, most = after, max(most, sum(after.values()))
    return most


def _end(chosen: Chosen) -> int:
    return chosen[-1].stop if chosen else 0


def _simulated_s(layers: PricedLayers, found: Sequence[Chosen]) -> np.ndarray:
    """[n] the step of each, on the timeline."""
    columns = np.array(
        [
            [(one.option.forward_s, one.option.backward_s, one.option.weight_grad_s, one.option.extras_s) for one in of]
            for of in found
        ]
    )
    forward_s, backward_s, weight_s, extras_s = np.moveaxis(columns, 2, 0)
    times = StageTimes(forward_s, np.maximum(backward_s - weight_s, 0.0), weight_s, edge_s=float(layers.edge_s[0]))
    makespan_s = simulate_many(build_order(layers), times)
    return np.asarray((makespan_s + extras_s.max(axis=1) * layers.contention[0]) * (1.0 + layers.jitter[0]))
