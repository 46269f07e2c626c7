"""The published schedules as candidates, and the V-shaped building blocks made for a cap."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite

from costmodel.placement import zigzag
from planner.schedules import EQUAL_TIMES, SCHEDULES, PassTimes, build_schedule
from planner.schedules.block_search import v_schedule
from planner.schedules.names import GATHERED
from planner.synthesis.lines import Lines, to_orders
from planner.synthesis.problem import OrderProblem
from planner.synthesis.timing import Timing, obeys_cap, time_orders


def generator_candidates(problem: OrderProblem, lines: Lines) -> Iterator[tuple[str, Timing]]:
    """(name, timing) of every registered schedule that exists at these sizes, places stages as the problem does, runs
    only passes that the problem has, and obeys its cap.

    Where the backward splits, a full B runs as I and W: never later, for the gradient leaves before W.
    """
    pp = problem.num_ranks
    vpp, rest = divmod(problem.num_stages, pp)
    if rest:
        return
    for name, kind in SCHEDULES.items():
        sizes = (pp, problem.num_microbatches, vpp)
        # Without its gathers such a schedule is the plain one again.
        if kind.copies > 1 or name.endswith(GATHERED) or not kind.allows(*sizes):
            continue
        if kind.stage_to_rank(pp, vpp) != problem.stage_to_rank:
            continue
        for times in (EQUAL_TIMES, _rank_times(problem)) if kind.heeds_times else (EQUAL_TIMES,):
            orders = to_orders(build_schedule(name, *sizes, times), problem.splits_backward)
            timing = time_orders(lines, orders) if orders and obeys_cap(lines, orders) else None
            if timing is not None:
                yield name, timing


def v_block_candidate(problem: OrderProblem, lines: Lines) -> Timing | None:
    """The uniform building blocks that fill the cap, squeezed for the mean rank's times and repeated; None where stages
    are not a V of two a rank, the backward is whole, or the cap never binds.
    """
    pp = problem.num_ranks
    limit = min(cap / problem.rank_weight(rank) for rank, cap in enumerate(problem.caps))
    is_v = pp >= 2 and problem.stage_to_rank == zigzag(pp, 2)
    if not (is_v and problem.splits_backward and isfinite(limit)):
        return None
    # A cap of one micro-batch may fall short of it by rounding.
    schedule = v_schedule(pp, problem.num_microbatches, max(limit, 1.0), _rank_times(problem))
    orders = to_orders(schedule, True)
    return time_orders(lines, orders) if orders and obeys_cap(lines, orders) else None


def _rank_times(problem: OrderProblem) -> PassTimes:
    """The mean rank's times and the mean edge's delay, for the generators that heed times."""
    forward, _, input_grad, weight_grad = (problem.times.pass_table_s().sum(axis=-1) / problem.num_ranks).tolist()
    delays = [delay for delay in problem.edges() if delay]
    return PassTimes(forward, input_grad, weight_grad, sum(delays) / len(delays) if delays else 0.0)
