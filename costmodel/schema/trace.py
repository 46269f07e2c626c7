"""Trace: what ran when, on which rank - simulated and measured alike."""

from __future__ import annotations

from typing import Any, NamedTuple

from costmodel.schema.base import Spec


class Event(NamedTuple):
    """``lane`` separates what a rank does at the same time (compute, send, gather)."""

    rank: int
    lane: str
    name: str
    start_s: float
    duration_s: float


class Trace(Spec):
    """``origin``: ``simulated`` or ``measured``. Events in any order."""

    origin: str
    events: tuple[Event, ...]

    def to_chrome(self) -> dict[str, Any]:
        """The Chrome trace-event form, which Perfetto opens: a process for each rank, a thread for each of its lanes,
        both numbered and named, compute first. Times become microseconds.
        """
        lanes = sorted({(event.rank, event.lane) for event in self.events}, key=_compute_first)
        # Viewers want whole numbers, and take thread 0 for the idle one.
        thread = {lane: number for number, lane in enumerate(lanes, start=1)}
        events: list[dict[str, Any]] = [
            {"ph": "X", "pid": event.rank, "tid": thread[event.rank, event.lane], "name": event.name,
             "cat": event.lane, "ts": event.start_s * 1e6, "dur": event.duration_s * 1e6}
            for event in self.events
        ]  # fmt: skip
        for (rank, lane), number in thread.items():
            events += [
                _name_of("process_name", rank, number, f"rank {rank}"),
                _name_of("thread_name", rank, number, lane),
            ]
        return {"displayTimeUnit": "ms", "otherData": {"origin": self.origin}, "traceEvents": events}


def _compute_first(lane: tuple[int, str]) -> tuple[int, bool, str]:
    return lane[0], lane[1] != "compute", lane[1]


def _name_of(what: str, rank: int, thread: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "pid": rank, "tid": thread, "ts": 0.0, "name": what, "args": {"name": name}}
