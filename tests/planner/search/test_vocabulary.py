"""Layouts whose vocabulary is split over pipeline ranks: where they are in the space, bounds, plans."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest
from exhaustive import best_placement, random_placement
from floors import memory_floor_bytes, time_floor_s
from small_instances import build_model, build_request, with_request

from costmodel.catalog.runtimes import load_runtime
from costmodel.layer_table import price_layers
from costmodel.schema.errors import InvalidSpec
from planner.assemble import reprice
from planner.cli.files import plan_from
from planner.evaluate import evaluate
from planner.predict import predict_plan
from planner.problem import Problem
from planner.request import Request
from planner.search import find_plan
from planner.search.bounds import extras_floor_s
from planner.search.place import place
from planner.search.policies import policy_sets
from planner.search.space import enumerate_layouts
from planner.search.tight import tighten

ROUNDING = 1.0 + 1e-9
FORMS = ("1f1b-vocab-1", "1f1b-vocab-2")


def wide(gpus: int = 4, vocab: int = 64000, **limits: Any) -> Request:
    """Eight layers and a vocabulary that outweighs several of them."""
    return build_request(build_model(num_layers=8, hidden=1024, vocab=vocab), gpus, **limits)


@pytest.mark.parametrize("schedule", FORMS)
@pytest.mark.parametrize("seed", range(4))
def test_bounds_and_the_exhaustive_optimum(schedule: str, seed: int) -> None:
    """Random placements and the best one, memory ample and short, on devices of their own and on shared cores."""
    draw = Random(seed)
    request = wide(
        vocab=draw.choice((1000, 64000)), schedules=(schedule,), gpu=draw.choice(("h100", "a100-80g")),
        global_batch_size=draw.choice((8, 16)),
    )  # fmt: skip
    if seed == 3:
        request = wide(schedules=(schedule,), gpu="cpu")
        request = with_request(request, cluster=request.cluster.model_copy(update={"shared_cores": 2}))
    layouts, problem, sets = enumerate_layouts(request), Problem.from_request(request), policy_sets(request)
    rows = np.array(sorted(draw.sample(range(len(layouts)), min(6, len(layouts)))), np.intp)
    layers = price_layers(problem.setting, problem.network, layouts.take(rows))
    policies = tuple(sorted({policy for one in sets for policy in one}))
    floor_bytes, floor_s, after_s = (
        estimate(layers, problem.kinds, problem.num_kinds, policies)
        for estimate in (memory_floor_bytes, time_floor_s, extras_floor_s)
    )
    for row in range(len(rows)):
        one = layers.take(np.array([row]))
        for budget_bytes in (1e15, 1.5 * float(floor_bytes[row])):
            best = best_placement(problem, one, sets, budget_bytes)
            placed = place(problem, one, after_s[[row]], sets, budget_bytes, float("inf"))[0]
            if best is None:
                assert placed.evaluated is None
                continue
            assert placed.step_s == pytest.approx(best.step_time_s, rel=1e-9)
            limit_s = best.step_time_s * 1.001
            tight = tighten(problem, one, policies, budget_bytes, floor_s[[row]], after_s[[row]], limit_s)
            assert floor_s[row] <= best.step_time_s * ROUNDING
            assert tight[0] <= best.step_time_s * ROUNDING
        evaluated = evaluate(problem, random_placement(draw, problem, one, draw.choice(sets)), layers=one)
        assert floor_bytes[row] <= float(evaluated.priced.peak_claim_bytes[0]) * ROUNDING
        assert floor_s[row] <= evaluated.step_time_s * ROUNDING


@pytest.mark.parametrize("schedule", FORMS)
def test_bounds_are_near_for_many_micro_batches(schedule: str) -> None:
    fixed = {"pp": 4, "micro_batch_size": 1, "recompute": "none", "zero_stage": 0}
    request = wide(fixed=fixed, schedules=(schedule,), global_batch_size=64, seq_len=8192)
    problem = Problem.from_request(request)
    layers = price_layers(problem.setting, problem.network, enumerate_layouts(request))
    floor_s = time_floor_s(layers, problem.kinds, problem.num_kinds, (0,))
    best = best_placement(problem, layers.take(np.array([0])), ((0,),), 1e15)
    assert best is not None
    assert 0.9 * best.step_time_s < floor_s[0] <= best.step_time_s


def test_where_it_is_in_the_space() -> None:
    """As the executor runs it: nothing tensor-parallel or sharded beside it, two ends of their own, a row a rank."""
    layouts = enumerate_layouts(wide(8))
    split = layouts.take(layouts.vocab_parallel > 0)
    assert len(split)
    assert set(split.tp.tolist()) == {1}
    assert set(split.zero_stage.tolist()) == {0}
    assert split.pp.min() > 1
    assert {split.schedule_name(row) for row in range(len(split))} == set(FORMS)
    for other in (
        build_request(build_model(tied=True), 8), wide(8, runtime="megatron"),
        wide(8, forbidden=frozenset({"vocab_parallel"})), wide(8, fixed={"vocab_parallel": False}),
    ):  # fmt: skip
        assert not enumerate_layouts(other).vocab_parallel.any()
    few_rows = enumerate_layouts(wide(8, vocab=3))
    assert set(few_rows.pp[few_rows.vocab_parallel > 0].tolist()) == {2}
    fixed = enumerate_layouts(wide(8, fixed={"vocab_parallel": True}))
    assert len(fixed) == len(split)


def test_rules_of_another_runtime_are_heeded() -> None:
    torch = load_runtime("torch")
    assert torch.vocab_parallel is not None
    rules = torch.vocab_parallel.model_copy(update={"beside_tensor": True, "zero_stages": (0, 1), "tied": True})
    model = build_model(tied=True)
    layouts = enumerate_layouts(build_request(model, 8, runtime=torch.model_copy(update={"vocab_parallel": rules})))
    split = layouts.take(layouts.vocab_parallel > 0)
    assert set(split.tp.tolist()) > {1}
    assert set(split.zero_stage.tolist()) == {0, 1}


@pytest.mark.parametrize("schedule", FORMS)
def test_plans_are_whole_and_price_again_to_the_last_bit(schedule: str) -> None:
    plan = find_plan(wide(schedules=(schedule,), fixed={"pp": 4}))
    again = plan_from(plan.model_dump(mode="json"), "the plan")
    assert again == plan
    assert reprice(again) == plan.prediction
    assert plan.layout.vocab_parallel
    assert plan.pipeline.schedule == schedule
    assert all("VOCAB_IN_F" in passes and "VOCAB_F" in passes for passes in plan.pipeline.passes.values())
    given = predict_plan(wide(), plan.layout, schedule, "none")
    assert given.prediction.step_time_s.mean >= plan.prediction.step_time_s.mean / ROUNDING


def test_a_layout_and_its_schedule_must_agree() -> None:
    plan = find_plan(wide(schedules=FORMS, fixed={"pp": 4}))
    with pytest.raises(InvalidSpec, match="vocab_parallel true: schedule '1f1b' has both ends of the model whole"):
        predict_plan(wide(), plan.layout, "1f1b")
    with pytest.raises(InvalidSpec, match="does not split the vocabulary of dense over pp = 4 beside tp = 1"):
        predict_plan(with_request(wide(), model=build_model(num_layers=8, tied=True)), plan.layout, "1f1b-vocab-1")
    halved = {"dp_shard": 2, "pp": 2, "num_microbatches": plan.layout.num_microbatches // 2}
    sharded = plan.layout.model_copy(update={**halved, "zero_stage": 2})
    with pytest.raises(InvalidSpec, match="zero_stage 2: with schedule '1f1b-vocab-1' the runtime torch has 0"):
        predict_plan(wide(), sharded, "1f1b-vocab-1")
