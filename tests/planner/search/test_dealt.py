"""Mixes as dealt to several stages a rank: what the search says of each, against its placement priced and simulated."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest
from drawn_instances import draw_instance
from exhaustive import ROUNDING

from planner.evaluate import evaluate
from planner.placement import Placement
from planner.problem import Problem
from planner.search.dealt import list_dealt
from planner.search.dealt_paths import DealtProblem, dealt_problem
from planner.search.placed import deal
from planner.search.run import Outcome, Run
from planner.search.space import enumerate_space
from planner.search.splits import is_given, splits_of_row

MOST = 40
"""Choices of one layout that are looked at."""


@pytest.mark.parametrize("seed", [82, 389, 755])
def test_every_choice_is_what_its_placement_takes(seed: int) -> None:
    """Its stages' times and its end, that it fits, and no known path longer than the simulated step."""
    request, looked_at = draw_instance(seed).request, 0
    run = Run(request, Problem.from_request(request), Outcome(enumerate_space(request)), 0.0, None)
    for number in range(len(run.outcome.space)):
        layers = run.priced.take(np.array([number]))
        if not is_given(layers.layouts) or int(layers.layouts.pp[0]) == 1:
            continue
        for lengths in splits_of_row(run.problem, layers):
            whole = dealt_problem(run.problem, layers, lengths)
            within_s = np.full(len(whole.choices), inf)
            choices = list_dealt(run.problem, layers, lengths, run.sets[0], run.budget, within_s)
            if choices is None or not all(choices):
                continue
            several = [tuple(of_rank[at % len(of_rank)] for of_rank in choices) for at in range(max(map(len, choices)))]
            looked_at += len(several[:MOST])
            times, ends_s = whole.times(several)
            for row, chosen in enumerate(several[:MOST]):
                split, homes, mixes = whole.split(chosen)
                policies = deal(run.problem, split, homes, mixes)
                placement = Placement(layers.layouts.row(0), layers.layouts.schedule_name(0), split, policies)
                found = evaluate(run.problem, placement, layers=layers)
                assert times.recompute_s[row] == pytest.approx(found.times.recompute_s)
                assert times.forward_s[row] == pytest.approx(found.times.forward_s)
                assert ends_s[row] == pytest.approx(found.priced.extras.exposed_s.max() * layers.contention[0])
                assert found.priced.peak_claim_bytes[0] <= run.budget * ROUNDING
                assert found.priced.fits_host[0]
                assert longest_s(whole, chosen) <= found.simulation.makespan_s * ROUNDING
    assert looked_at


def longest_s(whole: DealtProblem, chosen: tuple[object, ...]) -> float:
    """The longest known path of one choice."""
    opened = DealtProblem(tuple((one,) for one in chosen), whole.lengths, whole.homes, whole.plain, whole.paths)  # type: ignore[misc]
    return float((opened.delays_s + np.sum([step.added_s[0] for step in opened.steps], axis=0)).max())
