"""Pricing exactly one given layout: what the plan then says, and what is refused in one sentence."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "search"))

from small_instances import build_model, build_request

from costmodel.schema.errors import Infeasible, InvalidSpec
from costmodel.schema.layout import Layout
from costmodel.schema.plan import Plan
from planner.assemble import reprice
from planner.predict import predict_plan
from planner.request import build_request as build_catalog_request

REQUEST = build_request(build_model(num_layers=8), 8, global_batch_size=32)


def test_the_plan_is_the_layout_that_was_given() -> None:
    layout = Layout(tp=2, pp=2, dp_shard=2, micro_batch_size=2, num_microbatches=8, zero_stage=1)
    plan = predict_plan(REQUEST, layout, "1f1b", "full")
    assert plan.layout == layout
    assert plan.pipeline.layers_per_stage == (4, 4)
    assert [layer.stage for layer in plan.layers] == [0] * 4 + [1] * 4
    assert {layer.recompute for layer in plan.layers} == {"full"}
    assert (plan.certificate.status, plan.certificate.gap, plan.certificate.lower_bound_s) == ("given", None, None)
    assert (plan.certificate.considered, plan.certificate.evaluated) == (1, 1)
    assert plan.schedule().num_microbatches == 8
    assert reprice(plan) == plan.prediction


def test_interleaved_stages_are_dealt_round() -> None:
    layout = Layout(pp=2, vpp=2, dp_replicate=4, micro_batch_size=1, num_microbatches=8)
    plan = predict_plan(REQUEST, layout, "interleaved-1f1b")
    assert plan.pipeline.layers_per_stage == (2, 2, 2, 2)
    assert plan.pipeline.stage_to_rank == (0, 1, 0, 1)
    assert plan.pipeline.num_stages == 4


def test_llama_3_405b_has_two_stages_more_than_layers() -> None:
    """126 layers, the embedding and the head in 16 x 8 chunks. Source: arXiv 2407.21783, section 3.3.2."""
    request = build_catalog_request(
        "llama-3.1-405b", 128, runtime="llama-3", seq_len=8192, global_batch_size=16, calibration="none"
    )
    layout = Layout(tp=8, pp=16, vpp=8, num_microbatches=16, zero_stage=2)
    plan = Plan.load_json(predict_plan(request, layout, "interleaved-1f1b").model_dump_json(), "the plan")
    assert plan.pipeline.layers_per_stage == (0, *[1] * 126, 0)
    assert reprice(plan) == plan.prediction
    with pytest.raises(InvalidSpec, match="every stage but the first and the last needs one") as refused:
        predict_plan(request, layout.model_copy(update={"vpp": 9}), "interleaved-1f1b")
    assert refused.value.hint == "128 stages at most"


def test_a_layout_that_does_not_fit_is_priced_all_the_same() -> None:
    request = build_catalog_request("llama-70b", 8, calibration="none")
    plan = predict_plan(
        request, Layout(dp_replicate=8, num_microbatches=request.workload.global_batch_size // 8), "1f1b"
    )
    assert plan.prediction.memory.fits_probability < 0.01
    assert plan.prediction.memory.peak_bytes_per_device > plan.prediction.memory.capacity_bytes


def test_too_few_ranks_say_how_many_there_are() -> None:
    with pytest.raises(Infeasible, match="multiply to 4 ranks, the cluster has 8 devices"):
        predict_plan(REQUEST, Layout(tp=2, pp=2, num_microbatches=32), "1f1b")


@pytest.mark.parametrize(
    ("layout", "schedule", "recompute", "said"),
    [
        (Layout(tp=8, num_microbatches=31), "1f1b", "none", "= 31, not the global batch 32"),
        (Layout(dp_replicate=8, num_microbatches=4), "2f2b", "none", "2f2b"),
        (Layout(dp_replicate=8, num_microbatches=4), "1f1b", "some", "recompute 'some'"),
        (Layout(pp=8, vpp=2, num_microbatches=32), "interleaved-1f1b", "none", "8 layers"),
        (Layout(pp=8, num_microbatches=32, vpp=1), "interleaved-1f1b", "none", "vpp"),
    ],
    ids=["batch", "schedule", "recompute", "stages", "chunks"],
)
def test_contradictions_are_refused_in_a_sentence(layout: Layout, schedule: str, recompute: str, said: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        predict_plan(REQUEST, layout, schedule, recompute)
    assert said in caught.value.message
    assert "\n" not in caught.value.message


def test_a_runtime_without_sharding_refuses_it() -> None:
    request = build_request(build_model(num_layers=8), 8, global_batch_size=32, runtime="megatron-2021")
    with pytest.raises(InvalidSpec, match="zero_stage 3: the runtime megatron-2021 has 0"):
        predict_plan(request, Layout(dp_shard=8, num_microbatches=4, zero_stage=3), "1f1b")


@pytest.mark.parametrize(
    ("degrees", "words"),
    [
        ({"tp": 8, "cp_ulysses": 8}, ("cp_ulysses 8 = 64", "32 heads")),
        ({"ep": 2, "dp_shard": 64}, ("ep 2", "no experts")),
    ],
)
def test_degrees_that_do_not_divide_the_model_are_refused(degrees: dict[str, int], words: tuple[str, ...]) -> None:
    request = build_catalog_request("llama-8b", 64, global_batch_size=512)
    dp = 64 // (degrees.get("tp", 1) * degrees.get("cp_ulysses", 1))
    layout = Layout(**{"dp_shard": dp, **degrees}, num_microbatches=512 // dp, zero_stage=3)
    with pytest.raises(InvalidSpec) as refused:
        predict_plan(request, layout, "1f1b")
    assert all(word in str(refused.value) for word in words)


def test_pipelines_inside_data_parallelism_need_experts_on_the_same_ranks() -> None:
    request = build_catalog_request("mixtral-8x7b", 16, runtime="megatron", global_batch_size=64)
    order = ("tp", "cp_ulysses", "cp_ring", "pp", "dp_shard", "dp_replicate")
    degrees = {"tp": 2, "pp": 2, "dp_shard": 4, "num_microbatches": 16, "zero_stage": 1, "order": order}
    with pytest.raises(InvalidSpec, match=r"ep 4 · etp 1 is not tp 2 · cp 1"):
        predict_plan(request, Layout(**degrees, ep=4), "1f1b")
    assert predict_plan(request, Layout(**degrees, ep=2), "1f1b").layout.edp == 4


def test_what_a_runtime_does_not_do_yet_is_priced_and_said() -> None:
    request = build_catalog_request("llama-8b", 8, global_batch_size=64)
    plan = predict_plan(request, Layout(cp_ring=2, dp_shard=4, num_microbatches=16, zero_stage=3), "1f1b", "full")
    assert any("cp_ring 2 is priced as if torch did it" in sentence for sentence in plan.prediction.assumptions)
    assert plan.prediction.breakdown["cp_total_s"] > 0
