"""Ranks that share the cores of one host: processor sharing, event by event.

While n ranks compute on c cores, each runs at the rate min(1, c / n). As all busy ranks run at the same rate, one clock
of work done serves them all: a pass that starts at v ends when the clock shows v + duration. What runs beside compute
(sends, gathers, reductions, collectives) takes real time.

Source: Kleinrock 1967, "Time-shared Systems: A Theoretical Treatment" (the discipline).
Leaves out: passes that use several cores, and caches and memory bandwidth, which busy ranks share as well.
"""

from __future__ import annotations

from heapq import heappop, heappush

import numpy as np

from planner.simulator.graph import PassGraph
from planner.simulator.times import Array, StageTimes


def shared_times_s(graph: PassGraph, times: StageTimes, cores: float) -> tuple[Array, Array]:
    """(start, end) of every slot on ``cores`` cores, which may be a fraction; each ``[slots]``, empty slots 0.

    Exact, O(slots · log lanes).
    """
    work_s = graph.durations.table_s(times)[graph.work].tolist()
    delay_s = graph.delays.table_s(times)[graph.edge].tolist()
    awaited, first = graph.awaited.tolist(), graph.first.tolist()
    start, finish = [0.0] * first[-1], [0.0] * first[-1]
    next_slot = [empty + 1 for empty in first[:-1]]
    ended = [False] * first[-1]
    for empty in first[:-1]:
        ended[empty] = True
    waiting: dict[int, list[int]] = {}
    running: list[tuple[float, int, int]] = []
    arriving: list[tuple[float, int]] = []
    passing: list[tuple[float, int, int]] = []
    now = clock = 0.0

    def offer(lane: int) -> None:
        """Start the lane's next slot, or note what it waits for: another slot, or a message under way."""
        slot = next_slot[lane]
        if slot == first[lane + 1]:
            return
        source = awaited[slot]
        if not ended[source]:
            waiting.setdefault(source, []).append(lane)
            return
        arrival = finish[source] + delay_s[slot]
        if lane >= graph.num_ranks:
            start[slot] = max(arrival, finish[slot - 1])
            heappush(passing, (max(start[slot] + work_s[slot], now), lane, slot))
        elif arrival > now:
            heappush(arriving, (arrival, lane))
        else:
            start[slot] = now
            heappush(running, (clock + work_s[slot], lane, slot))

    def end(lane: int, slot: int) -> None:
        finish[slot], ended[slot] = now, True
        next_slot[lane] += 1
        offer(lane)
        for other in waiting.pop(slot, ()):
            offer(other)

    for lane in range(len(next_slot)):
        offer(lane)
    while running or arriving or passing:
        rate = min(1.0, cores / len(running)) if running else 1.0
        pass_end = now + max(running[0][0] - clock, 0.0) / rate if running else np.inf
        arrival = arriving[0][0] if arriving else np.inf
        passed = passing[0][0] if passing else np.inf
        if passed < pass_end and passed <= arrival:
            _, lane, slot = heappop(passing)
            clock, now = clock + (passed - now) * rate, passed
            end(lane, slot)
        elif arrival < pass_end:
            _, lane = heappop(arriving)
            clock, now = clock + (arrival - now) * rate, arrival
            offer(lane)
        else:
            clock, lane, slot = heappop(running)
            now = pass_end
            end(lane, slot)
    return np.array(start), np.array(finish)
