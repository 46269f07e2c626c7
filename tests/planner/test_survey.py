"""The survey of a space: the search's own prices, the fastest policy that fits, and what is drawn of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from costmodel.even_split import even_split
from costmodel.memory import claim_budget_bytes
from costmodel.schema.errors import Infeasible, InvalidSpec
from costmodel.schema.plan import Plan
from planner.against import find_against, leanest_against
from planner.constraints import read_constraints
from planner.constraints.words import pins_of
from planner.evaluate import evaluate
from planner.placement import Placement
from planner.problem import Problem
from planner.request import Request, build_request
from planner.search.find import find_plan
from planner.search.first_look import price_uniform
from planner.search.policies import policy_sets
from planner.search.scan import PricedSpace
from planner.search.space import enumerate_space
from planner.survey import Survey, survey_space

EXAMPLE = Path(__file__).parents[2] / "examples" / "cluster.toml"


@pytest.fixture(scope="module")
def request_() -> Request:
    return build_request("llama-8b", 8, global_batch_size=32, calibration="none", top=0)


@pytest.fixture(scope="module")
def found(request_: Request) -> tuple[Plan, dict[int, float]]:
    """The answer, and what was simulated for it."""
    steps_s: dict[int, float] = {}
    return find_plan(request_, None, lambda outcome: steps_s.update(outcome.tabled_steps_s)), steps_s


@pytest.fixture(scope="module")
def survey(request_: Request) -> Survey:
    return survey_space(request_)


def test_every_layout_has_the_price_that_the_search_gives_its_best_uniform_policy(
    request_: Request, survey: Survey
) -> None:
    problem, space = Problem.from_request(request_), enumerate_space(request_)
    assert len(survey) == survey.considered == len(space)
    rows = np.arange(0, len(space), 7)
    policies = tuple(sorted({policy for one in policy_sets(request_) for policy in one}))
    budget = claim_budget_bytes(problem.setting, request_.fit_probability)
    same = price_uniform(PricedSpace(problem, space), rows, policies, budget)
    fits = survey.fits[rows]
    assert 0 < fits.sum() < len(fits)
    assert (same.fits == fits).all()
    np.testing.assert_allclose(survey.step_time_s[rows][fits], same.step_time_s[fits], rtol=1e-12)


def test_a_layout_without_a_pipeline_costs_what_its_simulation_says(request_: Request, survey: Survey) -> None:
    problem = Problem.from_request(request_)
    layers = len(problem.kinds)
    for row in np.flatnonzero(survey.layouts.pp == 1)[::199].tolist():
        policies = (int(survey.policy[row]),) * layers
        layout, schedule = survey.layouts.row(row), survey.layouts.schedule_name(row)
        one = evaluate(problem, Placement(layout, schedule, tuple(even_split(layers, 1)), policies))
        assert survey.step_time_s[row] == pytest.approx(one.step_time_s, rel=1e-9)
        assert survey.peak_bytes[row] == pytest.approx(float(one.priced.peak_device_bytes[0]), rel=1e-9)


def test_the_front_is_what_no_other_that_fits_beats_in_both(survey: Survey) -> None:
    time_s, size = survey.step_time_s[survey.fits], survey.peak_bytes[survey.fits]
    for row in np.flatnonzero(survey.front):
        better = (time_s <= survey.step_time_s[row]) & (size <= survey.peak_bytes[row])
        assert ((time_s[better] == survey.step_time_s[row]) & (size[better] == survey.peak_bytes[row])).all()
    assert survey.front[np.flatnonzero(survey.fits)[time_s.argmin()]] or np.sum(time_s == time_s.min()) > 1


def test_what_is_drawn_has_the_front_the_simulated_and_the_fastest(
    request_: Request, found: tuple[Plan, dict[int, float]]
) -> None:
    steps_s = found[1]
    whole = survey_space(request_, steps_s)
    drawn = whole.thinned(most=300, fastest=50)
    assert len(drawn) == 300
    assert set(whole.number[whole.front]) <= set(drawn.number)
    simulated = np.isfinite(drawn.simulated_s)
    assert dict(zip(drawn.number[simulated], drawn.simulated_s[simulated], strict=True)) == steps_s
    times = np.sort(whole.step_time_s[whole.fits])
    assert (np.sort(drawn.step_time_s[drawn.fits])[:50] == times[:50]).all()
    assert drawn.step_time_s.max() > 0.5 * whole.step_time_s.max()


def test_a_large_space_is_sampled_and_says_so(request_: Request, survey: Survey) -> None:
    sampled = survey_space(request_, {3: 1.0}, most=500)
    assert 500 <= len(sampled) <= 501
    assert sampled.considered == len(survey)
    assert 3 in sampled.number
    same = np.isin(survey.number, sampled.number)
    np.testing.assert_array_equal(sampled.step_time_s, survey.step_time_s[same])


@pytest.mark.parametrize(("model", "runtime"), [("llama-8b", "torch"), ("mixtral-8x7b", "megatron")])
def test_pins_leave_the_one_layout_that_they_name(model: str, runtime: str) -> None:
    request = build_request(model, 16, runtime=runtime, calibration="none")
    space = enumerate_space(request)
    for number in np.linspace(0, len(space) - 1, 25).astype(int).tolist():
        layout, schedule = space.row(number), space.schedule_names(np.array([number]))[0]
        pinned = enumerate_space(replace(request, **vars(read_constraints(fix=pins_of(request, layout, schedule)))))
        assert [pinned.row(row) for row in range(len(pinned))] == [layout]


def test_where_nothing_fits_the_leanest_is_priced_all_the_same(found: tuple[Plan, dict[int, float]]) -> None:
    plan, text = found[0], "tp=1, pp=1, zero_stage=0"
    with pytest.raises(Infeasible, match="does not fit"):
        find_against(plan, text)
    leanest = leanest_against(plan, text)
    assert (leanest.layout.tp, leanest.layout.zero_stage) == (1, 0)
    assert {layer.recompute for layer in leanest.layers} == {"full"}
    assert leanest.prediction.memory.fits_probability < 0.05


def test_several_kinds_of_node_have_no_survey() -> None:
    mixed = build_request("llama-8b", cluster=EXAMPLE, calibration="none")
    assert mixed.other_devices
    with pytest.raises(InvalidSpec, match="several kinds of node"):
        survey_space(mixed)
