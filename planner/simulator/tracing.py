"""The events of a simulated step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heappop, heappush

import numpy as np

from costmodel.schema.trace import Event
from planner.simulator.columns import JOINT_MAKERS, REDUCE_GRAD, RESHARD, UNSHARD
from planner.simulator.graph import PassGraph
from planner.simulator.times import Array, StageTimes

_JOINT_NAMES = ("embedded", "statistics", "vocab_gradient")


def trace_events(
    graph: PassGraph, labels: Sequence[str], times: StageTimes, start_s: Array, finish_s: Array
) -> list[Event]:
    """Lanes: ``compute``; ``communication`` for gathers and reductions; ``collective`` on every rank for joint
    products; messages that take time on ``send``, ``send 2``, … from when they leave to when they arrive, or, where
    they occupy links, on ``send`` and ``receive`` for as long as they do (``send level 1`` for other levels), and only
    broadcasts and what frozen pieces hand on ``in flight``.
    """
    ranks = graph.columns.rank.tolist()
    moved = np.isin(graph.columns.kind, (UNSHARD, REDUCE_GRAD)).tolist()
    starts, ends = start_s[graph.slot].tolist(), finish_s[graph.slot].tolist()
    marks = (graph.columns.kind == RESHARD).tolist()
    events = [
        Event(rank, "communication" if beside else "compute", label, start, end - start)
        for rank, beside, label, start, end, mark in zip(ranks, moved, labels, starts, ends, marks, strict=True)
        if not mark
    ]
    events += _links(graph, labels, start_s, finish_s)
    events += _delays(graph, times, labels, finish_s, "in flight" if len(graph.sent) else "send")
    events += _collectives(graph, start_s, finish_s)
    return events


def _delays(graph: PassGraph, times: StageTimes, labels: Sequence[str], finish_s: Array, kind: str) -> Iterator[Event]:
    """What is delayed without occupying a link; messages under way at once take lanes of their own."""
    makers = np.full(int(graph.first[-1]), -1)
    makers[graph.slot] = np.arange(len(labels))
    computes = int(graph.first[graph.num_ranks])
    delay_s = graph.delays.table_s(times)[graph.edge[:computes]]
    slots = np.flatnonzero(delay_s > 0)
    maker = makers[graph.awaited[slots]]
    leave_s = finish_s[graph.awaited[slots]]
    to = np.searchsorted(graph.first, slots, side="right") - 1
    by_time = np.lexsort((slots, leave_s))
    ranks = graph.columns.rank.tolist()
    under_way: list[list[tuple[float, int]]] = [[] for _ in range(graph.num_ranks)]
    free: list[list[int]] = [[] for _ in range(graph.num_ranks)]
    columns = (part[by_time].tolist() for part in (maker, leave_s, delay_s[slots], to))
    for at, leave, delay, receiver in zip(*columns, strict=True):
        rank = ranks[at]
        lanes, idle = under_way[rank], free[rank]
        while lanes and lanes[0][0] <= leave:
            heappush(idle, heappop(lanes)[1])
        lane = heappop(idle) if idle else len(lanes)
        heappush(lanes, (leave + delay, lane))
        label = kind if lane == 0 else f"{kind} {lane + 1}"
        yield Event(rank, label, f"{labels[at]} to rank {receiver}", leave, delay)


def _links(graph: PassGraph, labels: Sequence[str], start_s: Array, finish_s: Array) -> Iterator[Event]:
    ranks = graph.columns.rank.tolist()
    lane_of = (np.searchsorted(graph.first, graph.sent[:, :2], side="right") - 1).tolist()
    for (leaves, arrives, maker, taker), lanes in zip(graph.sent.tolist(), lane_of, strict=True):
        for slot, number in zip((leaves, arrives), lanes, strict=True):
            lane = graph.lanes[number]
            label = f"{lane.kind} level {lane.number}" if lane.number else lane.kind
            peer = f"to rank {ranks[taker]}" if lane.kind == "send" else f"from rank {ranks[maker]}"
            start, end = float(start_s[slot]), float(finish_s[slot])
            yield Event(lane.rank, label, f"{labels[maker]} {peer}", start, end - start)


def _collectives(graph: PassGraph, start_s: Array, finish_s: Array) -> Iterator[Event]:
    ranks, columns = graph.num_ranks, graph.columns
    for number, lane in enumerate(graph.lanes):
        if lane.kind != "collective":
            continue
        slots = np.arange(graph.first[number] + ranks, graph.first[number + 1], ranks)
        works = columns.works(JOINT_MAKERS[lane.number])
        mine = works[columns.rank[columns.owner[works]] == 0]
        order = columns.work_microbatch[mine].tolist()
        for microbatch, start, end in zip(order, start_s[slots].tolist(), finish_s[slots].tolist(), strict=True):
            for rank in range(ranks):
                label = f"{_JOINT_NAMES[lane.number]} {microbatch}"
                yield Event(rank, f"collective {_JOINT_NAMES[lane.number]}", label, start, end - start)
