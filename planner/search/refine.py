"""Where what bounds a placed layout leaves a gap: of its choices, look through all that may still win."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from math import inf
from typing import Any

from costmodel.layer_table import PricedLayers
from planner.evaluate import Evaluated, evaluate
from planner.order import build_order
from planner.placement import Placement
from planner.problem import Problem
from planner.search.closing import Choices, Closing
from planner.search.dealt import least_end_s, list_dealt
from planner.search.dealt_paths import dealt_problem
from planner.search.mixes import Slot
from planner.search.options import OptionColumns, SlotRooms
from planner.search.place import list_choices, stage_problem
from planner.search.placed import Placed, deal
from planner.search.ranges import list_ranges
from planner.search.splits import is_given, splits_of_row
from planner.search.stage_problem import StageProblem


def refine(
    problem: Problem, layers: PricedLayers, sets: tuple[tuple[int, ...], ...], budget_bytes: float, best_s: float,
    gap: float,
) -> Placed:  # fmt: skip
    """The fastest placement of the one row in ``layers`` that was found to take less than ``best_s``: each stage under
    its fastest mix that fits, or where ranks hold several, any mixes that fit as dealt. Its bound is as near as ``gap``
    to the faster of both, unless too much is left to try; ``best_s`` itself where nothing fits that takes less."""
    late, order = 1.0 + float(layers.jitter[0]), build_order(layers)
    # Passes that share cores, and frozen parts in what bubbles are left, take longer than passes alone.
    alone = problem.setting.shared_cores is None and not layers.layouts.frozen_fill[0]
    bound_s, fastest = inf, None
    for whole in _list_choices(problem, layers, sets, budget_bytes, best_s / late):
        if whole is None:
            bound_s = 0.0
        elif not all(whole.choices):
            bound_s = min(bound_s, best_s)  # in less time nothing fits
        else:
            exactly = None if alone else partial(_passes_s, problem, layers, whole)
            closing = Closing(whole, order, best_s / late, exactly)
            bound_s = min(bound_s, closing.close(gap) * late)
            if closing.best:
                fastest = _evaluate(problem, layers, whole, closing.best)
                best_s = closing.best_s * late
    if fastest is None:
        return Placed(None, bound_s, slower=bound_s < inf)
    return Placed(fastest, min(bound_s, fastest.step_time_s), step_s=fastest.step_time_s)


def _list_choices(
    problem: Problem, layers: PricedLayers, sets: tuple[tuple[int, ...], ...], budget_bytes: float, limit_s: float
) -> Iterator[Choices[Any] | None]:
    """By set of policies, and where ranks hold several stages by split, what may take less than ``limit_s``; None where
    there is too much of it."""
    for policies in sets:
        if not is_given(layers.layouts):
            yield _stage_problem(problem, layers, policies, budget_bytes)
            continue
        for lengths in splits_of_row(problem, layers):
            whole = dealt_problem(problem, layers, lengths)
            most_s = whole.most_recompute_s(limit_s - least_end_s(problem, layers, lengths, policies))
            choices = list_dealt(problem, layers, lengths, policies, budget_bytes, most_s)
            yield None if choices is None else replace(whole, choices=choices)


def _stage_problem(
    problem: Problem, layers: PricedLayers, policies: tuple[int, ...], budget_bytes: float
) -> StageProblem:
    ranges = list_ranges(problem, layers)
    slots = {key: Slot(key[0], counts) for key, counts in ranges.items()}
    distinct = sorted(set(slots.values()), key=lambda slot: (slot.rank, slot.counts))
    options = OptionColumns(SlotRooms(layers, distinct, policies), budget_bytes).of_row(0)
    return stage_problem(problem, layers, list_choices(ranges, slots, options))


def _passes_s(problem: Problem, layers: PricedLayers, whole: Choices[Any], chosen: Sequence[Any]) -> float:
    """Seconds of one choice, jitter aside."""
    return _evaluate(problem, layers, whole, chosen).step_time_s / (1.0 + float(layers.jitter[0]))


def _evaluate(problem: Problem, layers: PricedLayers, whole: Choices[Any], chosen: Sequence[Any]) -> Evaluated:
    lengths, homes, mixes = whole.split(chosen)
    policies = deal(problem, lengths, homes, mixes)
    placement = Placement(layers.layouts.row(0), layers.layouts.schedule_name(0), lengths, policies)
    return evaluate(problem, placement, layers=layers)
