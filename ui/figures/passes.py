"""A trace's events as columns: what each of them is, and on which lane of its rank."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from costmodel.schema.errors import InvalidSpec
from costmodel.schema.trace import Event, Trace

COMPUTE, COMMUNICATION, SEND = range(3)

_PASS = re.compile(r"\(?(\d+)([A-Z_]+?)(\d*)(?:;.*\)(OVERLAP_F_B))?(?: .*)?")
_JOINT = re.compile(r"[a-z_]+ (\d+)")


@dataclass(frozen=True)
class Passes:
    """Columns [n] of what ran: ``kind`` as a schedule writes it, or send, collective, optimizer; ``microbatch`` -1
    where it is of none; ``lane`` 0 compute, 1 communication, 2 sends; ``later``: of a stage that is not its rank's
    first.
    """

    rank: NDArray[np.int64]
    lane: NDArray[np.int64]
    kind: NDArray[np.str_]
    microbatch: NDArray[np.int64]
    later: NDArray[np.bool_]
    start_s: NDArray[np.float64]
    finish_s: NDArray[np.float64]
    name: list[str]

    def __len__(self) -> int:
        return len(self.name)

    @property
    def num_ranks(self) -> int:
        return int(self.rank.max()) + 1

    @property
    def end_s(self) -> float:
        return float(self.finish_s.max())

    def take(self, chosen: NDArray[np.bool_]) -> Passes:
        """The rows that a mask selects."""
        names = [self.name[at] for at in np.flatnonzero(chosen).tolist()]
        columns = {one.name: getattr(self, one.name)[chosen] for one in fields(self) if one.name != "name"}
        return Passes(**columns, name=names)

    def busy_outside(
        self, start_s: float, end_s: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
        """(start, end, rank) of stretches in which a rank computes without a pause, before and after a window. Pauses
        too short to be seen, of a ten-thousandth of the step, are none."""
        mine = np.flatnonzero((self.lane == COMPUTE) & ((self.finish_s < start_s) | (self.start_s > end_s)))
        mine = mine[np.lexsort((self.start_s[mine], self.rank[mine]))]
        rank, first_s, last_s = self.rank[mine], self.start_s[mine], self.finish_s[mine]
        pause = (rank[1:] != rank[:-1]) | (first_s[1:] - last_s[:-1] > 1e-4 * self.end_s)
        begins = np.flatnonzero(np.concatenate([[True], pause]))[: len(mine)]
        ends = np.concatenate([begins[1:] - 1, [len(mine) - 1]])[: len(begins)]
        return first_s[begins], last_s[ends], rank[begins]


def read_passes(trace: Trace) -> Passes:
    """Columns of a trace. Raises InvalidSpec where it is empty or an event is none that a pipeline has."""
    if not trace.events:
        raise InvalidSpec("the trace has no events")
    kinds, stages, microbatches, lanes = zip(*map(_read, trace.events), strict=True)
    rank = np.array([event.rank for event in trace.events])
    kind, stage, lane = np.array(kinds), np.array(stages), np.array(lanes)
    # What the vocabulary's parts number is their rank, not a stage.
    staged = (lane == COMPUTE) & (stage >= 0) & ~np.char.startswith(kind, "VOCAB")
    first = np.full(int(rank.max()) + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, rank[staged], stage[staged])
    start_s = np.array([event.start_s for event in trace.events])
    return Passes(
        rank=rank, lane=lane, kind=kind, microbatch=np.array(microbatches), later=staged & (stage > first[rank]),
        start_s=start_s, finish_s=start_s + [event.duration_s for event in trace.events],
        name=[event.name for event in trace.events],
    )  # fmt: skip


def _read(event: Event) -> tuple[str, int, int, int]:
    """(kind, stage, micro-batch, lane)."""
    found = _PASS.fullmatch(event.name)
    if found is not None:
        read = found[4] or found[2], int(found[1]), int(found[3] or -1)
    elif (joint := _JOINT.fullmatch(event.name)) is not None:
        read = "collective", -1, int(joint[1])
    elif event.name == "optimizer":
        read = event.name, -1, -1
    else:
        raise InvalidSpec(f"the trace has an event {event.name!r}, which is no pass of a pipeline")
    if event.lane == "compute":
        return *read, COMPUTE
    if event.lane.startswith(("communication", "collective")):
        return *read, COMMUNICATION
    return "send", *read[1:], SEND
