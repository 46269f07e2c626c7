"""The least that any layout of a request could take, by the floors alone: nothing is placed or simulated."""

from __future__ import annotations

from math import inf

from planner.problem import Problem
from planner.request import Request
from planner.search.run import Outcome, Run
from planner.search.scan import Found
from planner.search.space import enumerate_space


def estimate_step_floor_s(request: Request) -> float:
    """Seconds that no layout of the request's space beats; inf where none exists or fits.

    min over the layouts whose memory floor fits of their time floor (``planner/search/scan.py``). Over unlike groups of
    nodes, whose layouts have no such floors, 0.
    """
    if request.other_devices:
        return 0.0
    space, least_s = enumerate_space(request), inf
    if not len(space):
        return inf
    scan = Run(request, Problem.from_request(request), Outcome(space), 0.0, None).start_scan()
    for rows in scan.blocks():
        if scan.left_s >= least_s:
            break
        least_s = min(least_s, float(scan.look(rows, least_s).bounds.min(initial=inf)))
    sized = scan.size_shares(Found.join(scan.hosted).within(least_s), least_s)
    return min(least_s, float(sized.bounds.min(initial=inf)))
