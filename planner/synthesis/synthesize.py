"""Find an order of passes: candidates from three families, the best of them improved.

1. Generators   every published schedule that fits the problem and its cap
2. Rules        list scheduling under many rules of urgency (``rules``)
3. Blocks       uniform V-shaped building blocks that fill the cap, and a search over blocks for any placement
                (``block_search``)

Rules and blocks are tried with few micro-batches, some more than are ever in flight, and their schedules stretched to
all by repeating their best steady state. The leaders are justified, and the best is searched around.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil
from random import Random
from typing import Any

from costmodel.schema.schedule import Schedule
from planner.simulator import simulate
from planner.synthesis.block_search import search_blocks
from planner.synthesis.bounds import lower_bound
from planner.synthesis.budget import Budget
from planner.synthesis.generators import generator_candidates, v_block_candidate
from planner.synthesis.lines import Lines, lines_of, to_schedule
from planner.synthesis.list_scheduling import Recipe, list_schedule
from planner.synthesis.local_search import EQUAL, LocalSearch
from planner.synthesis.problem import OrderProblem
from planner.synthesis.rules import rules
from planner.synthesis.steady_state import stretch
from planner.synthesis.timing import Timing, peaks

LEADERS = 6
"""Candidates of each family that are stretched and justified."""

MOST_PASSES = 4_000_000
"""Placed in a search of effort 1, however large the problem: some ten seconds."""

FEW = 2.5
"""Micro-batches a rank with which rules and blocks are tried."""

LARGE = 10_000
"""Passes beyond which only half as many are."""

RULES, BLOCKS = "list scheduling", "building block"


@dataclass(frozen=True, eq=False)
class Synthesis:
    """What was found.

    schedule          named ``auto``
    makespan          in the unit of the problem's times, as the simulator has it
    peak_activations  per rank, in the unit of its ``stage_weights``
    lower_bound       no order under the cap ends earlier
    family            where the order comes from: a published schedule, list scheduling, or a building block; and
                      whether local search changed it
    candidates        the best makespan of each family and published schedule, before local search
    """

    problem: OrderProblem
    schedule: Schedule
    makespan: float
    peak_activations: tuple[float, ...]
    lower_bound: float
    family: str
    candidates: dict[str, float]

    @property
    def gap(self) -> float:
        """(makespan - bound) / makespan: no order is faster by a larger share."""
        return (self.makespan - self.lower_bound) / self.makespan if self.makespan else 0.0

    def figures(self) -> dict[str, Any]:
        """What the JSON of ``plan schedule auto`` says beyond that of other schedules; ``vpp``: stages a rank."""
        return {
            "family": self.family,
            "lower_bound": self.lower_bound,
            "vpp": self.problem.num_stages // self.problem.num_ranks,
            "stage_to_rank": list(self.problem.stage_to_rank),
            "candidates": self.candidates,
        }

    def summary(self) -> str:
        """Where the order comes from, and how far from the best it can be."""
        rivals = sorted(self.candidates.items(), key=lambda pair: pair[1])
        before = ", ".join(f"{name} {makespan:g}" for name, makespan in rivals)
        proven = "no order is faster" if self.gap <= EQUAL else f"at most {100 * self.gap:.1f}% from the best"
        return f"from {self.family}; {proven} (bound {self.lower_bound:g}); tried: {before}"


def synthesize(problem: OrderProblem, effort: float = 1.0, seconds: float | None = None, seed: int = 0) -> Synthesis:
    """The fastest order found for ``problem``.

    ``effort`` scales the search; 1 is a second or two at 8 ranks and 32 micro-batches. The same problem, effort and
    seed give the same order, unless ``seconds`` end the search before its effort is spent. Never slower than a
    published schedule of the same placement under the same cap.
    """
    lines, bound = lines_of(problem), lower_bound(problem)
    size = lines.num_passes
    budget = Budget(effort * min(MOST_PASSES, min(600_000, 10_000 * size) + 80 * size), seconds)

    pool = list(generator_candidates(problem, lines))
    if not any(_optimal(timing, bound) for _, timing in pool):
        block = v_block_candidate(problem, lines)
        pool += [] if block is None else [(BLOCKS, block)]
        pool += _grown(problem, lines, budget, seed)
    pool.sort(key=lambda entry: (round(entry[1].makespan / (bound or 1.0), 9), max(peaks(lines, entry[1].orders))))
    candidates: dict[str, float] = {}
    for name, timing in pool:
        candidates.setdefault(name, timing.makespan)

    family = pool[0][0]
    leaders = _leaders(pool)
    search = LocalSearch(problem, [timing for _, timing in leaders], bound, budget.part(0.5), seed)
    for name, timing in leaders:
        if not search.done and search.offer(search.justify(timing)):
            family = name
    search.run()
    if search.best.makespan < candidates[family] * (1.0 - EQUAL):
        family += ", improved"
    return _result(problem, search.best, bound, family, candidates)


def best_generator(problem: OrderProblem) -> Synthesis | None:
    """The fastest published schedule of the problem's placement under its cap, None if there is none."""
    found = dict(generator_candidates(problem, lines_of(problem)))
    if not found:
        return None
    name = min(found, key=lambda name: found[name].makespan)
    makespans = {each: timing.makespan for each, timing in found.items()}
    return _result(problem, found[name], lower_bound(problem), name, makespans)


