"""The answer of the whole search against exhaustive search, and what its certificate says."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from time import perf_counter

import numpy as np
import pytest
from exhaustive import best_placement
from floors import memory_floor_bytes
from small_instances import (
    build_model,
    build_request,
    price_space,
    random_request,
    random_state_request,
    with_budget,
    with_request,
)

from costmodel.layer_table import price_layers
from costmodel.memory import claim_budget_bytes
from costmodel.schema.errors import Infeasible, SolverTimeout
from costmodel.schema.plan import Plan
from planner.problem import Problem
from planner.request import Request
from planner.search.certificate import certify
from planner.search.find import find_plan
from planner.search.policies import policy_sets
from planner.search.run import Outcome, Progress
from planner.search.space import enumerate_layouts, enumerate_space
from planner.search.stage_problem import StageProblem
from planner.search.stages import StageSolution, solve_stages

MOST_ROWS = 40
CUTS = (
    {"sequence_parallel": True},
    {"zero_stage": 1},
    {"zero_stage": 3},
    {"micro_batch_size": 1},
    {"pp": 2},
    {"tp": 1},
)


def small_space(seed: int, drawn: Callable[..., Request] = random_request, **limits: object) -> Request:
    """A random instance, cut down by fixing one degree after another until few layouts are left."""
    draw = Random(seed)
    request = drawn(seed, **limits)
    for cut in draw.sample(CUTS, len(CUTS)):
        if len(enumerate_layouts(request)) <= MOST_ROWS:
            break
        narrower = with_request(request, fixed={**request.fixed, **cut})
        if len(enumerate_layouts(narrower)):
            request = narrower
    return request


def short_of_memory(request: Request, share: float, factor: float) -> Request:
    """As much memory as ``factor`` times what the given share of layouts needs at least."""
    problem, layouts = Problem.from_request(request), enumerate_layouts(request)
    layers = price_layers(problem.setting, problem.network, layouts)
    policies = tuple(sorted({policy for one in policy_sets(request) for policy in one}))
    floors = memory_floor_bytes(layers, problem.kinds, problem.num_kinds, policies)
    return with_budget(request, float(np.quantile(floors, share)) * factor)


def exhaustive_s(request: Request) -> float:
    """Step time of the best placement of the best layout; infinite when nothing fits."""
    problem, layers = price_space(request)
    budget_bytes = claim_budget_bytes(problem.setting, request.fit_probability)
    rows = (layers.take(np.array([row])) for row in range(len(layers.layouts)))
    found = (best_placement(problem, row, policy_sets(request), budget_bytes) for row in rows)
    return min((best.step_time_s for best in found if best is not None), default=float("inf"))


def check_certificate(plan: Plan, request: Request) -> None:
    """Every candidate is accounted for, and the gap is that of the two figures that it is made of."""
    certificate, step_s = plan.certificate, plan.prediction.step_time_s.mean
    # Shares of the optimizer on the host are sized where the passes alone do not rule a layout out.
    assert len(enumerate_layouts(request)) <= certificate.considered <= len(price_space(request)[1].layouts)
    assert certificate.considered == certificate.evaluated + sum(certificate.pruned.values())
    assert certificate.evaluated >= 1
    assert certificate.lower_bound_s is not None
    assert certificate.gap == pytest.approx((step_s - certificate.lower_bound_s) / step_s, abs=1e-9)
    assert 0 <= certificate.gap < 1
    assert certificate.relaxations
    if certificate.status == "proven":
        assert certificate.gap <= request.gap


@pytest.mark.parametrize(
    ("drawn", "seed"),
    [(random_request, seed) for seed in range(16)] + [(random_state_request, seed) for seed in range(4)],
)
def test_equals_exhaustive_search(drawn: Callable[..., Request], seed: int) -> None:
    """Every layout x every split in the window x every mix of policies, with memory ample, short and too small."""
    draw = Random(seed)
    gap = draw.choice((0.0, 0.01, 0.05))
    request = small_space(seed, drawn, gap=gap, top=0, time_limit_s=300.0)
    pressure = draw.choice((None, (0.0, 0.9), (0.0, 1.5), (0.2, 1.3), (0.5, 1.2), (0.5, 2.0)))
    if pressure is not None:
        request = short_of_memory(request, *pressure)
    best_s = exhaustive_s(request)
    if best_s == float("inf"):
        with pytest.raises(Infeasible):
            find_plan(request)
        return
    plan = find_plan(request)
    check_certificate(plan, request)
    step_s = plan.prediction.step_time_s.mean
    assert plan.certificate.status != "stopped"
    assert plan.certificate.lower_bound_s is not None
    assert plan.certificate.lower_bound_s <= best_s * (1.0 + 1e-6)
    assert step_s >= best_s * (1.0 - 1e-9)
    assert best_s >= step_s * (1.0 - (plan.certificate.gap or 0.0)) * (1.0 - 1e-6)
    if plan.certificate.status == "proven":
        assert step_s <= best_s / (1.0 - gap) * (1.0 + 1e-6)
    assert plan.prediction.memory.fits_probability >= request.fit_probability * (1.0 - 1e-6)


def test_gap_zero_is_taken_at_its_word() -> None:
    """With one stage the placement of a layout is forced, so its bound is exact and the proof closes."""
    request = build_request(build_model(), 8, gap=0.0, fixed={"pp": 1}, top=0)
    plan = find_plan(request)
    check_certificate(plan, request)
    assert (plan.certificate.status, plan.certificate.gap) == ("proven", 0.0)
    assert plan.prediction.step_time_s.mean == pytest.approx(exhaustive_s(with_request(request)), rel=1e-9)


def test_a_looser_gap_never_evaluates_more() -> None:
    model = build_model("windows", num_layers=8, hidden=4096)
    request = build_request(model, 8, global_batch_size=32, top=0)
    loose, tight = (find_plan(with_request(request, gap=gap)) for gap in (0.2, 0.001))
    assert loose.certificate.evaluated <= tight.certificate.evaluated
    assert tight.prediction.step_time_s.mean <= loose.prediction.step_time_s.mean
    assert loose.prediction.step_time_s.mean <= tight.prediction.step_time_s.mean / (1 - 0.2)


def test_time_limit_still_gives_a_plan() -> None:
    """Next to no time and a gap of nothing: the seeds are placed, the rest is counted as not reached."""
    model = build_model("unlike", num_layers=32, hidden=4096, vocab=256000)
    request = build_request(model, 64, global_batch_size=256, gap=0.0, time_limit_s=1e-3, top=0)
    began = perf_counter()
    plan = find_plan(request)
    assert perf_counter() - began < 20.0
    check_certificate(plan, request)
    assert plan.certificate.status == "stopped"
    assert plan.certificate.pruned["not reached"] > 0
    assert plan.prediction.memory.fits_probability >= request.fit_probability
    assert plan.certificate.gap is not None
    assert plan.certificate.gap > 0


def test_programs_that_the_solver_left_early_count_with_their_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A solver that stops at half of the optimum proves half of it, and the answer at hand is still given. Of ten
    layers on four ranks the longest path is a loop, which the dynamic programming before the solver does not know."""
    fixed = {"pp": 4, "schedule": "1f1b", "recompute": "none", "micro_batch_size": 1}
    model = build_model("dense", num_layers=10, hidden=4096)
    request = build_request(model, 4, global_batch_size=8, fixed=fixed, gap=0.0, top=0)
    whole = find_plan(request)
    assert whole.certificate.solver.keys() == {"optimal"}

    def halfway(problem: StageProblem) -> StageSolution:
        solved = solve_stages(problem)
        return StageSolution("feasible", solved.chosen, 0.5 * solved.bound_s)

    monkeypatch.setattr("planner.search.stages.solve_stages", halfway)
    left = find_plan(request)
    assert left.certificate.solver.keys() == {"feasible"}
    assert left.prediction.step_time_s.mean == pytest.approx(whole.prediction.step_time_s.mean, rel=1e-6)
    assert left.certificate.lower_bound_s is not None
    assert whole.certificate.lower_bound_s is not None
    assert left.certificate.lower_bound_s <= whole.certificate.lower_bound_s


