"""One placement priced: what the step time, its breakdown, the memory and a plan's own price are made of."""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "search"))

from exhaustive import random_placement
from small_instances import build_model, build_request, random_request, with_request

from costmodel.even_split import even_split
from costmodel.layer_table import price_layers
from costmodel.memory import PARTS
from costmodel.schema.errors import InvalidSpec
from costmodel.schema.layout import Layout
from costmodel.schema.plan import Certificate, Plan
from planner.assemble import build_plan, reprice
from planner.evaluate import Evaluated, evaluate
from planner.placement import Placement
from planner.prediction import predict
from planner.problem import Problem
from planner.schedules import build_schedule
from planner.search.policies import policy_sets
from planner.search.space import enumerate_layouts

GIVEN = Certificate(
    status="given", gap=None, lower_bound_s=None, considered=1, evaluated=1, pruned={}, wall_s=0.0
)  # fmt: skip


def random_evaluated(seed: int) -> Evaluated:
    """Any placement of any layout of a random instance."""
    draw, request = Random(seed), random_request(seed)
    problem, layouts = Problem.from_request(request), enumerate_layouts(request)
    row = draw.randrange(len(layouts))
    layers = price_layers(problem.setting, problem.network, layouts.take([row]))
    return evaluate(problem, random_placement(draw, problem, layers, draw.choice(policy_sets(request))), layers=layers)


def dense(pp: int = 1, tp: int = 1, m: int = 8, schedule: str = "1f1b", policy: int = 0, vpp: int = 1) -> Evaluated:
    """Eight equal layers, evenly split, one policy for all."""
    request = build_request(build_model(num_layers=8, hidden=4096), pp * tp, global_batch_size=m)
    layout = Layout(pp=pp, tp=tp, vpp=vpp, num_microbatches=m)
    placement = Placement(layout, schedule, tuple(even_split(8, pp * vpp)), (policy,) * 8)
    return evaluate(Problem.from_request(request), placement)


@pytest.mark.parametrize("seed", range(60))
def test_exposed_terms_sum_to_the_step(seed: int) -> None:
    evaluated = random_evaluated(seed)
    prediction = predict(evaluated)
    exposed = {name: value for name, value in prediction.breakdown.items() if name.endswith("_exposed_s")}
    assert sum(exposed.values()) == pytest.approx(evaluated.step_time_s, rel=1e-9)
    # Jitter is what the other terms leave, so the sum alone would hide a term that is missing or counted twice.
    share = float(evaluated.priced.layers.jitter[0])
    late_s = evaluated.step_time_s * share / (1.0 + share)
    assert exposed.get("jitter_exposed_s", 0.0) == pytest.approx(late_s, abs=1e-9 * evaluated.step_time_s)
    assert prediction.step_time_s.low < prediction.step_time_s.mean < prediction.step_time_s.high
    for name in ("tp", "cp", "ep", "dp", "pp"):
        if f"{name}_total_s" in prediction.breakdown:
            assert prediction.breakdown[f"{name}_total_s"] >= 0
    assert 0 < prediction.mfu <= prediction.hfu < 1


@pytest.mark.parametrize("seed", range(60, 100))
def test_memory_is_the_sum_of_its_parts_on_every_rank(seed: int) -> None:
    evaluated = random_evaluated(seed)
    memory = predict(evaluated).memory
    assert [stage.rank for stage in memory.per_stage] == list(range(evaluated.placement.layout.pp))
    for stage in memory.per_stage:
        assert set(stage.parts) == set(PARTS)
        assert sum(stage.parts.values()) == pytest.approx(stage.allocated_bytes, rel=1e-9)
        assert min(stage.parts.values()) >= 0
        assert stage.allocated_bytes <= stage.reserved_bytes <= stage.device_bytes
    assert memory.allocated_bytes == max(stage.allocated_bytes for stage in memory.per_stage)
    assert memory.peak_bytes_per_device == max(stage.device_bytes for stage in memory.per_stage)


@pytest.mark.parametrize("seed", range(100, 130))
def test_a_plan_reprices_to_its_own_prediction(seed: int) -> None:
    """From nothing but its JSON, to the last bit."""
    evaluated = random_evaluated(seed)
    alone = evaluate(evaluated.problem, evaluated.placement)
    plan = build_plan(alone, GIVEN, ("an assumption",))
    again = Plan.load_json(plan.model_dump_json(), "the test's plan")
    assert again == plan
    assert reprice(again) == plan.prediction
    # Where everything hides, the share that hides is all.
    same = evaluate(evaluated.problem, Placement.from_plan(again))
    assert build_plan(same, GIVEN, ("an assumption",)) == plan


@pytest.mark.parametrize("seed", range(130, 160))
def test_the_price_of_a_row_does_not_depend_on_its_company(seed: int) -> None:
    """The same placement priced alone and out of a table of many layouts."""
    evaluated = random_evaluated(seed)
    alone = evaluate(evaluated.problem, evaluated.placement)
    assert alone.step_time_s == pytest.approx(evaluated.step_time_s, rel=1e-12)
    np.testing.assert_allclose(alone.priced.memory.device, evaluated.priced.memory.device, rtol=1e-12)


