"""Place one layout over unlike groups: any range of layers for every rank, each at its own group's price and memory.

There is no even split to stay near: a faster group takes more layers. The time asked for starts just above the layout's
bound and grows until two families of paths (``planner.search.fill``) are met within it, so that few ranges are priced.
What that choice takes on the timeline is the time within which all others are looked through.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

from planner.search.bounds import ROUNDING
from planner.search.closing import Closing
from planner.search.fill import solve_fill_paths
from planner.search.groups.pipe import Pipe
from planner.search.groups.rows import MixedRows
from planner.search.placed import Placed

GROWTH = (1.01, 1.03, 1.08, 1.2, 1.6, 3.0, 10.0)
"""Step times asked for, over the layout's bound."""


def place_mixed(
    rows: MixedRows, policies: tuple[int, ...], budgets: tuple[float, ...], bound_s: float, best_s: float, gap: float
) -> Placed:
    """The best placement of the one row, or why there is none faster than ``best_s``. ``bound_s``: none is faster.
    Its own bound is as near as ``gap`` to it or to ``best_s``, unless too much is left to try."""
    pipe = Pipe(rows, policies, budgets)
    late, low_s = 1.0 + float(rows.jitter[0]), bound_s
    for asked_s in _asked(bound_s, best_s):
        limit_s = asked_s / late * ROUNDING
        whole = pipe.stage_problem(limit_s)
        filled = solve_fill_paths(whole, limit_s)
        if filled is not None:
            chosen, floor_s = filled
            low_s = max(low_s, floor_s * late)
            if low_s >= best_s:
                return Placed(None, low_s, slower=True)
            closing = Closing(whole, pipe.order, best_s / late)
            step_s = float(closing.simulate([tuple(chosen)])[0])
            closing.open_to(pipe.stage_problem(min(step_s, best_s / late) * ROUNDING))
            low_s = max(low_s, closing.close(gap) * late)
            if not closing.best:
                return Placed(None, low_s, slower=True)
            best = pipe.evaluate(closing.best)
            return Placed(best, min(low_s, best.step_time_s), step_s=best.step_time_s)
        if not pipe.holds:
            return Placed(None, inf)
        low_s = max(low_s, min(asked_s, best_s))
    return Placed(None, low_s if best_s < inf else inf, slower=best_s < inf)


def _asked(bound_s: float, best_s: float) -> Iterator[float]:
    for growth in GROWTH:
        if bound_s * growth >= best_s:
            break
        yield bound_s * growth
    yield best_s
