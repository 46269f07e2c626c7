"""When the passes of given orders run, and whether they obey the memory cap."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from planner.synthesis.lines import Lines, Orders


@dataclass(frozen=True, eq=False)
class Timing:
    """``orders`` and ``finish[line][k]``, the end of the k-th pass of each line."""

    lines: Lines
    orders: Orders
    finish: list[list[float]]

    @cached_property
    def makespan(self) -> float:
        return max(ends[-1] for ends in self.finish)

    def reversed_starts(self) -> list[list[float]]:
        """By line, the starts as they read in the other direction of time: the time from a pass's end to the end of
        all.
        """
        return [[self.makespan - end for end in reversed(ends)] for ends in self.finish]

    def starts(self) -> list[list[float]]:
        """By line, the start of each pass."""
        return [[end - span for end in ends] for ends, span in zip(self.finish, self.lines.duration, strict=True)]


def time_orders(lines: Lines, orders: Orders) -> Timing | None:
    """Every rank runs its order, each pass as soon as it can; None when ranks wait for each other for ever.

    finish(pass) = max(finish of the pass before on the rank, finish of what it awaits + delay) + duration.
    Linear in passes.
    """
    finish: list[list[float]] = [[] for _ in lines.kind]
    reached = [0] * len(orders)
    now = [0.0] * len(orders)
    awaits, alerts, duration, rank_of = lines.awaits, lines.alerts, lines.duration, lines.rank
    running = list(range(len(orders)))
    left = sum(map(len, orders))
    stuck: dict[int, int] = {}
    while running:
        rank = running.pop()
        order, at, clock = orders[rank], reached[rank], now[rank]
        while at < len(order):
            line = order[at]
            ends = finish[line]
            turn = len(ends)
            start = clock
            for source, delay in awaits[line]:
                theirs = finish[source]
                if len(theirs) <= turn:
                    stuck[rank] = source
                    break
                if theirs[turn] + delay > start:
                    start = theirs[turn] + delay
            else:
                clock = start + duration[line]
                ends.append(clock)
                at += 1
                for other, _ in alerts[line]:
                    if stuck.get(rank_of[other]) == line:
                        del stuck[rank_of[other]]
                        running.append(rank_of[other])
                continue
            break
        left -= at - reached[rank]
        reached[rank], now[rank] = at, clock
    return Timing(lines, orders, finish) if left == 0 else None


def peaks(lines: Lines, orders: Orders) -> list[float]:
    """By rank, the most that is ever alive. It follows from the order alone."""
    found = []
    for order in orders:
        alive = most = 0.0
        for line in order:
            alive += lines.takes[line]
            if alive > most:
                most = alive
            alive -= lines.gives[line]
        found.append(most)
    return found


def obeys_cap(lines: Lines, orders: Orders) -> bool:
    """Whether no rank ever keeps more alive than its cap."""
    return all(peak <= cap for peak, cap in zip(peaks(lines, orders), lines.caps, strict=True))
