"""The chain of passes that sets the makespan."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from costmodel.schema.schedule import Pass
from planner.simulator.graph import PassGraph
from planner.simulator.times import Array, StageTimes


def critical_path(graph: PassGraph, passes: Sequence[Pass], times: StageTimes, finish_s: Array) -> list[Pass]:
    """Walk back from the last end, at each slot to whichever of its two predecessors ended later; a tie stays."""
    delay_s = graph.delays.table_s(times)
    empty = set(graph.first[:-1].tolist())
    slot, path = int(graph.slot[np.argmax(finish_s[graph.slot])]), []
    while slot not in empty:
        path.append(slot)
        awaited, before = int(graph.awaited[slot]), slot - 1
        elsewhere = awaited and (before in empty or finish_s[awaited] + delay_s[graph.edge[slot]] > finish_s[before])
        slot = awaited if elsewhere else before
    number = np.full(int(graph.first[-1]), -1)
    number[graph.slot] = np.arange(len(passes))
    return [passes[at] for at in number[path[::-1]].tolist() if at >= 0]
