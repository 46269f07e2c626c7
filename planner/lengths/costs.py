"""What one sequence of each length costs on each shape of a context-parallel group, by the cost model itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from costmodel.even_split import uniform_assignment
from costmodel.layer_table import price_layers
from costmodel.layouts import SCHEDULE_CODES, Column, IntColumn, Layouts
from costmodel.memory import claim_budget_bytes
from costmodel.price import Priced, price
from costmodel.schema.errors import Infeasible
from planner.lengths.admitted import Base, bases, check_constraints, group_shapes, splits_sequences
from planner.lengths.groups import GroupProblem
from planner.lengths.histogram import Histogram
from planner.problem import Problem
from planner.request import Request

TOKENS_PER_RANK = (1024, 131072)
"""A micro-batch packs sequences, at least one, to between so many tokens a context rank."""


@dataclass(frozen=True)
class GroupCosts:
    """``problem.seconds[j, s]``: forward and backward of one sequence of length j on shape s = ``shapes[s]`` (ring,
    Ulysses), packed with others like it, ``packed[j, s]`` at once.

    ``tail_s``: reductions and update behind the step's last backward. ``jitter``: share that waiting for the slowest
    device adds.
    """

    base: Base
    shapes: tuple[tuple[int, int], ...]
    problem: GroupProblem
    packed: IntColumn
    tail_s: float
    jitter: float

    def step_s(self, makespan_s: float) -> float:
        return (makespan_s + self.tail_s) * (1.0 + self.jitter)


def price_groups(request: Request, problem: Problem, histogram: Histogram) -> list[GroupCosts]:
    """Every base with every shape that the request admits, where each length fits at least one.

    Seconds are a micro-batch's of k sequences divided by k, for the best k that fits: attention grows with the sum of
    their squares, all else with the sum. Gradients are synchronised once a step: stages 0 and 1.

    Leaves out: padding a sequence to a multiple of 2 · cp; the last micro-batch of a group, which may not be full.
    Raises Infeasible where nothing holds the longest sequence; InvalidSpec for constraints on what groups differ in.
    """
    check_constraints(request)
    drafts = [
        _Draft(base, shapes, len(histogram.lengths))
        for base in bases(request)
        if (shapes := tuple(group_shapes(request, base.tp)))
    ]
    # Longest first: a base that cannot hold it is priced no further.
    for j in reversed(range(len(histogram.lengths))):
        _price_length(request, problem, drafts, histogram, j)
        drafts = [draft for draft in drafts if np.isfinite(draft.seconds[j]).any()]
    found = [draft.costs(histogram, request.cluster.num_devices) for draft in drafts]
    if not found:
        raise Infeasible(
            f"no group of ranks holds the longest sequence, {histogram.longest} tokens",
            hint="more GPUs, a --runtime with context parallelism, or --fix recompute=full",
        )
    return found


class _Draft:
    """Costs of one base while they are filled in, length by length."""

    def __init__(self, base: Base, shapes: tuple[tuple[int, int], ...], lengths: int) -> None:
        self.base, self.shapes = base, shapes
        self.seconds = np.full((lengths, len(shapes)), np.inf)
        self.packed = np.zeros((lengths, len(shapes)), np.int64)
        self.tail_s: float | None = None
        self.jitter = 0.0

    def costs(self, histogram: Histogram, devices: int) -> GroupCosts:
        ranks = tuple(ring * ulysses for ring, ulysses in self.shapes)
        kept = _undominated(ranks, self.seconds)
        world = devices // self.base.tp
        program = GroupProblem(histogram.counts, tuple(ranks[s] for s in kept), self.seconds[:, kept], world)
        shapes = tuple(self.shapes[s] for s in kept)
        return GroupCosts(self.base, shapes, program, self.packed[:, kept], self.tail_s or 0.0, self.jitter)


def _price_length(request: Request, problem: Problem, drafts: Sequence[_Draft], histogram: Histogram, j: int) -> None:
    """Row ``j`` of every draft's columns; of the longest length the step's end too, on the first shape with room."""
    length, count = histogram.lengths[j], histogram.counts[j]
    rows = [
        (draft, s, k)
        for draft in drafts
        for s, shape in enumerate(draft.shapes)
        for k in _numbers(length, count, shape)
    ]
    if not rows:
        return
    priced = _price_rows(request, problem, length, rows)
    budget = claim_budget_bytes(priced.layers.setting, request.fit_probability)
    fits = (priced.peak_claim_bytes <= budget) & priced.fits_host
    busy_s = priced.layers.contention * (priced.work.forward_pass_s + priced.work.backward_pass_s)[:, 0]
    ends_s = priced.layers.contention * priced.extras.exposed_s[:, 0]
    for row in np.flatnonzero(fits).tolist():
        draft, s, k = rows[row]
        if busy_s[row] / k < draft.seconds[j, s]:
            draft.seconds[j, s], draft.packed[j, s] = busy_s[row] / k, k
        if draft.tail_s is None:
            draft.tail_s, draft.jitter = float(ends_s[row]), float(priced.layers.jitter[row])


def _numbers(length: int, count: int, shape: tuple[int, int]) -> list[int]:
    """How many sequences may be packed: powers of two within TOKENS_PER_RANK, and one where one alone exceeds it."""
    least, most = (tokens * shape[0] * shape[1] / length for tokens in TOKENS_PER_RANK)
    powers = [2**i for i in range(count.bit_length()) if 2**i <= most]
    return [k for k in powers if 2 * k > least] or powers[-1:] or [1]


def _undominated(ranks: Sequence[int], seconds: Column) -> list[int]:
    """Shapes that no other of as many ranks matches at every length."""
    kept: list[int] = []
    for s, size in enumerate(ranks):
        rivals = [r for r in range(len(ranks)) if r != s and ranks[r] == size]
        beaten = any(
            (seconds[:, r] <= seconds[:, s]).all() and (r < s or (seconds[:, r] < seconds[:, s]).any()) for r in rivals
        )
        if not beaten and np.isfinite(seconds[:, s]).any():
            kept.append(s)
    return kept


def _price_rows(request: Request, problem: Problem, length: int, rows: Sequence[tuple[_Draft, int, int]]) -> Priced:
    """A row for each (base, shape, number of packed sequences): one micro-batch, the state shared by all devices."""
    workload = problem.setting.workload.model_copy(update={"seq_len": length})
    setting = replace(problem.setting, workload=workload)

    def column(values: Iterable[int]) -> IntColumn:
        return np.fromiter(values, np.int64, len(rows))

    tp = column(draft.base.tp for draft, _, _ in rows)
    stage = column(draft.base.zero_stage for draft, _, _ in rows)
    ring, ulysses = (column(draft.shapes[s][axis] for draft, s, _ in rows) for axis in (0, 1))
    ones, none = np.ones_like(tp), np.zeros_like(tp)
    dp = request.cluster.num_devices // (tp * ring * ulysses)
    columns: dict[str, Any] = {field.name: none for field in fields(Layouts)}
    columns |= dict.fromkeys(("pp", "vpp", "etp"), ones)
    columns |= {
        "tp": tp,
        "ep": column(draft.base.ep for draft, _, _ in rows),
        "cp_ring": ring,
        "cp_ulysses": ulysses,
        "dp_replicate": np.where(stage == 0, dp, 1),
        "dp_shard": np.where(stage == 0, 1, dp),
        "micro_batch_size": column(k for _, _, k in rows),
        "num_microbatches": ones,
        "zero_stage": stage,
        "sequence_parallel": np.where(tp == 1, 1, int(splits_sequences(request))),
        "optimizer_offload": none.astype(np.float64),
        "schedule": np.full_like(tp, SCHEDULE_CODES.index("1f1b")),
    }
    layouts = Layouts(**columns)
    layers = price_layers(setting, problem.network, layouts)
    policy = column(draft.base.policy for draft, _, _ in rows)
    return price(layers, uniform_assignment(problem.kinds, problem.num_kinds, layouts, policy))
