"""A lower bound on the makespan of every order that obeys the cap.

For rank r with stages s < … < z, work w_r a micro-batch, cap C_r and m micro-batches; chains are passes of one
micro-batch, one after the other, with the delays between them:

    before    F(0) … F(s - 1) and the edge to s: nothing runs on r earlier
    there     F(0) … F(last), I(last) … I(z + 1): no backward runs on r earlier
    round     F(s + 1) … F(last), I(last) … I(s + 1): from the last F(s) on r to its I(s)
    after     I(s - 1) … I(0), W(0): from the last I(s) on r to the end of all
    lead      the most forward work that C_r lets r do before its first backward
    trail     the most weight gradients that C_r lets r put off until after its last I(s)

1. Work       before + m·w_r, and whatever of ``after`` the put-off weight gradients do not cover.
2. Ends       there - lead of idle time before r's first backward; the last pass waits ``after`` - trail.
3. Middle     between r's last F(s) and its I(s) lie ``round`` seconds, in which r has no more to do than the
              micro-batches that fit beside this one, and this one's passes of later chunks. The idle time adds to
              that of 2 where the cap makes a backward come before the last F(s).
4. Memory     a micro-batch keeps stage s for at least F(s) … I(s), W(s): m of these, each times its weight, fit into
              C_r times the makespan less ``before``. With one stage on r, floor(C_r / weight) of them live at a time.
5. Chain      one micro-batch through all stages and back.

The largest over all ranks. A full backward counts as I = B and no W.
Sources: Qi et al. 2023, "Zero Bubble Pipeline Parallelism", section 2 (what the ends cost); Qi et al. 2024, "Pipeline
Parallelism with Controllable Memory", section 2 (lifespan times throughput is memory).
"""

from __future__ import annotations

from math import ceil, floor

from planner.synthesis.problem import ROUNDING, OrderProblem


def lower_bound(problem: OrderProblem) -> float:
    """No order under the cap ends earlier; in the unit of the problem's times."""
    bounds = [_Rank(problem, rank).bound() for rank in range(problem.num_ranks)]
    return max(bounds)


class _Rank:
    """The terms of the module's text for one rank."""

    def __init__(self, problem: OrderProblem, rank: int) -> None:
        table: list[list[float]] = problem.times.pass_table_s().tolist()
        forward, backward, input_grad, weight_grad = table
        if not problem.splits_backward:
            input_grad, weight_grad = backward, [0.0] * problem.num_stages
        self.forward, self.input_grad, self.weight_grad = forward, input_grad, weight_grad
        self.m, self.stages, self.edges = problem.num_microbatches, problem.stages_on(rank), problem.edges()
        self.weights = problem.weights
        self.cap = min(problem.caps[rank], self.m * problem.rank_weight(rank)) * (1.0 + ROUNDING)
        first, last = self.stages[0], self.stages[-1]
        self.before = sum(forward[:first]) + sum(self.edges[:first])
        self.there = sum(forward) + sum(self.edges) + sum(input_grad[last + 1 :]) + sum(self.edges[last:])
        self.round = sum(forward[first + 1 :]) + sum(input_grad[first + 1 :]) + 2 * sum(self.edges[first:])
        self.after = sum(input_grad[:first]) + sum(self.edges[:first]) + weight_grad[0] if first else 0.0
        self.chain = sum(forward) + sum(input_grad) + 2 * sum(self.edges) + weight_grad[0]
        self.work = self.m * sum(forward[s] + input_grad[s] + weight_grad[s] for s in self.stages)

    def bound(self) -> float:
        lead = self._fits(self.forward, self.cap)
        trail = self._fits(self.weight_grad, self.cap)
        early, late = max(self.there - lead, self.before), max(self.after - trail, 0.0)
        middle = self._middle()
        idle = (early + middle if self._must_turn_back() else max(early, middle)) + late
        return max(self.work + idle, self.chain, self._memory())

    def _fits(self, time: list[float], room: float) -> float:
        """The most that passes taking ``time`` on the rank's stages add up to when those alive fit into ``room``."""
        if len(self.stages) == 1:
            (stage,) = self.stages
            return min(self.m, floor(room / self.weights[stage])) * time[stage]
        total = 0.0
        for stage in sorted(self.stages, key=lambda stage: time[stage] / self.weights[stage], reverse=True):
            count = min(float(self.m), room / self.weights[stage])
            total += count * time[stage]
            room -= count * self.weights[stage]
        return total

    def _must_turn_back(self) -> bool:
        """Whether the first stage's micro-batches alone are more than the cap holds."""
        return self.m * self.weights[self.stages[0]] > self.cap

    def _middle(self) -> float:
        """Idle time between the last F of the first stage and its I."""
        first, later = self.stages[0], self.stages[1:]
        whole = {s: self.forward[s] + self.input_grad[s] + self.weight_grad[s] for s in later}
        own = sum(whole.values())
        room = self.cap - self.weights[first]
        # Another micro-batch holds the first stage and has all of the rest before it, or holds less and has less.
        most = sum(whole.values()) + self.input_grad[first] + self.weight_grad[first]
        count = floor(room / self.weights[first])
        others = count * most
        if later:
            stages = {s: self.input_grad[s] + self.weight_grad[s] for s in self.stages}
            density = max([most / self.weights[first], *(time / self.weights[s] for s, time in stages.items())])
            others = room * density
        others = min(others, (self.m - 1) * most)
        return max(self.round - own - others, 0.0)

    def _memory(self) -> float:
        if len(self.stages) == 1:
            (stage,) = self.stages
            return self.before + ceil(self.m / floor(self.cap / self.weights[stage])) * self._lifespan(stage)
        return self.before + self.m * sum(self.weights[s] * self._lifespan(s) for s in self.stages) / self.cap

    def _lifespan(self, stage: int) -> float:
        passes = sum(self.forward[stage:]) + sum(self.input_grad[stage:]) + self.weight_grad[stage]
        return passes + 2 * sum(self.edges[stage:])
