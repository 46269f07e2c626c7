"""Best-first search: bound every layout, place the most promising, stop when no bound can beat the incumbent."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import numpy as np

from costmodel.layouts import Column
from planner.problem import Problem
from planner.request import Request
from planner.search.first_look import SEEDS, UniformPrices, look_first, other_schedules, price_uniform
from planner.search.place import improve
from planner.search.run import Outcome, Progress, Run, family_of_rows
from planner.search.scan import Found, Scan
from planner.search.space import enumerate_space
from planner.search.tight import tighten

FAR = 4.0
"""Times the slowest uniform price: where bisection starts when no seed could be placed."""

SECOND_LOOK = 2000
"""Layouts that are priced under uniform policies once tight bounds are known."""

FIRST_TIGHTENED = 4096
"""Layouts of which tight bounds are known before the others': what looks best among them is the next incumbent."""

REFINED = 100
"""Layouts whose choices are looked through, at most."""

MEMBERS = 64
"""Layouts of one family that are placed together, at most."""


def search(request: Request, problem: Problem, on_progress: Callable[[Progress], None] | None = None) -> Outcome:
    """Enumerate, bound, and evaluate best-first until the gap is proven or the time is up; on nodes that are alike."""
    assert not problem.others, "over unlike groups of nodes planner.search.groups searches"
    began = perf_counter()
    outcome = Outcome(enumerate_space(request))
    if len(outcome.space):
        run = outcome.run = Run(request, problem, outcome, began, on_progress)
        scan = run.start_scan()
        found = _scan(run, scan)
        outcome.least_row, outcome.least_bytes = scan.leanest, scan.least_bytes
        _best_first(run, scan, found)
    outcome.wall_s = perf_counter() - began
    return outcome


def _scan(run: Run, scan: Scan) -> Found:
    """What the floors leave, the soonest first. The first of it that uniform policies fit gives the first incumbents,
    so that most of the space is measured against them."""
    parts: list[Found] = []
    for rows in scan.blocks():
        if parts and run.is_over():
            break
        parts.append(scan.look(rows, run.best_s))
        if run.best_s == np.inf and len(parts[-1].numbers):
            _place_seeds(run, Found.join(parts[-1:]))
    found = Found.join(parts)
    within = found.within(run.best_s)
    scan.too_slow += len(found.numbers) - len(np.union1d(within.numbers, list(run.done)))
    return within


def _place_seeds(run: Run, found: Found) -> UniformPrices:
    """Place those of some layouts, by ascending bound, that look best under uniform policies; what these cost."""
    uniform = look_first(run.priced, found.numbers, run.policies, run.budget)
    run.outcome.looked_at.append(uniform)
    for number in uniform.fastest(SEEDS):
        _place_one(run, found, number)
    return uniform


def _place_one(run: Run, found: Found, number: int) -> None:
    if number not in run.done and not run.has_enough:
        run.evaluate(found.take(np.flatnonzero(found.numbers == number)))


def _best_first(run: Run, scan: Scan, found: Found) -> None:
    """Evaluate seeds first, sharpen the bounds against what they reached, then go by bounds."""
    outcome = run.outcome
    reach_s, memory_alone = run.best_s, False
    if len(found.numbers):
        uniform = _place_seeds(run, found)
        others = other_schedules(run.priced, uniform, found.numbers, run.policies, run.budget)
        for number in others:
            _place_one(run, found, number)
        if run.best_s < np.inf:
            first = _tightened(run, found.first(FIRST_TIGHTENED), run.best_s)
            _look_again(run, first)
            found = Found.join([first, found.take(np.arange(len(first.numbers), len(found.numbers)))])
        # With no incumbent yet, far above what any layout could take.
        memory_alone = run.best_s == np.inf
        reach_s = FAR * float(np.max(uniform.step_time_s)) if memory_alone else run.best_s
    found = _tightened(run, _with_shares(run, scan, found, reach_s), reach_s)
    _look_again(run, found)
    outcome.near = found.numbers[np.isfinite(found.bounds)].tolist()
    placed = np.isin(found.numbers, list(run.done))
    never = int((~np.isfinite(found.bounds) & ~placed).sum())
    waiting = _place_by_bound(run, found.take(np.isfinite(found.bounds) & ~placed))
    run.refine(REFINED)
    _improve_best(run, min([run.best_s, scan.left_s, *waiting[:1].tolist(), *run.proven, *run.open.values()]))
    beaten = int((waiting >= run.to_beat_s).sum())
    outcome.pruned["memory"] = scan.too_large
    run.close()
    outcome.pruned["bound"] = outcome.pruned.get("bound", 0) + scan.too_slow + beaten
    rule = "memory, layer by layer" if memory_alone else "bound"
    outcome.pruned[rule] = outcome.pruned.get(rule, 0) + never
    outcome.pruned["not reached"] = outcome.pruned.get("not reached", 0) + scan.left + len(waiting) - beaten
    outcome.stopped = outcome.pruned["not reached"] > 0
    outcome.bound_s = min([run.best_s, scan.left_s, *waiting[:1].tolist(), *run.proven, *run.open.values()])


