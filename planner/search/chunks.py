"""Place a layout whose ranks hold several stages: the split is given, so only mixes of policies are left to choose."""

from __future__ import annotations

from functools import lru_cache
from math import inf

import numpy as np

from costmodel.layouts import Column, IntColumn, Layouts, counts_per_rank, even_split
from costmodel.price import PricedLayers
from costmodel.schedules import SCHEDULES, Stages, stages_of
from planner.evaluate import cores_per_pipeline, evaluate, stage_times
from planner.order import build_order
from planner.placement import Placement
from planner.problem import Problem
from planner.search.bounds import ends_in_layers, extras_floor_s
from planner.search.options import Slot, stage_options
from planner.search.placed import Placed, deal
from planner.simulator import simulate

TRIES = 6
"""How often a mix that its order keeps longer than the mean of its stages is chosen again under less memory."""

ROUNDING = 1.0 + 1e-9


def is_given(layouts: Layouts) -> bool:
    """Whether the one row's split is given: a rank holds more than one stage, or there is one rank."""
    schedule, pp, vpp = layouts.schedule_name(0), int(layouts.pp[0]), int(layouts.vpp[0])
    return pp == 1 or vpp > 1 or SCHEDULES[schedule].copies > 1


@lru_cache(maxsize=4096)
def given_splits(total: int, schedule: str, pp: int, vpp: int, ends: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Layers by stage of one copy: the even split, and where ``ends`` (embedding, head; in layers) weigh, the one that
    relieves the ranks that hold them. ``ends`` empty: the runtime's stages must be even.

    From the even split, one layer at a time goes from the fullest rank's longest stage to the emptiest rank's shortest,
    as long as that evens them out and no more than the ends weigh.
    """
    stages = stages_of(schedule, pp, vpp)
    even = even_split(total, stages.per_copy)
    if not any(ends) or pp == 1:
        return (tuple(even),)
    lengths = np.array(even)
    for _ in range(sum(ends)):
        load = _loads(lengths, stages, ends)
        full, empty = int(load.argmax()), int(load.argmin())
        giving, taking = _of_rank(stages, full), _of_rank(stages, empty)
        giver, taker = giving[lengths[giving].argmax()], taking[lengths[taking].argmin()]
        moved = lengths.copy()
        moved[giver] -= 1
        moved[taker] += 1
        if moved[giver] < 1 or _loads(moved, stages, ends).max() >= load.max():
            break
        lengths = moved
    return tuple(dict.fromkeys((tuple(even), tuple(lengths.tolist()))))


def _loads(lengths: IntColumn, stages: Stages, ends: tuple[int, ...]) -> Column:
    load = stages.embedding * float(ends[0]) + stages.head * float(ends[1])
    np.add.at(load, list(stages.stage_to_rank), np.tile(lengths, stages.copies).astype(np.float64))
    return load


def _of_rank(stages: Stages, rank: int) -> IntColumn:
    return np.array([at % stages.per_copy for at, home in enumerate(stages.stage_to_rank) if home == rank])


def splits_of_row(problem: Problem, layers: PricedLayers) -> tuple[tuple[int, ...], ...]:
    """The splits of the one row in ``layers``."""
    layout = layers.layouts.row(0)
    uneven = problem.setting.runtime.uneven_stages
    ends = tuple(ends_in_layers(layers, problem.num_kinds)[0].tolist()) if uneven else ()
    return given_splits(len(problem.kinds), layers.layouts.schedule_name(0), layout.pp, layout.vpp, ends)


def place_given(
    problem: Problem, layers: PricedLayers, policies: tuple[int, ...], budget_bytes: float, best_s: float
) -> Placed:
    """The best placement of the one row in ``layers`` over its splits, each with every rank's fastest mix that fits."""
    placed = [
        _place_split(problem, layers, lengths, policies, budget_bytes, best_s)
        for lengths in splits_of_row(problem, layers)
    ]
    fitting = [one for one in placed if one.evaluated is not None]
    bound_s = min(one.bound_s for one in placed)
    if fitting:
        return Placed(min(fitting, key=lambda one: one.bound_s).evaluated, bound_s)
    return Placed(None, bound_s, any(one.slower for one in placed))


def _place_split(
    problem: Problem,
    layers: PricedLayers,
    lengths: tuple[int, ...],
    policies: tuple[int, ...],
    budget_bytes: float,
    best_s: float,
) -> Placed:
    layout, name = layers.layouts.row(0), layers.layouts.schedule_name(0)
    homes = stages_of(name, layout.pp, layout.vpp).stage_to_rank
    counts = counts_per_rank(problem.kinds, problem.num_kinds, lengths, homes)
    slots = [Slot(rank, tuple(counts[rank].tolist())) for rank in range(layout.pp)]
    left, floor_s = budget_bytes, 0.0
    for attempt in range(TRIES):
        options = stage_options(layers, slots, policies, left, needs_all=True, lengths=lengths)
        if len(options) < layout.pp:
            break
        floor_s = floor_s or _fastest_s(problem, layers, lengths, policies)
        if floor_s >= best_s:
            return Placed(None, floor_s, slower=True)
        picked = [options[slot] for slot in slots]
        placement = Placement(layout, name, lengths, deal(problem, lengths, _dealt_by(layers), picked))
        evaluated = evaluate(problem, placement, layers=layers)
        over = float(evaluated.priced.peak_claim_bytes[0]) - budget_bytes
        if over <= budget_bytes * (ROUNDING - 1.0) and evaluated.priced.fits_host[0]:
            return Placed(evaluated, min(floor_s, evaluated.step_time_s) if attempt else evaluated.step_time_s)
        left -= max(over, budget_bytes * 1e-3)
    return Placed(None, inf)


def _dealt_by(layers: PricedLayers) -> tuple[int, ...]:
    """The rank whose mix each stage of the first copy takes: of two ranks that hold the same layers, the lower."""
    layout = layers.layouts.row(0)
    stages = stages_of(layers.layouts.schedule_name(0), layout.pp, layout.vpp)
    own = stages.stage_to_rank[: stages.per_copy]
    return own if stages.copies == 1 else tuple(min(rank, layout.pp - 1 - rank) for rank in own)


def _fastest_s(problem: Problem, layers: PricedLayers, lengths: tuple[int, ...], policies: tuple[int, ...]) -> float:
    """Seconds with every layer under its fastest policy, whatever memory it needs: no mix is faster."""
    layout, name = layers.layouts.row(0), layers.layouts.schedule_name(0)
    backward = layers.backward[0, :-2][:, list(policies)].argmin(axis=1)
    fastest = tuple(policies[backward[kind]] for kind in problem.kinds)
    placement = Placement(layout, name, lengths, fastest)
    after_s = float(extras_floor_s(layers, problem.kinds, problem.num_kinds, policies)[0] * layers.contention[0])
    times = stage_times(layers, placement, problem)
    if cores_per_pipeline(problem, placement) is None:
        makespan_s = simulate(build_order(layers), times).makespan_s
    else:
        # Ranks that share cores finish no sooner than all their work divided by the cores.
        passes_s = times.forward_s + times.input_grad_s + times.weight_grad_s + times.recompute_s
        one_pipeline_s = float(passes_s.sum()) / placement.stages.copies * layout.num_microbatches
        cores = problem.setting.shared_cores
        makespan_s = one_pipeline_s * layout.world_size / layout.pp / cores if cores else 0.0
    return (makespan_s + after_s) * (1.0 + float(layers.jitter[0]))
