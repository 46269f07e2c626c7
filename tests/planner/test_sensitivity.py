"""A plan on a changed machine: figures reach every place that holds them, and slopes are those of the model."""

from __future__ import annotations

import json
from math import log

import pytest

from costmodel.schema.errors import InvalidSpec, UnknownName
from costmodel.schema.plan import Plan
from planner.request import build_request
from planner.search import find_plan
from planner.sensitivity import CHANGES, FIGURES, estimate_elasticities, reprice_changed, sweep


@pytest.fixture(scope="module")
def plan() -> Plan:
    """Two nodes, a pipeline inside them and data parallelism between them."""
    request = build_request(
        "llama-3.2-1b", 16, fix=["tp=2,pp=2,zero_stage=1,schedule=1f1b,micro_batch_size=2,order=pp-outermost"],
        global_batch_size=64, seq_len=4096, top=0,
    )  # fmt: skip
    return find_plan(request)


def test_nothing_changed_is_the_plan_itself(plan: Plan) -> None:
    same = reprice_changed(plan, {})
    assert same.step_time_s == plan.prediction.step_time_s.mean
    assert same.fits_probability == plan.prediction.memory.fits_probability
    assert same.peak_bytes_per_device == plan.prediction.memory.peak_bytes_per_device


@pytest.mark.parametrize("name", [name for name in FIGURES if name != "memory"])
def test_better_hardware_is_never_slower(plan: Plan, name: str) -> None:
    better = 2.0 if FIGURES[name].better else 0.5
    times = [reprice_changed(plan, {name: better**power}).step_time_s for power in (-1, 0, 1)]
    assert times == sorted(times, reverse=True)
    moves = name != "host_link"
    assert (times[0] > times[-1]) == moves


def test_memory_moves_the_odds_and_no_time(plan: Plan) -> None:
    less, more = (reprice_changed(plan, {"memory": factor}) for factor in (0.2, 2.0))
    assert less.step_time_s == more.step_time_s == plan.prediction.step_time_s.mean
    assert less.fits_probability < plan.prediction.memory.fits_probability <= more.fits_probability


def test_all_rates_and_latencies_together_nearly_scale_the_step(plan: Plan) -> None:
    """Everything twice as fast halves what is no time of the host's own and no ramp of a kernel."""
    bare = plan.model_copy(update={"runtime_spec": without_host_times(plan)})
    rates = {"compute": 2.0, "memory_bandwidth": 2.0, "network": 2.0, "host_link": 2.0}
    machine = {**rates, "latency": 0.5, "launch": 0.5}
    before, after = reprice_changed(bare, {}).step_time_s, reprice_changed(bare, machine).step_time_s
    assert before / 2.0 < after < before * 0.56


def without_host_times(plan: Plan) -> object:
    kernels = plan.runtime_spec.kernels.model_copy(update={"host_s_per_layer": 0.0, "host_s_per_step": 0.0})
    return plan.runtime_spec.model_copy(update={"kernels": kernels})


def test_levels_inside_and_between_nodes_make_the_network(plan: Plan) -> None:
    apart = {"network_in_node": 0.25, "network_between_nodes": 0.25}
    assert reprice_changed(plan, apart) == reprice_changed(plan, {"network": 0.25})
    inside, between = (reprice_changed(plan, {name: 0.25}).step_time_s for name in apart)
    base = plan.prediction.step_time_s.mean
    assert inside > base
    assert between > base


def test_elasticities_are_slopes_and_do_not_exceed_the_whole(plan: Plan) -> None:
    slopes = estimate_elasticities(plan)
    assert slopes.keys() == FIGURES.keys() - {"memory"}
    for name, slope in slopes.items():
        assert (slope <= 1e-9) == FIGURES[name].better or slope == pytest.approx(0.0, abs=1e-9)
    assert -1.0 <= slopes["compute"] + slopes["memory_bandwidth"] + slopes["network"] <= -0.5
    chord = log(reprice_changed(plan, {"compute": 1.05}).step_time_s / plan.prediction.step_time_s.mean) / log(1.05)
    assert slopes["compute"] == pytest.approx(chord, rel=0.1)


def test_less_memory_makes_another_layout_win_and_more_compute_does_not(plan: Plan) -> None:
    found = sweep(plan, (("memory", 0.2), ("compute", 1.1), ("memory", 0.02)), time_limit_s=20.0)
    less, faster, none = found.outcomes
    assert less.best_line is not None
    assert less.wins(0.01, plan.constraints.fit_probability)
    assert less.plan.fits_probability < plan.constraints.fit_probability
    assert not faster.wins(0.01, plan.constraints.fit_probability)
    assert (none.best_step_time_s, none.reason) == (None, "no layout was found that fits")
    assert found.base.step_time_s == plan.prediction.step_time_s.mean


def test_a_search_under_a_change_keeps_to_the_plans_constraints(plan: Plan) -> None:
    outcome = sweep(plan, (("network", 0.1),)).outcomes[0]
    assert outcome.best_line is not None
    assert "tp 2 · pp 2" in outcome.best_line


def test_changes_that_cannot_be(plan: Plan) -> None:
    with pytest.raises(UnknownName, match="figure 'netwrk'"):
        reprice_changed(plan, {"netwrk": 2.0})
    for factor in (0.0, -1.0, 1e9, float("nan")):
        with pytest.raises(InvalidSpec, match="a factor lies between"):
            reprice_changed(plan, {"network": factor})


def test_the_usual_changes_name_figures() -> None:
    assert {name for name, _ in CHANGES} <= FIGURES.keys()


def test_report_and_json(plan: Plan) -> None:
    from planner.report.sensitivity import sensitivity_json

    found = sweep(plan, (("network", 2.0), ("memory", 0.9)), search=False)
    document = json.loads(sensitivity_json(plan, found))
    assert [one["figure"] for one in document["outcomes"]] == ["network", "memory"]
    assert document["outcomes"][0]["plan"]["step_time_s"] < document["base"]["step_time_s"]
    assert document["outcomes"][0]["wins"] is False
    assert document["elasticities"]["compute"] < 0
