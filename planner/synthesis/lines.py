"""An order problem as lines: the passes of one kind and stage, micro-batch after micro-batch.

Micro-batches are alike, so any order can be renumbered, with the same times and the same memory, until every line runs
its micro-batches in turn: the k-th pass of a line needs no more than the k-th pass of the lines it waits for. What is
left to choose is only which *line* a rank serves next, so a rank's order is a list of lines.

Read backwards in time the problem is one of the same form: W comes before I, I runs from the first stage to the last,
F back, and memory is taken by W (or B) and given back by F.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from costmodel.schema.schedule import STAGE_KINDS, Pass, PassKind, Schedule
from planner.synthesis.problem import ROUNDING, OrderProblem

Orders = list[list[int]]
"""For each rank the lines it serves, one entry a pass."""


@dataclass(frozen=True, eq=False)
class Lines:
    """The lines of a problem in one direction of time. Lines count kind by kind, stage by stage.

    kind, stage, rank  of each line
    duration     of one of its passes
    awaits       (line, delay) whose pass of the same micro-batch must have ended so long before
    alerts       (line, delay) of other ranks that wait for this one
    takes, gives memory taken at the start, or given back at the end, of a pass; 0 for most lines
    giver        of each line, the one of its stage that gives back memory
    of_rank      lines of each rank
    takers       lines of each rank that take memory
    closing      for each rank the line after which a micro-batch takes no more memory there
    caps         memory of each rank, rounding allowed for
    """

    num_microbatches: int
    kind: tuple[PassKind, ...]
    stage: tuple[int, ...]
    rank: tuple[int, ...]
    duration: tuple[float, ...]
    awaits: tuple[tuple[tuple[int, float], ...], ...]
    alerts: tuple[tuple[tuple[int, float], ...], ...]
    takes: tuple[float, ...]
    gives: tuple[float, ...]
    giver: tuple[int, ...]
    of_rank: tuple[tuple[int, ...], ...]
    takers: tuple[tuple[int, ...], ...]
    closing: tuple[int, ...]
    caps: tuple[float, ...]

    @property
    def num_ranks(self) -> int:
        return len(self.of_rank)

    @property
    def num_stages(self) -> int:
        return len(set(self.stage))

    @property
    def num_passes(self) -> int:
        return len(self.kind) * self.num_microbatches

    def with_microbatches(self, num_microbatches: int) -> Lines:
        """The same lines with another number of passes each."""
        return replace(self, num_microbatches=num_microbatches)

    def work_of(self, rank: int) -> float:
        """Time that one micro-batch of all of a rank's stages takes."""
        return sum(self.duration[line] for line in self.of_rank[rank])


def lines_of(problem: OrderProblem, backwards: bool = False) -> Lines:
    """The lines of ``problem``, with time running on or ``backwards``."""
    num_stages, edges = problem.num_stages, problem.edges()
    last = num_stages - 1
    kinds = [PassKind.FORWARD, PassKind.BACKWARD]
    if problem.splits_backward:
        kinds = [PassKind.FORWARD, PassKind.INPUT_GRAD, PassKind.WEIGHT_GRAD]
    f_s, b_s, i_s, w_s = problem.times.pass_table_s().tolist()
    duration = f_s + (i_s + w_s if problem.splits_backward else b_s)
    arcs = [(stage, stage + 1, edges[stage]) for stage in range(last)]
    arcs += [(last, num_stages + last, 0.0)]
    arcs += [(num_stages + stage + 1, num_stages + stage, edges[stage]) for stage in range(last)]
    if problem.splits_backward:
        arcs += [(num_stages + stage, 2 * num_stages + stage, 0.0) for stage in range(num_stages)]
    if backwards:
        arcs = [(after, before, delay) for before, after, delay in arcs]

    count = len(kinds) * num_stages
    rank = problem.stage_to_rank * len(kinds)
    awaits: list[list[tuple[int, float]]] = [[] for _ in range(count)]
    alerts: list[list[tuple[int, float]]] = [[] for _ in range(count)]
    for before, after, delay in arcs:
        awaits[after].append((before, delay))
        if rank[before] != rank[after]:
            alerts[before].append((after, delay))
    nothing = (0.0,) * num_stages
    idle = nothing * (len(kinds) - 1)
    takes, gives = (*problem.weights, *idle), (*idle, *problem.weights)
    if backwards:
        takes, gives = gives, takes
    of_rank = [tuple(line for line in range(count) if rank[line] == each) for each in range(problem.num_ranks)]
    closing_kind = 0 if backwards else num_stages
    return Lines(
        problem.num_microbatches,
        tuple(kind for kind in kinds for _ in range(num_stages)),
        tuple(range(num_stages)) * len(kinds),
        rank,
        tuple(duration),
        tuple(map(tuple, awaits)),
        tuple(map(tuple, alerts)),
        takes,
        gives,
        tuple((0 if backwards else count - num_stages) + stage for stage in range(num_stages)) * len(kinds),
        tuple(of_rank),
        tuple(tuple(line for line in mine if takes[line]) for mine in of_rank),
        tuple(closing_kind + max(problem.stages_on(each)) for each in range(problem.num_ranks)),
        tuple(cap * (1.0 + ROUNDING) for cap in problem.caps),
    )


def to_schedule(lines: Lines, orders: Orders, problem: OrderProblem, name: str = "auto") -> Schedule:
    """The orders as a Schedule, each line's micro-batches in turn."""
    count = [0] * len(lines.kind)
    ranks = []
    for order in orders:
        passes = []
        for line in order:
            passes.append(Pass(lines.kind[line], lines.stage[line], count[line]))
            count[line] += 1
        ranks.append(tuple(passes))
    return Schedule(name, problem.num_microbatches, problem.stage_to_rank, tuple(ranks))


def to_orders(schedule: Schedule, splits_backward: bool) -> Orders | None:
    """The lines that a schedule's ranks serve in turn; a full B becomes I and W where the backward splits.

    Gathers and reductions are left out; None for a schedule that has other passes than these lines.
    """
    num_stages = schedule.num_stages
    place: dict[PassKind, list[int]] = {kind: [] for kind in STAGE_KINDS}
    place |= {PassKind.FORWARD: [0], PassKind.BACKWARD: [1, 2] if splits_backward else [1]}
    if splits_backward:
        place |= {PassKind.INPUT_GRAD: [1], PassKind.WEIGHT_GRAD: [2]}
    if schedule.copies > 1 or not schedule.kinds <= set(place):
        return None
    return [[at * num_stages + step.stage for step in order for at in place[step.kind]] for order in schedule.orders]