def _result(
    problem: OrderProblem, timing: Timing, bound: float, family: str, candidates: dict[str, float]
) -> Synthesis:
    schedule = to_schedule(timing.lines, timing.orders, problem)
    simulation = simulate(schedule, problem.times)
    alive = tuple(simulation.peak_activations(problem.weights).tolist())
    return Synthesis(problem, schedule, simulation.makespan_s, alive, bound, family, candidates)


def _leaders(pool: list[tuple[str, Timing]]) -> list[tuple[str, Timing]]:
    """The first of each family in a sorted pool, so that local search does not start from one idea alone; of those
    with the same makespan one will do.
    """
    found: dict[tuple[str, float], Timing] = {}
    for name, timing in pool:
        if sum(family == name for family, _ in found) < LEADERS:
            found.setdefault((name, timing.makespan), timing)
    leaders = [(name, timing) for (name, _), timing in found.items()]
    return sorted(leaders, key=lambda entry: entry[1].makespan)[: 2 * LEADERS]


def _optimal(timing: Timing, bound: float) -> bool:
    return timing.makespan <= bound * (1.0 + EQUAL)


def _grown(problem: OrderProblem, lines: Lines, budget: Budget, seed: int) -> list[tuple[str, Timing]]:
    """The leading rules and blocks, for all micro-batches."""
    few, many = ceil(FEW * problem.num_ranks), problem.num_microbatches
    if many <= 1.3 * few:
        few = many
    small = replace(problem, num_microbatches=few)
    kept = LEADERS if lines.num_passes < LARGE else LEADERS // 2
    small_lines, small_bound = lines_of(small), lower_bound(small)
    searches = {
        RULES: _try_rules(small_lines, small_bound, budget.part(0.15)),
        BLOCKS: search_blocks(small_lines, small_bound, budget.part(0.2), Random(seed)),
    }
    found: list[tuple[str, Timing]] = []
    for family, tried in searches.items():
        leaders = sorted(tried, key=lambda pair: pair[1].makespan)[:kept]
        if few == many:
            found += [(family, timing) for _, timing in leaders]
        else:
            search = LocalSearch(small, [timing for _, timing in leaders], small_bound, budget.part(0.1), seed)
            search.run()
            grown = [stretch(timing, lines) for timing in (search.best, *(timing for _, timing in leaders))]
            found += [(family, timing) for timing in grown if timing is not None]
            found += [(family, list_schedule(lines, recipe.rule(lines))) for recipe, _ in leaders]
        if any(_optimal(timing, lower_bound(problem)) for _, timing in found):
            break
    return found


def _try_rules(lines: Lines, bound: float, budget: Budget) -> Iterator[tuple[Recipe, Timing]]:
    """Every rule with its schedule, one at least, until ``bound`` is met or the budget spent."""
    for recipe in rules(lines):
        timing = list_schedule(lines, recipe.rule(lines))
        yield recipe, timing
        budget.spend(lines.num_passes)
        if not budget.left or _optimal(timing, bound):
            return
