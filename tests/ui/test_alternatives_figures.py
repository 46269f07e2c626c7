"""The figures of the page Alternatives: what is drawn is what the survey, the plans and the curve say."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
import pytest

from costmodel.schema.plan import Plan
from planner.against import find_against
from planner.decisions.curve import Point
from planner.decisions.question import build_question
from planner.decisions.training import estimate_training
from planner.report.compare import terms_that_differ
from planner.request import build_request
from planner.search.find import find_plan
from planner.survey import Survey, survey_space
from ui import charts
from ui.figures.degrees import columns_of


@dataclass(frozen=True)
class Case:
    plan: Plan
    survey: Survey


@pytest.fixture(scope="module")
def case() -> Case:
    request = build_request("llama-8b", 8, global_batch_size=32, calibration="none", top=0)
    steps_s: dict[int, float] = {}
    plan = find_plan(request, None, lambda outcome: steps_s.update(outcome.tabled_steps_s))
    return Case(plan, survey_space(request, steps_s).thinned(400, 100))


def traces(figure: go.Figure, mode: str) -> list[go.Scatter]:
    return [trace for trace in figure.data if trace.mode == mode and trace.customdata is not None]


@pytest.mark.parametrize("colour_by", ["tp", "schedule", "policy"])
def test_every_layout_is_one_point_of_its_value(case: Case, colour_by: str) -> None:
    survey = case.survey
    figure = charts.space(survey, case.plan, colour_by)
    column = columns_of(survey)[colour_by]
    drawn: Counter[int] = Counter()
    for trace in traces(figure, "markers"):
        rows = [int(row) for row, _ in trace.customdata]
        drawn.update(rows)
        np.testing.assert_array_equal(trace.x, survey.step_time_s[rows])
        assert len({column[row] for row in rows}) == 1
        assert {bool(survey.fits[row]) for row in rows} == {trace.marker.opacity > 0.5}
    assert drawn == Counter(range(len(survey)))
    shown = [trace.name for trace in traces(figure, "markers") if trace.showlegend]
    assert len(shown) == len(set(shown)) == len(set(column))


def test_the_plan_the_front_and_the_simulated_are_marked(case: Case) -> None:
    named = {trace.name: trace for trace in charts.space(case.survey, case.plan, "tp").data}
    star = named["the plan"]
    assert star.x == (case.plan.prediction.step_time_s.mean,)
    assert star.y[0] * 2**30 == case.plan.prediction.memory.peak_bytes_per_device
    front = int(case.survey.front.sum())
    assert list(named[f"Pareto front ({front})"].x) == sorted(case.survey.step_time_s[case.survey.front])
    simulated = int(np.isfinite(case.survey.simulated_s).sum())
    assert len(named[f"simulated ({simulated})"].x) == simulated > 0


def test_parallel_coordinates_pass_every_layout_through_its_values(case: Case) -> None:
    fitting = case.survey.take(case.survey.fits)
    (trace,) = charts.parallel(fitting).data
    axes = {axis.label: axis for axis in trace.dimensions}
    assert list(axes["Step, s"]["values"]) == list(fitting.step_time_s)
    degrees = axes["Tensor parallel"]
    nearest = np.rint(degrees["values"]).astype(int)
    assert [degrees.ticktext[place] for place in nearest] == [str(tp) for tp in fitting.layouts.tp]


def test_bars_of_a_difference_sum_to_that_of_the_steps(case: Case) -> None:
    other = find_against(case.plan, "tp=2,pp=2,schedule=1f1b,micro_batch_size=1,zero_stage=1").plan
    terms = terms_that_differ(case.plan, other)
    (bars,) = charts.difference(terms, 1.0, "s", str).data
    theirs_s, ours_s = (one.prediction.step_time_s.mean for one in (other, case.plan))
    # Differences below a millionth of the largest term are none.
    assert sum(bars.x) == pytest.approx(theirs_s - ours_s, abs=len(terms) * 1e-6 * ours_s)
    assert bars.x[0] == -terms[0].change


def test_the_curve_has_a_point_for_each_number_that_has_a_plan(case: Case) -> None:
    trained = case.plan.model_copy(update={"training": estimate_training(case.plan, build_question(price="2"))})
    points = [Point(4, why_not="does not fit"), Point(8, trained)]
    linear, rates, shares = charts.scaling(points).data
    assert rates.x == linear.x == (8,)
    assert rates.y[0] == pytest.approx(8 * case.plan.prediction.tokens_per_s_per_device)
    assert shares.y == (case.plan.prediction.mfu,)
    (run,) = charts.run_cost(points).data
    assert run.x == (points[1].answer[1].cost,)


def test_elasticities_are_savings_largest_on_top() -> None:
    (bars,) = charts.sensitivity({"compute": -0.8, "latency": 0.1, "network": -0.9}).data
    assert list(bars.y) == ["network", "compute", "latency"]
    assert list(bars.x) == [0.9, 0.8, 0.1]
