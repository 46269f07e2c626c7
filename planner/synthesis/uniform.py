"""The fastest order for ranks that are all alike, with the placement of stages left open: ``plan schedule auto``."""

from __future__ import annotations

from dataclasses import replace
from math import inf

from costmodel.placement import looped, zigzag
from costmodel.schema.errors import Infeasible, InvalidSpec
from planner.schedules import SCHEDULES, PassTimes
from planner.simulator import StageTimes
from planner.synthesis.problem import OrderProblem
from planner.synthesis.synthesize import Synthesis, best_generator, synthesize

QUICK = 0.1
"""Effort with which every placement is tried before the best one gets the rest."""


def synthesize_uniform(
    pp: int,
    num_microbatches: int,
    times: PassTimes,
    vpp: int | None = None,
    memory_cap: float | None = None,
    effort: float = 1.0,
    seed: int = 0,
) -> Synthesis:
    """The fastest order found over placements with ``vpp`` stages a rank, or, if None, with one or two.

    Placements are round and round and there and back; and, as they stand, every published schedule of one copy of the
    model with whatever placement it has. ``memory_cap``: what every rank may keep alive, in multiples of 1F1B's peak of
    min(pp, m) micro-batches; None: no limit. The bound of the result holds for all placements searched.

    Raises InvalidSpec for a cap that is not more than 0, Infeasible for one under which no micro-batch fits.
    """
    one_f_one_b = min(pp, num_microbatches)
    if memory_cap is not None and not 0 < memory_cap < inf:
        raise InvalidSpec(f"memory cap {memory_cap:g} must be a finite number above 0", "1 is the peak of 1f1b")
    cap = inf if memory_cap is None else memory_cap * one_f_one_b
    if cap < 1.0 - 1e-9:
        raise Infeasible(
            f"memory cap {memory_cap:g} is {cap:g} of a micro-batch, and a rank needs room for one",
            hint=f"allow at least {1 / one_f_one_b:g}",
        )

    def problem(placement: tuple[int, ...]) -> OrderProblem:
        vpp = len(placement) // pp
        forward, input_grad, weight_grad = (each / vpp for each in (times.forward, times.input_grad, times.weight_grad))
        stages = StageTimes.uniform(pp * vpp, forward, input_grad, weight_grad, times.comm)
        return OrderProblem(placement, num_microbatches, stages, cap)

    counts = (vpp,) if vpp else (1, 2)
    searched = list(dict.fromkeys(place(pp, count) for count in counts for place in (looped, zigzag)))
    published = [
        kind.stage_to_rank(pp, vpp or kind.vpp)
        for kind in SCHEDULES.values()
        if kind.copies == 1 and kind.allows(pp, num_microbatches, vpp or kind.vpp)
    ]
    found = [synthesize(problem(placement), QUICK, seed=seed) for placement in searched]
    bound = min(one.lower_bound for one in found)
    best = min(found, key=lambda one: one.makespan)
    if best.makespan > bound * (1.0 + 1e-9):
        found.append(synthesize(best.problem, effort, seed=seed))
    others = [placement for placement in dict.fromkeys(published) if placement not in searched]
    found += [one for one in map(best_generator, map(problem, others)) if one is not None]
    # Of equally fast ones the leanest.
    fastest = min(one.makespan for one in found)
    equal = [one for one in found if one.makespan <= fastest * (1.0 + 1e-9)]
    best = min(equal, key=lambda one: (max(one.peak_activations), one.makespan))
    candidates: dict[str, float] = {}
    for one in found:
        for family, makespan in one.candidates.items():
            candidates[family] = min(makespan, candidates.get(family, inf))
    return replace(best, lower_bound=min(bound, best.makespan), candidates=candidates)
