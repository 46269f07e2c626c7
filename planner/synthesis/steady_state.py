"""Repeating what a schedule does best: from a good order for few micro-batches to one for many.

Cut a schedule at a moment and count the passes that each line has started. Two moments whose counts differ by the same
q in every line see the same micro-batches in flight, so what lies between them is one turn of a cycle: q micro-batches
enter and q leave. The turn may be run again any number of times, or left out, and the order stays one that can run and
needs no more memory. The fastest turn, repeated, is the schedule's own best steady state; a slow one can go.

Equal moments are found by hashing: with random numbers z that sum to zero over the lines, the sum of z · count does not
change when every count grows by q.

Source: the repeated building block of Qi et al. 2024, "Pipeline Parallelism with Controllable Memory", section 2, here
found in a schedule instead of written down.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from planner.synthesis.lines import Lines, Orders
from planner.synthesis.timing import Timing, time_orders

_TICKS = 1e6
"""Moments nearer than one part in so many of the makespan count as one."""


@dataclass(frozen=True)
class _Turn:
    """From the cut ``start`` to ``end``: ``count`` micro-batches in ``time``. Cuts count passes, all ranks together."""

    time: float
    count: int
    start: int
    end: int

    @property
    def rate(self) -> float:
        return self.time / self.count


def stretch(timing: Timing, lines: Lines) -> Timing | None:
    """The schedule with turns of its cycle repeated or left out until it has as many micro-batches as ``lines``.

    None when no turn's micro-batches add up to that.
    """
    current: Timing | None = timing
    while current is not None and current.lines.num_microbatches != lines.num_microbatches:
        missing = lines.num_microbatches - current.lines.num_microbatches
        current = _repeated(current, missing, lines) if missing > 0 else _shortened(current, -missing, lines)
    return current


def speed_up(timing: Timing) -> list[Timing]:
    """The same number of micro-batches, a slow turn left out and a fast one run once more, in a few ways."""
    found = []
    for count in sorted({turn.count for turn in _turns(timing)})[:4]:
        shorter = _shortened(timing, count, timing.lines)
        whole = _repeated(shorter, count, timing.lines) if shorter else None
        if whole is not None and whole.lines.num_microbatches == timing.lines.num_microbatches:
            found.append(whole)
    return found


def _repeated(timing: Timing, missing: int, lines: Lines) -> Timing | None:
    """The fastest turn that fits into ``missing``, as often as it does."""
    turns = [turn for turn in _turns(timing) if turn.count <= missing]
    fitting = [turn for turn in turns if missing % turn.count == 0]
    if not turns:
        return None
    fast = min(fitting or turns, key=lambda turn: (turn.rate, turn.count))
    times = missing // fast.count
    orders = [
        order[:end] + order[start:end] * times + order[end:]
        for order, start, end in zip(timing.orders, *_places(timing, fast), strict=True)
    ]
    return _timed(lines, orders, timing.lines.num_microbatches + times * fast.count)


def _shortened(timing: Timing, surplus: int, lines: Lines) -> Timing | None:
    """The slowest turn that fits into ``surplus`` left out."""
    turns = [turn for turn in _turns(timing) if turn.count == surplus]
    turns = turns or [turn for turn in _turns(timing) if turn.count < surplus]
    if not turns:
        return None
    slow = max(turns, key=lambda turn: (turn.rate, turn.count))
    orders = [
        order[:start] + order[end:] for order, start, end in zip(timing.orders, *_places(timing, slow), strict=True)
    ]
    return _timed(lines, orders, timing.lines.num_microbatches - slow.count)


def _timed(lines: Lines, orders: Orders, num_microbatches: int) -> Timing | None:
    return time_orders(lines.with_microbatches(num_microbatches), orders)


def _events(timing: Timing) -> list[tuple[int, int, int, int]]:
    """(start in ticks, place on its rank, rank, line) of every pass, in time."""
    tick = timing.makespan / _TICKS or 1.0
    seen = [0] * len(timing.lines.kind)
    events = []
    for rank, order in enumerate(timing.orders):
        for place, line in enumerate(order):
            start = timing.finish[line][seen[line]] - timing.lines.duration[line]
            seen[line] += 1
            events.append((round(start / tick), place, rank, line))
    return sorted(events)


def _turns(timing: Timing) -> list[_Turn]:
    """Turns between each moment and the next ones like it, at most four a moment."""
    lines = timing.lines
    random = Random(0)
    mark = [random.getrandbits(60) for _ in lines.kind]
    mark[-1] = -sum(mark[:-1])
    events = _events(timing)
    tick = timing.makespan / _TICKS or 1.0
    alike: dict[int, list[tuple[int, int, int]]] = {}
    key = entered = 0
    for cut, (ticks, _, _, line) in enumerate(events):
        # The first line is that of the first stage's forwards: what enters.
        alike.setdefault(key, []).append((cut, ticks, entered))
        key += mark[line]
        entered += line == 0
    turns = []
    for moments in alike.values():
        for at, (start, since, before) in enumerate(moments):
            for end, until, after in moments[at + 1 : at + 5]:
                turns.append(_Turn((until - since) * tick, after - before, start, end))
    return turns


def _places(timing: Timing, turn: _Turn) -> tuple[list[int], list[int]]:
    """Passes of each rank before either end of the turn."""
    start, end = [0] * len(timing.orders), [0] * len(timing.orders)
    for cut, (_, _, rank, _) in enumerate(_events(timing)[: turn.end]):
        end[rank] += 1
        start[rank] += cut < turn.start
    return start, end