def test_time_limit_without_an_answer_says_so() -> None:
    """Memory so short that uniform policies never fit: the limit comes before any placement does."""
    request = short_of_memory(build_request(build_model("unlike", num_layers=24, hidden=4096), 8), 0.0, 1.0001)
    with pytest.raises((SolverTimeout, Infeasible)) as caught:
        find_plan(with_request(request, time_limit_s=1e-9))
    assert caught.value.hint


def test_progress_is_told_as_it_goes() -> None:
    said: list[Progress] = []
    plan = find_plan(build_request(build_model(), 4, top=0), said.append)
    assert said[-1].evaluated == plan.certificate.evaluated
    assert said[-1].best_s == pytest.approx(plan.prediction.step_time_s.mean, rel=1e-9)
    assert [one.evaluated for one in said] == sorted(one.evaluated for one in said)


def test_alternatives_are_slower_and_say_why() -> None:
    plan = find_plan(build_request(build_model(num_layers=8, hidden=4096), 8, global_batch_size=64, top=3))
    assert len(plan.alternatives) == 3
    times = [one.step_time_s for one in plan.alternatives]
    assert times == sorted(times)
    assert len({one.line for one in plan.alternatives}) == 3
    for one in plan.alternatives:
        assert one.step_time_s >= plan.prediction.step_time_s.mean * (1 - 0.01)
        assert one.memory_bytes <= plan.prediction.memory.capacity_bytes
        assert one.reason


def test_more_memory_is_never_slower() -> None:
    request = build_request(build_model(num_layers=8, hidden=4096), 4, global_batch_size=16, gap=0.0, top=0)
    times = [
        find_plan(short_of_memory(request, 0.0, factor)).prediction.step_time_s.mean for factor in (1.6, 2.5, 4.0, 40.0)
    ]
    assert times == sorted(times, reverse=True)
    assert times[0] > times[-1]


@pytest.mark.parametrize(
    ("bound_s", "status", "gap"), [(0.99 - 1e-13, "proven", 0.01), (0.99 - 1e-6, "bounded", 0.010001)]
)
def test_a_bound_within_rounding_of_what_was_asked_proves_it(bound_s: float, status: str, gap: float) -> None:
    request = with_request(random_request(1), gap=0.01)
    outcome = Outcome(enumerate_space(request), bound_s=bound_s)
    certificate = certify(outcome, 1, 1.0, request)
    assert (certificate.status, certificate.gap) == (status, pytest.approx(gap, rel=1e-9))
    assert (certificate.gap <= request.gap) == (status == "proven")