def test_one_stage_takes_its_passes_one_after_another() -> None:
    evaluated = dense(m=8)
    work = evaluated.priced.work
    makespan_s = 8 * float((work.forward_s + work.backward_s).sum())
    assert evaluated.simulation.makespan_s == pytest.approx(makespan_s)
    assert evaluated.step_time_s == pytest.approx(makespan_s + float(evaluated.priced.extras.exposed_s.max()))


def test_simulated_time_is_the_closed_form_where_that_is_exact() -> None:
    """Two stages, equal but for the ends, in one micro-batch: nothing overlaps, so both are the plain sum."""
    evaluated = dense(pp=2, m=1)
    work = evaluated.priced.work
    edges_s = 2 * float(evaluated.priced.layers.edge_s[0])
    assert evaluated.simulation.makespan_s == pytest.approx(float((work.forward_s + work.backward_s).sum()) + edges_s)


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b", "zb-h1"])
def test_more_micro_batches_never_end_sooner(schedule: str) -> None:
    times = [dense(pp=4, m=m, schedule=schedule).step_time_s for m in (1, 2, 4, 8, 16)]
    assert times == sorted(times)
    assert times[-1] > 2 * times[0]


def test_recomputation_trades_memory_for_time() -> None:
    kept, again = dense(pp=2, policy=0), dense(pp=2, policy=2)
    assert again.step_time_s > kept.step_time_s
    assert again.priced.peak_allocated_bytes < kept.priced.peak_allocated_bytes
    breakdown = predict(again).breakdown
    assert breakdown["recompute_exposed_s"] > 0
    assert predict(again).hfu > predict(again).mfu
    assert predict(kept).breakdown["recompute_exposed_s"] == 0
    assert predict(kept).hfu == predict(kept).mfu


def test_gpipe_and_1f1b_differ_in_memory() -> None:
    gpipe, one_f_one_b = dense(pp=4, m=16, schedule="gpipe"), dense(pp=4, m=16)
    assert gpipe.priced.peak_allocated_bytes > 2 * one_f_one_b.priced.peak_allocated_bytes


def test_a_given_order_of_passes_is_the_one_simulated() -> None:
    evaluated = dense(pp=2, m=4)
    gpipe = build_schedule("gpipe", 2, 4)
    other = evaluate(evaluated.problem, evaluated.placement, schedule=gpipe)
    assert other.schedule is gpipe
    assert other.priced.work.forward_s == pytest.approx(evaluated.priced.work.forward_s)


def test_a_schedule_that_cannot_do_the_sizes_is_refused() -> None:
    with pytest.raises(InvalidSpec, match="interleaved"):
        dense(pp=4, m=6, schedule="interleaved-1f1b", vpp=1)


def test_a_policy_that_is_not_priced_is_refused() -> None:
    plan = build_plan(dense(pp=2), GIVEN)
    odd = plan.layers[3].model_copy(update={"offload": 0.5})
    with pytest.raises(InvalidSpec, match=r"layers\.3: recompute 'none' with offload 0\.5"):
        Placement.from_plan(plan.model_copy(update={"layers": (*plan.layers[:3], odd, *plan.layers[4:])}))


@pytest.mark.parametrize("deferred", [True, False])
def test_a_stage_of_an_end_alone_is_that_end(deferred: bool) -> None:
    """No layer's time, working memory or recomputation; what is kept and gathered is the end's own."""
    request = build_request(build_model(num_layers=8, hidden=4096), 8, global_batch_size=16)
    state = request.runtime.state.model_copy(update={"full_grads_under_pipeline": deferred})
    request = with_request(request, runtime=request.runtime.model_copy(update={"state": state}))
    layout = Layout(pp=4, dp_shard=2, num_microbatches=8, zero_stage=3)
    found = evaluate(Problem.from_request(request), Placement(layout, "1f1b", (0, 4, 4, 0), (2,) * 8))
    layers, times, params = found.priced.layers, found.times, found.priced.params
    parts = {name: found.priced.memory.parts[0, :, at] for at, name in enumerate(PARTS)}
    for rank, end in ((0, 1), (3, 2)):
        busy_s = float(layers.busy_s[0])
        assert times.forward_s[rank] == pytest.approx(layers.forward[0, end] + busy_s * (rank == 0))
        assert times.recompute_s[rank] == 0.0
        assert params.total[0, rank] == params.largest[0, rank] == pytest.approx(32000 * 4096 + 4096 * (rank == 3))
        assert parts["working"][rank] == 0.0
        assert parts["gathered"][rank] < parts["gathered"][1]
    assert parts["logits"][0] == 0.0 < parts["logits"][3]
    assert found.step_time_s < np.inf
