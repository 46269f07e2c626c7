"""Place one layout: choose a range of layers and a mix of policies for every stage, then simulate the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from math import inf
from typing import TYPE_CHECKING

import numpy as np

from costmodel.layer_table import PricedLayers
from costmodel.layouts import Column
from costmodel.schedules import SCHEDULES
from planner.evaluate import Evaluated, evaluate
from planner.kept import count_ahead
from planner.order import build_order
from planner.placement import Placement
from planner.problem import Problem
from planner.search.bounds import ROUNDING
from planner.search.chunks import place_given
from planner.search.least_time import least_backward_s
from planner.search.mixes import Slot
from planner.search.options import Option, OptionColumns, SlotRooms
from planner.search.placed import Placed, deal
from planner.search.ranges import list_ranges, ranges_in_time
from planner.search.splits import is_given

if TYPE_CHECKING:
    from planner.search.stage_problem import StageChoice, StageProblem

CLOSE = 1e-3
"""A balanced placement this near its own bound needs no integer program."""

_Stages = tuple[tuple[int, ...], list[Option]]
_Chosen = tuple[_Stages | None, float, bool]
"""Stage lengths and options by rank; a lower bound; whether it is merely slower than the limit."""


def place(
    problem: Problem, layers: PricedLayers, after_s: Column, sets: tuple[tuple[int, ...], ...], budget_bytes: float,
    best_s: float,
) -> list[Placed]:  # fmt: skip
    """The best placement of every row in ``layers``, over the sets of policies that may be mixed.

    Rows are a family: they share layer costs, sends and order of passes. Of rows whose split is given only the fastest
    comes with its evaluation. ``after_s``: [n] seconds after the passes at least.
    """
    place_rows = place_given if is_given(layers.layouts) else _place_uneven
    tried = [place_rows(problem, layers, after_s, policies, budget_bytes, best_s) for policies in sets]
    return [_best(list(of_row)) for of_row in zip(*tried, strict=True)]


def _best(tried: list[Placed]) -> Placed:
    fastest = min(tried, key=lambda one: one.step_s)
    return replace(
        fastest,
        bound_s=min(one.bound_s for one in tried),
        slower=any(one.slower for one in tried),
        programs=tuple(status for one in tried for status in one.programs),
    )


def _place_uneven(
    problem: Problem, layers: PricedLayers, after_s: Column, policies: tuple[int, ...], budget_bytes: float,
    best_s: float,
) -> list[Placed]:  # fmt: skip
    """Every row by the stage program, unless what none of them beats is already too slow."""
    n = len(layers.layouts)
    late = 1.0 + layers.jitter
    soonest_s = best_s / float(late.min())
    every = list_ranges(problem, layers)
    # Before any order of passes is built or memory priced, which take most of the time.
    limit_s = soonest_s - float((after_s * layers.contention).min())
    ranges = ranges_in_time(layers, every, policies, limit_s)
    if not ranges:
        return [Placed(None, best_s, slower=best_s < inf)] * n
    left_out = best_s < inf and len(ranges) < len(every)
    slots = {key: Slot(key[0], counts) for key, counts in ranges.items()}
    distinct = sorted(set(slots.values()), key=_by_rank)
    rooms = SlotRooms(layers, distinct, policies)
    if best_s < inf:
        # What memory alone rules out, before any mix is chosen.
        least_s = dict(zip(distinct, least_backward_s(rooms, budget_bytes).tolist(), strict=True))
        ranges = ranges_in_time(layers, ranges, policies, limit_s, {key: least_s[slot] for key, slot in slots.items()})
        if not ranges:
            return [Placed(None, best_s, slower=True)] * n
        kept = {slots[key] for key in ranges}
        rooms = rooms.take([at for at, slot in enumerate(distinct) if slot in kept])
        left_out = len(ranges) < len(every)
    chosen, bound_s, slower = _choose(
        problem, layers, ranges, slots, rooms.best_case(budget_bytes, after_s), soonest_s, False
    )
    if chosen is None and left_out:
        bound_s, slower = soonest_s, True  # what fits may be among the ranges that take too long
    if chosen is None or bound_s >= soonest_s:
        bound_s = max(bound_s * float(late.min()), best_s) if chosen is not None or slower else inf
        return [Placed(None, bound_s, slower=bound_s < inf)] * n
    options = OptionColumns(rooms, budget_bytes)
    # Longer passes make a longer step, but for cores that they share and bubbles that they fill.
    ordered = layers.setting.shared_cores is None and not layers.setting.model.frozen_parts
    placed: list[Placed] = []
    for row in range(n):
        better = next((at for at in range(row) if ordered and options.is_no_better(row, at)), None)
        if better is not None:
            # Whatever is known of the other's bound, now or later, holds for this row as well.
            placed.append(Placed(None, inf, slower=placed[better].slower or placed[better].evaluated is not None))
            continue
        one = layers.take(np.array([row]))
        programs: list[str] = []
        found = _choose(problem, one, ranges, slots, options.of_row(row), best_s / float(late[row]), programs=programs)
        if found[0] is None and left_out:
            found = (None, best_s / float(late[row]), True)
        placed.append(replace(_simulated(problem, one, found, best_s), programs=tuple(programs)))
        if placed[-1].evaluated is not None:
            best_s = min(best_s, placed[-1].evaluated.step_time_s)
    return placed


def _simulated(problem: Problem, layers: PricedLayers, found: _Chosen, best_s: float) -> Placed:
    """What the stage program chose for the one row, on the timeline."""
    chosen, bound_s, slower = found
    late = 1.0 + float(layers.jitter[0])
    if chosen is None:
        return Placed(None, bound_s * late if slower else inf, slower)
    if bound_s * late >= best_s:
        return Placed(None, bound_s * late, slower=True)
    evaluated = _evaluate(problem, layers, *chosen)
    step_s = evaluated.step_time_s
    return Placed(evaluated, min(bound_s * late, step_s), step_s=step_s)


def improve(
    problem: Problem, layers: PricedLayers, sets: tuple[tuple[int, ...], ...], budget_bytes: float, best: Evaluated
) -> Evaluated:
    """The best that is reached from a placement of the one row in ``layers`` by moving one cut by one layer, as long as
    that helps: the stage program knows some of the paths through the schedule, and the simulator all of them."""
    if is_given(layers.layouts):
        return best
    policies = next((one for one in sets if set(best.placement.policies) <= set(one)), sets[0])
    slots = sorted({Slot(key[0], counts) for key, counts in list_ranges(problem, layers).items()}, key=_by_rank)
    options = OptionColumns(SlotRooms(layers, slots, policies), budget_bytes).of_row(0)
    lengths = best.placement.layers_per_stage
    starts = [sum(lengths[:rank]) for rank in range(len(lengths))]
    own = [
        options.get(_slot(problem, rank, start, length))
        for rank, (start, length) in enumerate(zip(starts, lengths, strict=True))
    ]
    picked = [option for option in own if option is not None]
    if len(picked) < len(lengths):
        return best
    chosen: _Stages = (lengths, picked)
    better = True
    while better:
        better = False
        for cut, by in product(range(1, len(chosen[0])), (-1, 1)):
            moved = _with_cut(problem, options, chosen, cut, by)
            found = None if moved is None else _evaluate(problem, layers, *moved)
            if moved is not None and found is not None and found.step_time_s < best.step_time_s:
                chosen, best, better = moved, found, True
    return best


def _with_cut(problem: Problem, options: dict[Slot, Option], chosen: _Stages, cut: int, by: int) -> _Stages | None:
    """The stages before and after a cut joined elsewhere; None where one has no option there, or less than no layer."""
    lengths, picked = list(chosen[0]), list(chosen[1])
    lengths[cut - 1] += by
    lengths[cut] -= by
    for rank in (cut - 1, cut):
        start = sum(lengths[:rank])
        option = options.get(_slot(problem, rank, start, lengths[rank])) if lengths[rank] >= 0 else None
        if option is None:
            return None
        picked[rank] = option
    return tuple(lengths), picked


def _slot(problem: Problem, rank: int, start: int, length: int) -> Slot:
    kinds = problem.kinds[start : start + length]
    return Slot(rank, tuple(np.bincount(kinds, minlength=problem.num_kinds).tolist()))


def _by_rank(slot: Slot) -> tuple[int, tuple[int, ...]]:
    return slot.rank, slot.counts


def _evaluate(problem: Problem, layers: PricedLayers, lengths: tuple[int, ...], picked: list[Option]) -> Evaluated:
    layout = layers.layouts.row(0)
    dealt = deal(problem, lengths, range(layout.pp), [option.mix for option in picked])
    return evaluate(problem, Placement(layout, layers.layouts.schedule_name(0), lengths, dealt), layers=layers)


def list_choices(
    ranges: dict[tuple[int, int, int], tuple[int, ...]],
    slots: dict[tuple[int, int, int], Slot],
    options: dict[Slot, Option],
) -> list[list[StageChoice]]:
    """What each rank may take: ranges that have an option."""
    from planner.search.stage_problem import StageChoice

    choices: list[list[StageChoice]] = [[] for _ in range(1 + max(rank for rank, *_ in ranges))]
    for rank, start, stop in ranges:
        option = options.get(slots[rank, start, stop])
        if option is not None:
            choices[rank].append(StageChoice(start, stop, option))
    return choices


def stage_problem(problem: Problem, layers: PricedLayers, choices: Sequence[Sequence[StageChoice]]) -> StageProblem:
    """The stage program of the one row in ``layers`` over these choices."""
    from planner.search.stage_problem import StageProblem

    layout = layers.layouts.row(0)
    schedule = layers.layouts.schedule_name(0)
    cores = problem.setting.shared_cores
    return StageProblem(
        choices=tuple(map(tuple, choices)),
        num_microbatches=layout.num_microbatches,
        edges_s=(float(layers.edge_s[0]),) * (layout.pp - 1),
        ahead=count_ahead(build_order(layers)),
        one_f_one_b=schedule == "1f1b",
        split_backward=SCHEDULES[schedule].splits_backward,
        replicas_per_core=layout.world_size / layout.pp / cores if cores else 0.0,
    )


def _choose(
    problem: Problem,
    layers: PricedLayers,
    ranges: dict[tuple[int, int, int], tuple[int, ...]],
    slots: dict[tuple[int, int, int], Slot],
    options: dict[Slot, Option],
    limit_s: float,
    exactly: bool = True,
    programs: list[str] | None = None,
) -> _Chosen:
    """``exactly``: where the balanced choice is not near its bound, by dynamic programming over two families of its
    paths, and by the integer program where that is not the answer; ``programs`` takes down how the solver left it.
    """
    from planner.search.balance import Floors, balance_stages, reached_s, with_least_end
    from planner.search.fill import solve_fill_paths
    from planner.search.stages import solve_stages

    choices = list_choices(ranges, slots, options)
    balanced = balance_stages(choices)
    if balanced is None:
        return None, inf, False
    whole = with_least_end(stage_problem(problem, layers, choices))
    at_hand_s = reached_s(whole, balanced)
    floors = Floors(whole)
    useful = floors.useful(min(limit_s, at_hand_s * ROUNDING))
    if balance_stages(useful) is None:
        return None, limit_s, True
    floor_s = floors.bottleneck_s()
    chosen: Sequence[StageChoice] = balanced
    if exactly and at_hand_s > floor_s * (1.0 + CLOSE):
        filled = solve_fill_paths(replace(whole, choices=useful), min(limit_s, at_hand_s) * ROUNDING)
        if filled is None and at_hand_s > limit_s:
            return None, limit_s, True
        if filled is not None:
            floor_s = max(floor_s, filled[1])
            if reached_s(whole, filled[0]) < at_hand_s:
                chosen, at_hand_s = filled[0], reached_s(whole, filled[0])
    if exactly and at_hand_s > floor_s * (1.0 + CLOSE):
        solution = solve_stages(replace(whole, choices=floors.useful(min(limit_s, at_hand_s * ROUNDING))))
        if programs is not None:
            programs.append(solution.status)
        if solution.status == "infeasible":
            return None, limit_s, True
        floor_s = max(floor_s, solution.bound_s)
        if solution.chosen and reached_s(whole, solution.chosen) < at_hand_s:
            chosen = solution.chosen
    lengths = tuple(choice.stop - choice.start for choice in chosen)
    return (lengths, [choice.option for choice in chosen]), floor_s, False
