"""The exact order of a tiny problem, as a mixed-integer program: the reference that synthesis is held to.

Passes a, b, … of all lines and micro-batches, with duration d_a, memory w_a taken (F) or given back (W, or B), UB the
makespan of any order, head_a the longest chain before a, tail_a the longest one after it.

    variables
    (v1) t_a ∈ [head_a, UB - tail_a - d_a]        start
    (v2) x_ab ∈ {0, 1}                            a before b, for two passes of a rank that nothing else orders;
                                                  x_ab = 1, x_ba = 0 where a chain leads from a to b; x_ba = 1 - x_ab
    (v3) T                                        makespan
    objective
         minimise T
    subject to
    (c1) T   ≥ t_a + d_a + tail_a                 every pass a
    (c2) t_b ≥ t_a + d_a + delay_ab               b awaits a, or follows it in its line
    (c3) t_b ≥ t_a + d_a - M_ab (1 - x_ab)        two passes of a rank; M_ab = UB - tail_a - head_b
    (c4) w_a + Σ_b taken w_b x_ba - Σ_b given w_b x_ba ≤ C_r      every a on rank r that takes memory

Lines run their micro-batches in turn, which costs nothing (``lines``) and breaks the symmetry among micro-batches.
Source: Qi et al. 2023, "Zero Bubble Pipeline Parallelism", appendix G, for the shape of such a model; there memory is
an extra variable, here it follows from the order.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import pulp

from planner.synthesis.bounds import lower_bound
from planner.synthesis.lines import Lines, lines_of
from planner.synthesis.problem import OrderProblem
from planner.synthesis.timing import Timing, time_orders

Node = tuple[int, int]
"""(line, micro-batch)."""


@dataclass(frozen=True, eq=False)
class ExactOrder:
    """``timing``: the best order found, None if none was. ``bound``: no order ends earlier. ``optimal``: they meet."""

    timing: Timing | None
    bound: float
    optimal: bool


def solve_exactly(problem: OrderProblem, incumbent: Timing, seconds: float = 30.0) -> ExactOrder:
    """The fastest order of all, found with HiGHS; ``incumbent`` gives UB. Worth trying up to some 40 passes."""
    lines = lines_of(problem)
    model = _Model(lines, incumbent.makespan)
    solver = pulp.HiGHS(msg=False, timeLimit=seconds, gapRel=1e-9, threads=1)
    model.program.solve(solver)
    found = model.program.sol_status in (pulp.LpSolutionOptimal, pulp.LpSolutionIntegerFeasible)
    optimal = model.program.sol_status == pulp.LpSolutionOptimal
    timing = time_orders(lines, model.orders()) if found else None
    bound = timing.makespan if timing is not None and optimal else lower_bound(problem)
    return ExactOrder(timing, bound, optimal and timing is not None)


class _Model:
    """Variables, objective and constraints of the module's text."""

    def __init__(self, lines: Lines, upper: float) -> None:
        self.lines, self.upper = lines, upper * (1.0 + 1e-6)
        self.nodes: list[Node] = [(line, k) for line in range(len(lines.kind)) for k in range(lines.num_microbatches)]
        self.arcs = self._arcs()
        self.head, self.tail = self._heads_and_tails()
        self.program = pulp.LpProblem("order", pulp.LpMinimize)
        self.makespan = pulp.LpVariable("T", lowBound=0.0)
        self.start = {node: self._start(node) for node in self.nodes}
        self.before: dict[tuple[Node, Node], pulp.LpVariable | int] = {}
        self.program += self.makespan
        self._add_makespan()
        self._add_arcs()
        self._add_pairs()
        self._add_memory()

    def orders(self) -> list[list[int]]:
        """The lines that each rank serves in turn, in the solution."""
        found = []
        for rank in range(self.lines.num_ranks):
            mine = self._nodes_on(rank)
            place = {
                node: sum(round(pulp.value(self.before[other, node])) for other in mine if other != node)
                for node in mine
            }
            found.append([line for line, _ in sorted(mine, key=lambda node: place[node])])
        return found

    def _nodes_on(self, rank: int) -> list[Node]:
        return [node for node in self.nodes if self.lines.rank[node[0]] == rank]

    def _span(self, node: Node) -> float:
        return self.lines.duration[node[0]]

    def _arcs(self) -> list[tuple[Node, Node, float]]:
        arcs = [((source, k), (line, k), delay) for line, k in self.nodes for source, delay in self.lines.awaits[line]]
        return arcs + [((line, k - 1), (line, k), 0.0) for line, k in self.nodes if k]

    def _heads_and_tails(self) -> tuple[dict[Node, float], dict[Node, float]]:
        """(longest chain before each pass, longest after it), and with them ``reach``: all passes after it."""
        after: dict[Node, list[tuple[Node, float]]] = {node: [] for node in self.nodes}
        waiting = dict.fromkeys(self.nodes, 0)
        for a, b, delay in self.arcs:
            after[a].append((b, delay))
            waiting[b] += 1
        head = dict.fromkeys(self.nodes, 0.0)
        ready = [node for node in self.nodes if not waiting[node]]
        for a in ready:
            for b, delay in after[a]:
                head[b] = max(head[b], head[a] + self._span(a) + delay)
                waiting[b] -= 1
                if not waiting[b]:
                    ready.append(b)
        tail = dict.fromkeys(self.nodes, 0.0)
        self.reach: dict[Node, set[Node]] = {node: set() for node in self.nodes}
        for a in reversed(ready):
            for b, delay in after[a]:
                tail[a] = max(tail[a], delay + self._span(b) + tail[b])
                self.reach[a] |= {b} | self.reach[b]
        return head, tail

    def _start(self, node: Node) -> pulp.LpVariable:
        latest = self.upper - self.tail[node] - self._span(node)
        return pulp.LpVariable(f"t_{node[0]}_{node[1]}", lowBound=self.head[node], upBound=latest)

    def _add_makespan(self) -> None:
        """(c1)"""
        for node in self.nodes:
            self.program += self.makespan >= self.start[node] + self._span(node) + self.tail[node]

    def _add_arcs(self) -> None:
        """(c2)"""
        for a, b, delay in self.arcs:
            self.program += self.start[b] >= self.start[a] + self._span(a) + delay

    def _add_pairs(self) -> None:
        """(v2) and (c3)"""
        for rank in range(self.lines.num_ranks):
            for a, b in combinations(self._nodes_on(rank), 2):
                if b in self.reach[a] or a in self.reach[b]:
                    self.before[a, b], self.before[b, a] = int(b in self.reach[a]), int(a in self.reach[b])
                    continue
                x = pulp.LpVariable(f"x_{a[0]}_{a[1]}_{b[0]}_{b[1]}", cat="Binary")
                self.before[a, b], self.before[b, a] = x, 1 - x
                self._add_disjunction(a, b)
                self._add_disjunction(b, a)

    def _add_disjunction(self, a: Node, b: Node) -> None:
        most = self.upper - self.tail[a] - self.head[b]
        self.program += self.start[b] >= self.start[a] + self._span(a) - most * (1 - self.before[a, b])

    def _add_memory(self) -> None:
        """(c4)"""
        lines = self.lines
        for rank, cap in enumerate(lines.caps):
            mine = self._nodes_on(rank)
            for a in mine:
                if not lines.takes[a[0]]:
                    continue
                others = [(lines.takes[b[0]] - lines.gives[b[0]], b) for b in mine if b != a]
                alive = pulp.lpSum(weight * self.before[b, a] for weight, b in others if weight)
                self.program += lines.takes[a[0]] + alive <= cap
