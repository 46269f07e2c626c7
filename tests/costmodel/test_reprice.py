"""A plan's JSON re-prices to exactly its own prediction, and the prediction's terms sum to its figures."""

from __future__ import annotations

from functools import cache

import pytest
from pricing import make_request, random_layouts

from costmodel.schema.plan import Plan
from planner.assemble import reprice
from planner.predict import predict_plan

# model, devices, options of the request, recompute
CASES = (
    ("tiny", 4, {"gpu": "cpu"}, "selective"),
    ("llama-3.1-8b", 16, {"gpu": "h100", "global_batch_size": 64, "seq_len": 8192}, "full"),
    ("mixtral-8x7b", 64, {"gpu": "a100-80g", "runtime": "megatron", "global_batch_size": 256}, "selective"),
    ("deepseek-v3", 256, {"gpu": "h200", "runtime": "megatron", "global_batch_size": 512, "seq_len": 4096}, "full"),
    ("nemotron-h-8b", 16, {"gpu": "mi300x", "runtime": "deepspeed", "global_batch_size": 64}, "none"),
    ("gpt3-175b", 96, {"gpu": "v100-32g", "runtime": "megatron-2021", "precision": "fp16"}, "full"),
)
ROWS = 4


@cache
def plans(index: int) -> tuple[Plan, ...]:
    """Predictions of a few random layouts, as their own JSON gives them back."""
    model, gpus, options, recompute = CASES[index]
    request = make_request(model, gpus, **options)
    layouts = random_layouts(request, ROWS, seed=index)
    found = [
        predict_plan(request, layouts.row(row), layouts.schedule_name(row), recompute) for row in range(len(layouts))
    ]
    return tuple(Plan.load_json(plan.model_dump_json(), "the plan") for plan in found)


every_case = pytest.mark.parametrize("index", range(len(CASES)), ids=[f"{case[0]} on {case[1]}" for case in CASES])


@every_case
def test_json_reprices_to_itself(index: int) -> None:
    for plan in plans(index):
        assert reprice(plan) == plan.prediction


@every_case
def test_exposed_terms_sum_to_the_step_time(index: int) -> None:
    for plan in plans(index):
        breakdown = plan.prediction.breakdown
        exposed = sum(value for name, value in breakdown.items() if name.endswith("_exposed_s"))
        assert exposed == pytest.approx(plan.prediction.step_time_s.mean, rel=1e-9)
        assert all(breakdown[name.replace("_exposed_s", "_total_s")] >= 0.0 for name in breakdown)
        assert all(value >= -1e-12 for value in breakdown.values())


@every_case
def test_memory_is_the_worst_rank_and_its_parts(index: int) -> None:
    for plan in plans(index):
        memory = plan.prediction.memory
        assert len(memory.per_stage) == plan.layout.pp
        worst = max(memory.per_stage, key=lambda stage: stage.device_bytes)
        assert memory.allocated_bytes == max(stage.allocated_bytes for stage in memory.per_stage)
        assert memory.peak_bytes_per_device == worst.device_bytes
        for stage in memory.per_stage:
            assert sum(stage.parts.values()) == pytest.approx(stage.allocated_bytes, rel=1e-12)


@every_case
def test_traffic_is_there_when_somebody_talks(index: int) -> None:
    """Levels are the cluster's; bytes are sent unless every degree but one rank's own is 1."""
    for plan in plans(index):
        network = plan.prediction.network
        assert list(network) == [level.name for level in plan.cluster.spec.levels]
        assert all(sent >= 0.0 for sent in network.values())
        assert sum(network.values()) > 0.0
        inside = plan.cluster.spec.groups[0].devices_per_node
        if plan.layout.world_size <= inside:
            outer = list(network.values())[len(plan.cluster.spec.groups[0].levels) :]
            assert sum(outer) == 0.0
