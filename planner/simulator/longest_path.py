"""When every slot ends, each lane running its slots in order and each starting as soon as it can: a longest path.

    finish(i) = max(finish(slot before on the lane), finish(awaited) + delay) + duration(i)

Linear in slots. One row runs as a loop over Python floats; many rows run level by level as NumPy columns.
"""

from __future__ import annotations

import numpy as np

from planner.simulator.graph import PassGraph
from planner.simulator.times import Array, StageTimes

_BATCH_BYTES = 64 * 2**20


def finish_times_s(graph: PassGraph, times: StageTimes) -> Array:
    """End of every slot for one row of times; shape ``[slots]``, empty slots 0."""
    finish = [0.0] * int(graph.first[-1])
    work_s = graph.durations.table_s(times)[graph.work[graph.run]].tolist()
    delay_s = graph.delays.table_s(times)[graph.edge[graph.run]].tolist()
    for slot, awaited, delay, work in zip(*graph.program, delay_s, work_s, strict=True):
        ready, before = finish[awaited] + delay, finish[slot - 1]
        finish[slot] = (ready if ready > before else before) + work
    return np.array(finish)


def start_times_s(graph: PassGraph, times: StageTimes, finish_s: Array) -> Array:
    """Start of every slot from the ends, exactly what it started after; shape ``[slots]``, empty slots 0."""
    start_s = np.zeros_like(finish_s)
    run = graph.run
    ready = finish_s[graph.awaited[run]] + graph.delays.table_s(times)[graph.edge[run]]
    start_s[run] = np.maximum(ready, finish_s[run - 1])
    return start_s


def makespans_s(graph: PassGraph, times: StageTimes) -> Array:
    """End of the last pass for each row of times; shape ``times.batch_shape``."""
    rows = int(np.prod(times.batch_shape))
    work_s, delay_s = graph.durations.table_s(times), graph.delays.table_s(times)
    work_s, delay_s = (table.reshape(rows, table.shape[-1]) for table in (work_s, delay_s))
    chunk = max(1, _BATCH_BYTES // (8 * int(graph.first[-1])))
    parts = [_last_finish_s(graph, work_s[at : at + chunk], delay_s[at : at + chunk]) for at in range(0, rows, chunk)]
    return np.concatenate([np.zeros(0), *parts]).reshape(times.batch_shape)


def _last_finish_s(graph: PassGraph, work_s: Array, delay_s: Array) -> Array:
    work_columns, delay_columns = np.ascontiguousarray(work_s.T), np.ascontiguousarray(delay_s.T)
    finish = np.zeros((int(graph.first[-1]), len(work_s)))
    awaited, edge, work = graph.awaited[graph.order], graph.edge[graph.order], graph.work[graph.order]
    for start, end in zip(graph.levels[:-1].tolist(), graph.levels[1:].tolist(), strict=True):
        slots = graph.order[start:end]
        ready = finish[awaited[start:end]]
        ready += delay_columns[edge[start:end]]
        np.maximum(ready, finish[slots - 1], out=ready)
        ready += work_columns[work[start:end]]
        finish[slots] = ready
    return np.asarray(finish[graph.slot].max(axis=0))
