"""List scheduling: every rank, whenever it is free, takes up the most urgent pass that is there.

The clock runs from one end of a pass to the next. At most one pass of each line is a candidate, so a decision looks at
a handful. Two refinements:

* Patience. A rank about to start a pass may see a more urgent one whose input is under way and arrives before that
  pass would end. It waits if the wait is no longer than ``patience`` times the pass, and meanwhile takes only what ends
  in time.
* Room on demand. Where nothing but finished work awaiting its weight gradient stands in the way of a pass that takes
  memory, that weight gradient becomes as urgent as the pass.

No rank can run into a dead end under the cap. Let j be the first micro-batch that may still take memory on a rank. A
later one takes memory only while all of j fits beside all that later ones hold. Then j can always go through, and
after it the next: a serial order is left in every state. The micro-batches before j need nothing more.

Source: Graham 1969, "Bounds on Multiprocessing Timing Anomalies" (list scheduling); Qi et al. 2023, "Zero Bubble
Pipeline Parallelism", section 3.1 (greedy rules for pipelines).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Protocol

from planner.synthesis.lines import Lines, Orders
from planner.synthesis.timing import Timing


@dataclass(frozen=True, eq=False)
class Rule:
    """``urgency[line][k]``: the least is the most urgent. ``limits[line]``: micro-batches that the rule lets a line
    which takes memory keep alive. ``release[line][k]``: no earlier start.
    """

    urgency: Sequence[Sequence[float]]
    patience: float = 0.0
    room_on_demand: bool = True
    limits: Sequence[float] | None = None
    release: Sequence[Sequence[float]] | None = None


class Recipe(Protocol):
    """What makes a rule for lines of any number of micro-batches."""

    def rule(self, lines: Lines) -> Rule:
        """For these lines."""


def list_schedule(lines: Lines, rule: Rule) -> Timing:
    """The order that ``rule`` leads to, and its times. O(passes · lines of a rank)."""
    caps, limits, release = lines.caps, rule.limits, rule.release
    m, urgency, patience = lines.num_microbatches, rule.urgency, rule.patience
    duration, awaits, takes, gives, rank_of = lines.duration, lines.awaits, lines.takes, lines.gives, lines.rank
    finish: list[list[float]] = [[] for _ in lines.kind]
    orders: Orders = [[] for _ in lines.of_rank]
    free_at = [0.0] * len(orders)
    alive = [0.0] * len(orders)
    open_lines = [list(mine) for mine in lines.of_rank]
    events = [(0.0, rank) for rank in range(len(orders))]

    while events:
        now, rank = heappop(events)
        if free_at[rank] > now:
            continue
        ready: list[tuple[float, int]] = []
        coming: list[tuple[float, float, int]] = []
        wanting = None
        for line in open_lines[rank]:
            turn = len(finish[line])
            arrival = 0.0 if release is None else release[line][turn]
            for source, delay in awaits[line]:
                theirs = finish[source]
                if len(theirs) <= turn:
                    break
                at = theirs[turn] + delay
                if at > arrival:
                    arrival = at
            else:
                if takes[line] and (
                    (limits is not None and turn - len(finish[lines.giver[line]]) >= limits[line])
                    or not _may_take(lines, finish, rank, line, turn, alive[rank], caps[rank])
                ):
                    if arrival <= now and (wanting is None or urgency[line][turn] < wanting):
                        wanting = urgency[line][turn]
                elif arrival <= now:
                    ready.append((urgency[line][turn], line))
                else:
                    coming.append((urgency[line][turn], arrival, line))
        if wanting is not None and rule.room_on_demand:
            ready = [(min(wanting, urgent) if gives[line] else urgent, line) for urgent, line in ready]
        chosen = -1
        if len(ready) > 1:
            ready.sort()
        for urgent, line in ready:
            span = duration[line]
            for more_urgent, arrival, _ in coming:
                if more_urgent < urgent and arrival < now + span and arrival - now <= patience * span:
                    break
            else:
                chosen = line
                break
        if chosen < 0:
            if coming:
                heappush(events, (min(arrival for _, arrival, _ in coming), rank))
            continue

        end = now + duration[chosen]
        finish[chosen].append(end)
        if len(finish[chosen]) == m:
            open_lines[rank].remove(chosen)
        orders[rank].append(chosen)
        alive[rank] += takes[chosen] - gives[chosen]
        free_at[rank] = end
        heappush(events, (end, rank))
        for other, delay in lines.alerts[chosen]:
            if free_at[rank_of[other]] <= now:
                heappush(events, (end + delay, rank_of[other]))
    return Timing(lines, orders, finish)


def _may_take(
    lines: Lines, finish: list[list[float]], rank: int, line: int, turn: int, alive: float, cap: float
) -> bool:
    """Whether the pass fits now, and leaves room for the micro-batch that the module's text calls j."""
    if alive + lines.takes[line] > cap:
        return False
    takers = lines.takers[rank]
    first = len(finish[lines.closing[rank]])
    if len(takers) == 1 or turn <= first:
        return True
    reserved = 0.0
    for taker in takers:
        ahead = len(finish[taker]) - first - 1
        if taker == line:
            ahead += 1
        reserved += lines.takes[taker] * (1 + ahead if ahead > 0 else 1)
    return reserved <= cap
