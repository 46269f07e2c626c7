"""Closing a layout's gap by what the timeline shows, against every joined choice simulated."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest
from small_instances import build_model, build_request
from test_stages import SCHEDULES, joined, options_of, random_problem, simulated_s

from planner.problem import Problem
from planner.schedules import build_schedule
from planner.search import closing as closing_of
from planner.search.best_first import search
from planner.search.closing import Closing
from planner.search.joined import join_steps
from planner.search.stage_problem import path_bound_s


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("seed", range(600, 610))
def test_the_bound_is_met_and_the_choice_the_fastest(seed: int, schedule: str) -> None:
    problem = random_problem(seed, schedule)
    order = build_schedule(schedule, len(problem.choices), problem.num_microbatches)
    fastest_s = min(simulated_s(schedule, problem, options_of(chosen)) for chosen in joined(problem))
    closing = Closing(problem, order, inf)
    assert closing.close() == pytest.approx(fastest_s)
    assert simulated_s(schedule, problem, options_of(closing.best)) == pytest.approx(fastest_s)
    assert Closing(problem, order, fastest_s).close() == pytest.approx(fastest_s)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("seed", range(610, 620))
def test_no_choice_beats_what_few_kept_ways_and_found_paths_leave(
    seed: int, schedule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closing_of, "WIDTHS", (2, 2, 3))
    problem = random_problem(seed, schedule)
    order = build_schedule(schedule, len(problem.choices), problem.num_microbatches)
    every = [options_of(chosen) for chosen in joined(problem)]
    steps_s = [simulated_s(schedule, problem, options) for options in every]
    closing = Closing(problem, order, inf)
    bound_s = closing.close()
    assert closing.found
    assert bound_s <= min(steps_s) * (1.0 + 1e-9)
    for options, step_s in zip(every, steps_s, strict=True):
        assert path_bound_s(problem.with_found(closing.found), options) <= step_s * (1.0 + 1e-9)


@pytest.mark.parametrize("seed", range(620, 626))
def test_ways_within_a_limit_are_all_there(seed: int) -> None:
    problem = random_problem(seed, "zb-h1")
    bounds_s = sorted(path_bound_s(problem, options_of(chosen)) for chosen in joined(problem))
    limit_s = 1.3 * bounds_s[0]
    found, dropped_s = join_steps(problem.steps, problem.delays_s, limit_s, len(bounds_s))
    assert found.bounds_s.tolist() == pytest.approx([one for one in bounds_s if one < limit_s])
    assert dropped_s == inf
    few, dropped_s = join_steps(problem.steps, problem.delays_s, limit_s, 1)
    assert len(few.bounds_s) <= 1
    assert min([dropped_s, *few.bounds_s]) <= bounds_s[0] * (1.0 + 1e-9)


def test_deep_pipelines_of_split_backwards_are_proven() -> None:
    """As many micro-batches as half the ranks: most of the step is filling and draining."""
    model = build_model(num_layers=20, hidden=1024, vocab=256000)
    fixed = {"pp": 8, "schedule": "zb-h1", "micro_batch_size": 1}
    request = build_request(model, 8, gpu="l40s", global_batch_size=4, seq_len=512, fixed=fixed)
    outcome = search(request, Problem.from_request(request))
    assert outcome.best is not None
    assert outcome.bound_s >= outcome.best.step_time_s * 0.99


def test_ranks_that_share_cores_wait_for_each_other_after_the_passes_too() -> None:
    request = build_request(build_model(num_layers=4, hidden=256), 8, gpu="cpu", global_batch_size=1, seq_len=128)
    request = replace(request, cluster=request.cluster.model_copy(update={"shared_cores": 2}))
    outcome = search(request, Problem.from_request(request))
    assert outcome.best is not None
    assert outcome.bound_s >= outcome.best.step_time_s * 0.98
