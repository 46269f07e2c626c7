"""Why this schedule: what the same layout would take under the others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from costmodel.layouts import Layouts
from planner.evaluate import Evaluated
from planner.prediction import estimate_breakdown
from planner.search.first_look import price_uniform
from planner.search.run import Outcome

TRIES = 3
"""Other schedules placed for the comparison, at most."""

TIE = 5e-4
"""Share of the step below which two schedules count as equally fast."""

ALIKE_BYTES = 2**28
"""Difference of memory that is not worth a word."""


def say_schedule(outcome: Outcome, best: Evaluated) -> str | None:
    """``zb-v instead of 1f1b: 3.1% faster, bubble 4.1% against 12.3%, 1.2 GiB less on rank 0``: the next best of the
    schedules that the layout could run. None without a pipeline, or where nothing else was open.
    """
    if best.placement.layout.pp == 1 or outcome.run is None:
        return None
    other = _next_best(outcome, best)
    if other is None:
        return None
    return f"{named(best)} instead of {named(other)}: {say_against(best, other)}."


def say_against(best: Evaluated, other: Evaluated) -> str:
    """What the first schedule of one layout has over the second: time, bubble, sends, recomputation, memory."""
    share = other.step_time_s / best.step_time_s - 1.0
    pace = "as fast" if abs(share) < TIE else f"{share:.1%} faster"
    said = [pace, f"bubble {_bubble(best):.1%} against {_bubble(other):.1%}"]
    ours, theirs = estimate_breakdown(best), estimate_breakdown(other)
    for term, name in (("pp", "pipeline sends"), ("recompute", "recomputation")):
        key = f"{term}_exposed_s"
        gap = theirs.get(key, 0.0) - ours.get(key, 0.0)
        if abs(gap) > 10 * TIE * best.step_time_s:
            said.append(f"{abs(gap) / best.step_time_s:.1%} {'less' if gap > 0 else 'more'} {name}")
    change = other.priced.memory.device[0] - best.priced.memory.device[0]
    rank = int(np.abs(change).argmax())
    if abs(change[rank]) > ALIKE_BYTES:
        said.append(f"{abs(change[rank]) / 2**30:.1f} GiB {'less' if change[rank] > 0 else 'more'} on rank {rank}")
    return ", ".join(said)


def named(evaluated: Evaluated) -> str:
    """``interleaved-1f1b with 2 stages a rank``."""
    layout = evaluated.placement.layout
    if layout.vocab_parallel:
        return f"{evaluated.schedule.name} (the vocabulary split over {layout.pp} ranks)"
    return evaluated.schedule.name + (f" with {layout.vpp} stages a rank" if layout.vpp > 1 else "")


def _bubble(evaluated: Evaluated) -> float:
    return evaluated.simulation.bubble_fraction


def _next_best(outcome: Outcome, best: Evaluated) -> Evaluated | None:
    """The fastest other schedule of the same degrees: of those evaluated, and of a few that look promising."""
    run = outcome.run
    assert run is not None
    rows = _same_degrees(outcome, best)
    if not len(rows):
        return None
    placed: dict[str, Evaluated] = {}
    promising = price_uniform(run.priced, rows, run.policies, run.budget)
    likely_s = np.where(promising.fits, promising.step_time_s, np.inf)
    # Whatever was simulated comes first, the fastest first of all.
    known_s = np.array([outcome.steps_s.get(row, np.inf) for row in rows.tolist()])
    tried = 0
    ranked = rows[np.lexsort((likely_s, known_s))]
    for row, name in zip(ranked.tolist(), outcome.space.schedule_names(ranked), strict=True):
        if name in placed or name == best.placement.schedule or tried >= TRIES:
            continue
        tried += 1
        found = run.placement(row)
        if found is not None:
            placed[name] = found
    return min(placed.values(), key=lambda one: one.step_time_s, default=None)


def _same_degrees(outcome: Outcome, best: Evaluated) -> NDArray[np.intp]:
    """Numbers of the layouts that differ from the best in nothing but the schedule and its stages a rank."""
    own = Layouts.from_rows([(best.placement.layout, best.placement.schedule)])
    number = outcome.space.number_of(own)
    if number is None:
        return np.zeros(0, np.intp)
    alike = outcome.space.alike(number)
    return np.asarray(alike[outcome.space.outer["schedule"][outcome.space.outer_of(alike)] != own.schedule[0]])
