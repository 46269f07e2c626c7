"""Making a good order better.

Justify. Read backwards in time, with the time from a pass's end to the end of all as its urgency, a schedule is list
scheduled from its end; read forwards again, from its start. Each direction presses out idle time that the other one
cannot see (forward-backward improvement, from project scheduling).

Shake. The starts of the incumbent serve as urgencies, disturbed: by noise, or with some lines of some ranks moved
earlier or later as a whole; and the in-flight limits it used, some of them moved by one.

Swap. A pass on the critical path that starts late only because its rank is busy goes ahead of passes before it.

All three keep what is no worse. Random numbers come from one seeded generator, and the search is bounded by the number
of passes it places, so that the same problem gives the same order on any machine; ``seconds`` bounds it further.

Sources: Valls, Ballestín, Quintanilla 2005, "Justification and RCPSP: A technique that pays"; van Laarhoven, Aarts,
Lenstra 1992, "Job Shop Scheduling by Simulated Annealing" (swaps on the critical path).
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from planner.synthesis.budget import Budget
from planner.synthesis.lines import Lines, Orders, lines_of
from planner.synthesis.list_scheduling import Rule, list_schedule
from planner.synthesis.problem import OrderProblem
from planner.synthesis.steady_state import speed_up
from planner.synthesis.timing import Timing, obeys_cap, time_orders

EQUAL = 1e-9
"""Relative difference below which two makespans are the same."""


SWAPS, SHAKES = 150, 12
"""Tries of each in one round."""

HEATS = (0.02, 0.1, 0.3, 0.6)
"""By how much of a period a swap may be worse at the start of a round."""


class LocalSearch:
    """``best``, improved by each method as long as ``budget`` lasts; none looks further once ``bound`` is reached.
    Swaps now and then set out from another of ``starts``.
    """

    def __init__(
        self,
        problem: OrderProblem,
        starts: Sequence[Timing],
        bound: float,
        budget: Budget,
        seed: int = 0,
    ) -> None:
        self.best = min(starts, key=lambda timing: timing.makespan)
        self.others = list(starts)
        self.forth, self.back = self.best.lines, lines_of(problem, backwards=True)
        self.bound, self.budget = bound, budget
        self.random = Random(seed)
        self.period = max(self.forth.work_of(rank) for rank in range(problem.num_ranks))

    @property
    def done(self) -> bool:
        return not self.budget.left or self.best.makespan <= self.bound * (1.0 + EQUAL)

    def offer(self, timing: Timing) -> bool:
        """Take ``timing`` if it is no worse; True if it is better."""
        before = self.best.makespan
        if timing.makespan <= before * (1.0 + EQUAL):
            self.best = timing
        return timing.makespan < before * (1.0 - EQUAL)

    def run(self) -> None:
        """Swaps, shakes and changes of the steady state in turn, until there is nothing left to spend or to gain."""
        self.offer(self.justify(self.best))
        while not self.done:
            self.swap(SWAPS)
            self.shake(SHAKES)
            for timing in speed_up(self.best) if not self.done else ():
                self.budget.spend(self.forth.num_passes)
                self.offer(timing)

    def justify(self, timing: Timing) -> Timing:
        """Backwards and forwards in turn while that helps; the best of all on the way."""
        best = timing
        for patience in (1.0, 0.0):
            improved = True
            while improved and self.budget.left:
                improved = False
                for candidate in self._there_and_back(best, patience):
                    if candidate.makespan < best.makespan * (1.0 - EQUAL):
                        best, improved = candidate, True
        return best

    def _there_and_back(self, timing: Timing, patience: float) -> list[Timing]:
        limits = in_flight(self.forth, timing.orders)
        late = self._schedule(self.back, Rule(timing.reversed_starts(), patience, limits=_swapped(self.forth, limits)))
        turned = self._reversed(late)
        found = [turned] if turned else []
        return [*found, self._schedule(self.forth, Rule(late.reversed_starts(), patience, limits=limits))]

    def _reversed(self, timing: Timing) -> Timing | None:
        """An order found in the other direction of time, in this one."""
        self.budget.spend(self.forth.num_passes // 3)
        return time_orders(self.forth, [order[::-1] for order in timing.orders])

    def _schedule(self, lines: Lines, rule: Rule) -> Timing:
        self.budget.spend(lines.num_passes)
        return list_schedule(lines, rule)

    def shake(self, tries: int) -> None:
        """So many disturbed copies of the incumbent."""
        for _ in range(tries):
            if self.done:
                return
            timing = self._disturbed()
            if timing is not None and self.offer(timing):
                self.offer(self.justify(timing))

    def _disturbed(self) -> Timing | None:
        random, lines, best = self.random, self.forth, self.best
        backwards = random.random() < 0.5
        if backwards:
            lines, urgency = self.back, best.reversed_starts()
        else:
            urgency = best.starts()
        size = self.period * 2.0 ** random.uniform(-4.0, 1.0)
        if random.random() < 0.5:
            urgency = [[start + random.gauss(0.0, size) for start in starts] for starts in urgency]
        else:
            share = random.choice((0.1, 0.3, 1.0))
            shift = [random.uniform(-size, size) if random.random() < share else 0.0 for _ in urgency]
            urgency = [[start + by for start in starts] for starts, by in zip(urgency, shift, strict=True)]
        limits = in_flight(self.forth, best.orders)
        if random.random() < 0.5:
            moved = random.choice((0.05, 0.2, 0.5))
            limits = [
                max(1.0, limit + random.choice((-1.0, 1.0))) if random.random() < moved else limit for limit in limits
            ]
        if backwards:
            limits = _swapped(self.forth, limits)
        rule = Rule(urgency, random.choice((0.0, 0.5, 1.0, 1.0)), random.random() < 0.5, limits)
        timing = self._schedule(lines, rule)
        return self._reversed(timing) if backwards else timing

    def swap(self, tries: int) -> None:
        """So many moves of one critical pass ahead of one or a few before it on its rank, worse orders being accepted
        less and less.
        """
        current = self.random.choice((self.best, self.best, self.best, self.random.choice(self.others)))
        moves = _critical_moves(current)
        heat = self.period * self.random.choice(HEATS)
        for attempt in range(tries):
            if self.done or not moves:
                return
            orders = _moved(current, *self.random.choice(moves), self.random.choice((1, 1, 1, 2, 3, 5)))
            self.budget.spend(self.forth.num_passes // 4)
            timing = time_orders(self.forth, orders) if orders else None
            if timing is None:
                continue
            worse = timing.makespan - current.makespan
            if worse <= heat * (1.0 - attempt / tries) * self.random.random():
                current, moves = timing, _critical_moves(timing)
            self.offer(timing)


def in_flight(lines: Lines, orders: Orders) -> list[float]:
    """By line, the most micro-batches that a line which takes memory keeps alive; 0 for the others."""
    most, alive = [0.0] * len(lines.kind), [0] * len(lines.kind)
    taker = {lines.giver[line]: line for takers in lines.takers for line in takers}
    for order in orders:
        for line in order:
            if lines.takes[line]:
                alive[line] += 1
                if alive[line] > most[line]:
                    most[line] = alive[line]
            elif line in taker:
                alive[taker[line]] -= 1
    return most


def _swapped(forth: Lines, limits: Sequence[float]) -> list[float]:
    """Limits for the other direction of time, in which the givers take."""
    swapped = [0.0] * len(limits)
    for takers in forth.takers:
        for line in takers:
            swapped[forth.giver[line]] = limits[line]
    return swapped


def _critical_moves(timing: Timing) -> list[tuple[int, int]]:
    """(rank, position) of the passes of one critical path that wait for nothing but the pass before on their rank."""
    lines, finish = timing.lines, timing.finish
    position: list[list[int]] = [[] for _ in lines.kind]
    for order in timing.orders:
        for at, line in enumerate(order):
            position[line].append(at)
    turns = [dict[int, int]() for _ in timing.orders]
    for line, places in enumerate(position):
        for turn, at in enumerate(places):
            turns[lines.rank[line]][at] = turn
    end = timing.makespan
    line = next(line for line, ends in enumerate(finish) if ends[-1] == end)
    turn = lines.num_microbatches - 1
    moves = []
    while True:
        rank, at = lines.rank[line], position[line][turn]
        start = finish[line][turn] - lines.duration[line]
        latest, source = -1.0, -1
        for other, delay in lines.awaits[line]:
            if finish[other][turn] + delay > latest:
                latest, source = finish[other][turn] + delay, other
        if at > 0:
            before = timing.orders[rank][at - 1]
            before_turn = turns[rank][at - 1]
            if finish[before][before_turn] > latest + EQUAL * end or source < 0:
                moves.append((rank, at))
                line, turn = before, before_turn
                continue
        if source < 0 or start <= 0:
            return moves
        line = source


def _moved(timing: Timing, rank: int, at: int, ahead: int) -> Orders | None:
    """The orders with one pass so many places ahead, if its line's own passes and the cap allow."""
    order = list(timing.orders[rank])
    line = order.pop(at)
    to = max(0, at - ahead)
    if line in order[to:at]:
        return None
    order.insert(to, line)
    orders = [*timing.orders[:rank], order, *timing.orders[rank + 1 :]]
    return orders if obeys_cap(timing.lines, orders) else None
