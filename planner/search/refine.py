"""Where the paths of the stage program leave a gap: of one layout, look through all that may still win."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from costmodel.layer_table import PricedLayers
from planner.evaluate import Evaluated, evaluate
from planner.order import build_order
from planner.placement import Placement
from planner.problem import Problem
from planner.search.closing import Closing
from planner.search.mixes import Slot
from planner.search.options import OptionColumns, SlotRooms
from planner.search.place import list_choices, stage_problem
from planner.search.placed import Placed, deal
from planner.search.ranges import list_ranges
from planner.search.splits import is_given
from planner.search.stage_problem import StageChoice, StageProblem


def refine(
    problem: Problem, layers: PricedLayers, sets: tuple[tuple[int, ...], ...], budget_bytes: float, best_s: float,
    gap: float,
) -> Placed | None:  # fmt: skip
    """The fastest placement of the one row in ``layers``, each stage under its fastest mix that fits, that was found to
    take less than ``best_s``. Its bound is as near as ``gap`` to the faster of both, unless too much is left to try.
    None where there is nothing to choose, or ranks share cores. Frozen parts in the bubbles count as hidden."""
    if is_given(layers.layouts) or problem.setting.shared_cores is not None:
        return None
    late, order = 1.0 + float(layers.jitter[0]), build_order(layers)
    bound_s, fastest = inf, None
    for policies in sets:
        closing = Closing(_stage_problem(problem, layers, policies, budget_bytes), order, best_s / late)
        bound_s = min(bound_s, closing.close(gap) * late)
        if closing.best:
            fastest, best_s = closing.best, closing.best_s * late
    if fastest is None:
        return Placed(None, min(bound_s, best_s), slower=True)
    evaluated = _evaluate(problem, layers, fastest)
    return Placed(evaluated, min(bound_s, evaluated.step_time_s), step_s=evaluated.step_time_s)


def _stage_problem(
    problem: Problem, layers: PricedLayers, policies: tuple[int, ...], budget_bytes: float
) -> StageProblem:
    ranges = list_ranges(problem, layers)
    slots = {key: Slot(key[0], counts) for key, counts in ranges.items()}
    distinct = sorted(set(slots.values()), key=lambda slot: (slot.rank, slot.counts))
    options = OptionColumns(SlotRooms(layers, distinct, policies), budget_bytes).of_row(0)
    return stage_problem(problem, layers, list_choices(ranges, slots, options))


def _evaluate(problem: Problem, layers: PricedLayers, chosen: Sequence[StageChoice]) -> Evaluated:
    lengths = tuple(choice.stop - choice.start for choice in chosen)
    dealt = deal(problem, lengths, range(len(lengths)), [choice.option.mix for choice in chosen])
    placement = Placement(layers.layouts.row(0), layers.layouts.schedule_name(0), lengths, dealt)
    return evaluate(problem, placement, layers=layers)