def _improve_best(run: Run, bound_s: float) -> None:
    """Move the answer's cuts about where the proof is not as close as it should be."""
    best = run.outcome.best
    if best is None or bound_s >= run.to_beat_s or run.is_over():
        return
    better = improve(run.problem, best.priced.layers, run.sets, run.budget, best)
    if better.step_time_s < run.best_s:
        run.outcome.evaluated.append(better)
        run.best_s = better.step_time_s


def _look_again(run: Run, found: Found) -> None:
    """Place what looks best under uniform policies, whatever its schedule, of those that tight bounds put first."""
    open_to = found.within(run.best_s).numbers[:SECOND_LOOK]
    if not len(open_to) or run.has_enough:
        return
    uniform = price_uniform(run.priced, open_to, run.policies, run.budget)
    run.outcome.looked_at.append(uniform)
    for number in uniform.fastest(SEEDS):
        if uniform.step_time_s[uniform.rows == number][0] < run.best_s:
            _place_one(run, found, number)


def _with_shares(run: Run, scan: Scan, found: Found, reach_s: float) -> Found:
    """The layouts with what is left of shares of the optimizer on the host, sized where the passes alone may be done
    within ``reach_s`` with all of it there; where they may not, that layout is out too."""
    hosted = _tightened(run, Found.join(scan.hosted).within(reach_s), reach_s)
    late = np.isin(found.numbers, hosted.numbers[hosted.bounds == np.inf])
    found = Found(found.numbers, np.where(late, np.inf, found.bounds), found.after_s)
    return Found.join([found, scan.size_shares(hosted.within(reach_s), reach_s)])


def _tightened(run: Run, found: Found, reach_s: float) -> Found:
    """The layouts with tight bounds where their floor is below ``reach_s``, by ascending bound."""
    near = np.flatnonzero(found.bounds < reach_s)
    if run.problem.pinned.lengths or not len(near):
        return found
    bounds = found.bounds.copy()
    layers = run.priced.take(found.numbers[near])
    bounds[near] = tighten(
        run.problem, layers, run.policies, run.budget, bounds[near], found.after_s[near], reach_s, run.is_over
    )
    return Found.join([Found(found.numbers, bounds, found.after_s)])


def _place_by_bound(run: Run, found: Found) -> Column:
    """Place families in the order of their bounds as long as they could beat the incumbent, its own family first: what
    differs from the answer in its state alone is often as good. The bounds of what is left."""
    # The incumbent only gets better: layouts beyond it now are never looked at.
    some = found.within(run.best_s)
    steps_s = run.outcome.steps_s
    answer = min(steps_s, key=lambda number: steps_s[number], default=-1)
    *family, own = family_of_rows(run.priced.take(np.append(some.numbers, max(answer, 0)))).tolist()
    families, waiting = np.array(family, np.intp), np.ones(len(found.numbers), bool)

    def place(alike: int) -> None:
        members = waiting[: len(families)] & (families == alike) & (some.bounds < run.best_s)
        if members.any():
            run.evaluate(found.take(np.flatnonzero(members)[:MEMBERS]))
            waiting[np.flatnonzero(members)[:MEMBERS]] = False

    def settled() -> bool:
        first_s = found.bounds[waiting.argmax()] if waiting.any() else np.inf
        return bool(first_s >= run.to_beat_s) or run.is_over()

    if answer >= 0 and not settled():
        place(own)
    while not settled():
        place(int(families[waiting.argmax()]))
    return found.bounds[waiting]
