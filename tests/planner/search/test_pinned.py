"""Pinned layers and stages: the search answers what trying everything answers, and the plan keeps to every pin."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from small_instances import build_model, build_request, with_budget, with_request

from costmodel.catalog.runtimes import load_runtime
from costmodel.layer_table import price_layers
from costmodel.layouts import POLICIES, Layouts
from costmodel.memory import claim_budget_bytes
from costmodel.schema.errors import InvalidSpec
from planner.assemble import reprice
from planner.constraints import LayerPin
from planner.evaluate import Evaluated, evaluate
from planner.placement import Placement
from planner.problem import Problem
from planner.request import Request
from planner.search import find_plan
from planner.search.best_first import search
from planner.search.policies import OFFLOAD_VALUES, policy_sets
from planner.search.space import enumerate_layouts

WHOLE = load_runtime("torch").model_copy(update={"partial_offload": False})
"""A layer is offloaded whole or not at all: four policies, so that trying everything stays possible."""

ONE = {"tp": 1, "pp": 2, "vpp": 1, "micro_batch_size": 1, "schedule": "1f1b"}
PINS = (
    LayerPin("recompute", 0, 1, "full"),
    LayerPin("recompute", 4, 4, "none"),
    LayerPin("activation_offload", 4, 5, 0),
)


def pinned(room: float, pins: tuple[LayerPin, ...] = PINS, shape: str = "dense", **limits: Any) -> Request:
    """Six layers on two devices whose memory lies ``room`` of the way from the leanest to the greediest placement."""
    request = build_request(
        build_model(shape, num_layers=6),
        2,
        global_batch_size=8,
        pins=pins,
        top=0,
        gap=0.0,
        **{"fixed": ONE, "runtime": WHOLE, **limits},
    )
    claims = [one.priced.peak_claim_bytes[0] for one in evaluate_all(request)]
    return with_budget(request, float(min(claims) + room * (max(claims) - min(claims))))


def placements(request: Request) -> list[Placement]:
    """Every split that the space admits, every policy that the pins leave to each layer."""
    layout = enumerate_layouts(request).row(0)
    open_to = []
    for layer in range(6):
        pins = {pin.key: pin.value for pin in request.pins if pin.first <= layer <= pin.last}
        open_to.append(
            [
                index
                for index in policy_sets(request)[0]
                if POLICIES[index].recompute == pins.get("recompute", POLICIES[index].recompute)
                and (share := OFFLOAD_VALUES[POLICIES[index].offload]) == pins.get("activation_offload", share)
            ]
        )
    lengths = (
        [request.fixed.get("layers_per_stage")] if "layers_per_stage" in request.fixed else [(3, 3), (2, 4), (4, 2)]
    )
    return [Placement(layout, "1f1b", split, policies) for split in lengths for policies in product(*open_to)]


def evaluate_all(request: Request) -> list[Evaluated]:
    problem, tried = Problem.from_request(request), placements(request)
    rows = Layouts.from_rows([(tried[0].layout, "1f1b")])
    layers = price_layers(problem.setting, problem.network, rows)
    return [evaluate(problem, placement, layers=layers) for placement in tried]


def fastest_s(request: Request) -> float:
    """Of the placements that fit."""
    budget = claim_budget_bytes(Problem.from_request(request).setting, request.fit_probability) * (1 + 1e-9)
    return min(one.step_time_s for one in evaluate_all(request) if one.priced.peak_claim_bytes[0] <= budget)


@pytest.mark.parametrize(("room", "shape"), [(0.1, "dense"), (0.45, "dense then mixture"), (1.0, "dense")])
def test_search_equals_trying_every_placement_that_keeps_to_the_pins(room: float, shape: str) -> None:
    request = pinned(room, shape=shape)
    plan = find_plan(request)
    assert plan.prediction.step_time_s.mean == pytest.approx(fastest_s(request), rel=1e-6)
    assert [layer.recompute for layer in plan.layers[:2]] == ["full", "full"]
    assert (plan.layers[4].recompute, plan.layers[4].offload, plan.layers[5].offload) == ("none", 0, 0)
    assert plan.model == request.model
    assert reprice(plan) == plan.prediction


def test_pins_cost_what_they_keep_the_search_from() -> None:
    held = pinned(1.0)
    free = with_request(held, pins=())
    assert find_plan(held).prediction.step_time_s.mean > find_plan(free).prediction.step_time_s.mean * 1.01


@pytest.mark.parametrize("lengths", [(3, 3), (1, 5), (5, 1)])
def test_pinned_stages_are_kept_and_their_bound_holds(lengths: tuple[int, ...]) -> None:
    """Five layers beside one are beyond what the search would try unasked."""
    request = pinned(0.6, fixed={**ONE, "layers_per_stage": lengths})
    plan = find_plan(request)
    assert plan.pipeline.layers_per_stage == lengths
    best_s = fastest_s(request)
    assert plan.prediction.step_time_s.mean == pytest.approx(best_s, rel=1e-6)
    assert plan.certificate.lower_bound_s is not None
    assert plan.certificate.lower_bound_s <= best_s * (1 + 1e-9)


@pytest.mark.parametrize(("pp", "vpp", "schedule"), [(2, 2, "interleaved-1f1b"), (2, 2, "zb-v"), (4, 1, "chimera")])
def test_bounds_hold_for_pinned_stages_under_every_kind_of_schedule(pp: int, vpp: int, schedule: str) -> None:
    """The one way that memory leaves to every layer is simulated; the bound of a search that sees it stays below."""
    lengths = (1, 2, 4, 1)
    fixed = {"tp": 1, "pp": pp, "vpp": vpp, "schedule": schedule, "recompute": "none", "layers_per_stage": lengths}
    request = build_request(build_model("dense", num_layers=8), 4, global_batch_size=8, fixed=fixed, gap=0.0)
    outcome = search(request, Problem.from_request(request))
    best = outcome.best
    assert best is not None
    assert best.placement.layers_per_stage == lengths
    assert len(outcome.steps_s) + sum(outcome.pruned.values()) == len(outcome.space)
    for row in range(len(outcome.space)):
        layout = outcome.space.row(row)
        one = evaluate(best.problem, Placement(layout, schedule, lengths, (0,) * 8))
        if one.fits_probability >= request.fit_probability:
            assert outcome.bound_s <= one.step_time_s * (1 + 1e-9)
            assert best.step_time_s <= one.step_time_s * (1 + 1e-9)


def test_pins_that_leave_a_layer_nothing() -> None:
    request = build_request(build_model(num_layers=6), 2, fixed={"recompute": "full"}, runtime=WHOLE)
    offload = with_request(request, pins=(LayerPin("activation_offload", 3, 3, 1),))
    with pytest.raises(InvalidSpec, match=r"--fix activation_offload.3=1: .* layer 3 is left no policy"):
        find_plan(offload)


def test_a_pin_of_every_layer_is_no_different_from_fixing_it() -> None:
    whole = build_request(build_model(num_layers=6), 4, fixed={"pp": 2, "recompute": "full"}, top=0)
    by_layer = with_request(whole, fixed={"pp": 2}, pins=(LayerPin("recompute", 0, 5, "full"),))
    one, other = find_plan(whole), find_plan(by_layer)
    assert one.prediction == other.prediction
    assert one.layers == other.layers


def test_layouts_of_pinned_stages_have_that_many() -> None:
    request = build_request(build_model(num_layers=6), 8, fixed={"layers_per_stage": (2, 2, 2, 0)[:3]})
    assert not len(enumerate_layouts(request))
    request = build_request(build_model(num_layers=8), 8, fixed={"layers_per_stage": (2, 2, 2, 2)})
    layouts: Layouts = enumerate_layouts(request)
    assert set((layouts.pp * layouts.vpp).tolist()) == {4}
