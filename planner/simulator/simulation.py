"""Simulation: what one schedule did with given times."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from costmodel.schema.schedule import Pass, Schedule
from costmodel.schema.trace import Event, Trace
from planner.simulator.columns import BACKWARD, FORWARD, INPUT_GRAD, WEIGHT_GRAD, Index, passes_of
from planner.simulator.graph import PassGraph
from planner.simulator.longest_path import start_times_s
from planner.simulator.memory import RankMemory, StageMemory, rank_memory
from planner.simulator.path import critical_path
from planner.simulator.step_end import StepEnd, WholeStep, whole_step
from planner.simulator.times import Array, StageTimes
from planner.simulator.tracing import trace_events


@dataclass(frozen=True, eq=False)
class Simulation:
    """Start and end of every pass, and what follows from them.

    ``slot_finish_s``: shape ``[slots]`` of ``graph``; ``shared_start_s`` too, on shared cores, else None. Passes count
    rank after rank, each rank's in its order: ``[passes]``; UNSHARD and REDUCE_GRAD are where their transfers run,
    beside the rank's compute.
    """

    schedule: Schedule
    times: StageTimes
    graph: PassGraph
    slot_finish_s: Array
    shared_start_s: Array | None = None

    @cached_property
    def makespan_s(self) -> float:
        """First start, which is at 0, to last end of all passes, gathers and reductions included."""
        return float(self.finish_s.max())

    @cached_property
    def slot_start_s(self) -> Array:
        """Shape ``[slots]``."""
        if self.shared_start_s is not None:
            return self.shared_start_s
        return start_times_s(self.graph, self.times, self.slot_finish_s)

    @cached_property
    def start_s(self) -> Array:
        """Shape ``[passes]``."""
        return self.slot_start_s[self.graph.slot]

    @cached_property
    def finish_s(self) -> Array:
        """Shape ``[passes]``."""
        return self.slot_finish_s[self.graph.slot]

    @cached_property
    def busy_s(self) -> Array:
        """Time that each rank spends in passes, what runs beside them left out; shape ``[ranks]``."""
        lanes = self.graph.first[: self.schedule.num_ranks]
        took_s = (self.slot_finish_s - self.slot_start_s)[: self.graph.first[len(lanes)]]
        return np.add.reduceat(took_s, lanes)

    @cached_property
    def first_start_s(self) -> Array:
        """Each rank's own first start; shape ``[ranks]``."""
        return _per_rank(np.minimum, self.start_s, self.graph.columns.lengths, np.inf)

    @cached_property
    def last_finish_s(self) -> Array:
        """Each rank's own last end; shape ``[ranks]``."""
        return _per_rank(np.maximum, self.finish_s, self.graph.columns.lengths, -np.inf)

    @property
    def span_s(self) -> Array:
        """Each rank's own first start to last end; shape ``[ranks]``."""
        return self.last_finish_s - self.first_start_s

    @property
    def bubble_fraction(self) -> float:
        """1 - busy / (makespan · ranks), over the whole iteration; 0 when nothing takes time."""
        return _idle_fraction(self.busy_s, self.makespan_s)

    @property
    def span_bubble_fraction(self) -> float:
        """1 - busy / (longest own span of a rank · ranks): the steady state when no barrier ends the iteration."""
        return _idle_fraction(self.busy_s, float(self.span_s.max()))

    def peak_activations(self, stage_weights: ArrayLike) -> Array:
        """Most that each rank keeps alive, one micro-batch of stage s counting ``stage_weights[s]``; shape ``[ranks]``.

        Alive whole from the start of F to the end of W, or of B when the backward is not split.
        """
        works, alive = self._alive(stage_weights)
        ranks = self.graph.columns.rank[self.graph.columns.owner[works]]
        return _per_rank(np.maximum, alive, np.bincount(ranks, minlength=self.schedule.num_ranks), 0.0)

    def memory_over_time(self, rank: int, stage_weights: ArrayLike) -> tuple[Array, Array]:
        """(when, how much from then on) of a rank's activations, one entry an F, B, I or W: the start of an F, else the
        end.
        """
        works, alive = self._alive(stage_weights)
        columns = self.graph.columns
        mine = columns.rank[columns.owner[works]] == rank
        owner = columns.owner[works[mine]]
        when_s = np.where(columns.work_kind[works[mine]] == FORWARD, self.start_s[owner], self.finish_s[owner])
        return when_s, alive[mine]

    def _alive(self, stage_weights: ArrayLike) -> tuple[Index, Array]:
        """(works, what is alive on its rank from each of them on)."""
        columns = self.graph.columns
        works = columns.works(FORWARD, BACKWARD, INPUT_GRAD, WEIGHT_GRAD)
        weight = np.broadcast_to(np.asarray(stage_weights, dtype=np.float64), (self.graph.num_stages,))
        kind, weight = columns.work_kind[works], weight[columns.work_stage[works]]
        change = np.where(kind == FORWARD, weight, np.where(kind == INPUT_GRAD, 0.0, -weight))
        rank = columns.rank[columns.owner[works]]
        bounds = np.searchsorted(rank, np.arange(1, self.schedule.num_ranks))
        return works, np.concatenate([np.cumsum(part) for part in np.split(change, bounds)])

    def memory(self, rank: int, sizes: StageMemory) -> RankMemory:
        """Bytes of weights and activations on ``rank`` over time."""
        return rank_memory(self.graph, self.start_s, self.finish_s, rank, sizes)

    def whole_step(self, end: StepEnd) -> WholeStep:
        """The step with its optimizer, which ``makespan_s`` leaves out."""
        return whole_step(self.first_start_s, self.last_finish_s, end)

    def critical_path(self) -> list[Pass]:
        """The passes that set the makespan, first to last: each starts when the one before lets it, be it at once or
        after what lies between (a send, a collective).

        Of passes that end last together the lowest rank's is taken; of two that bind equally, the one on the same rank.
        On shared cores a pass also slows the others down, which this path does not show.
        """
        return critical_path(self.graph, passes_of(self.schedule), self.times, self.slot_finish_s)

    def trace(self, name: Callable[[Pass], str] = str, end: StepEnd | None = None) -> Trace:
        """Every pass on its rank's ``compute`` lane, transfers and sends beside it, ``end``'s optimizer last.

        ``name``: a pass's label.
        """
        labels = list(map(name, passes_of(self.schedule)))
        events = trace_events(self.graph, labels, self.times, self.slot_start_s, self.slot_finish_s)
        if end is not None:
            step = self.whole_step(end)
            updates = zip(step.start_s.tolist(), step.finish_s.tolist(), strict=True)
            events += (
                Event(rank, "compute", "optimizer", start, finish - start)
                for rank, (start, finish) in enumerate(updates)
            )
        # Built here, not read: validating 100,000 events would take longer than simulating them.
        return Trace.model_construct(origin="simulated", events=tuple(events))


def _per_rank(extreme: np.ufunc, values: Array, lengths: Index, nothing: float) -> Array:
    """The extreme over each rank's part of ``values``, which stand rank after rank; 0 where a rank has none.

    ``nothing``: what changes no extreme.
    """
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    found = extreme.reduceat(np.insert(values, starts, nothing), starts + np.arange(len(lengths)))
    return np.where(lengths > 0, found, 0.0)


def _idle_fraction(busy_s: Array, span_s: float) -> float:
    return 1.0 - float(busy_s.sum()) / (span_s * len(busy_s)) if span_s > 0 else 0.0
