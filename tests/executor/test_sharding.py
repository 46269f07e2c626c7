"""Each ZeRO stage communicates what its definition says, and types are those of the workload."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from plans import build_plan
from worker_pool import WorkerPool

from costmodel.schema.layout import Layout
from costmodel.schema.workload import Workload
from executor.buckets import buckets
from executor.sharding import Numerics

MICROBATCHES = 3
GROUPS = 6  # embedding, four layers, norm with head


@pytest.mark.parametrize(
    ("zero_stage", "gathers", "reductions"),
    [
        (1, GROUPS, GROUPS),
        (2, GROUPS, GROUPS * MICROBATCHES),
        (3, 2 * GROUPS * MICROBATCHES, GROUPS * MICROBATCHES),
    ],
)
def test_stages_gather_and_reduce_as_often_as_defined(
    zero_stage: int, gathers: int, reductions: int, workers: Callable[[int], WorkerPool]
) -> None:
    layout = Layout(dp_shard=2, zero_stage=zero_stage, num_microbatches=MICROBATCHES)
    for counts in workers(2).run("collectives", plan=build_plan(layout).model_dump_json()):
        assert counts["_allgather_base_"] == gathers
        assert counts["_reduce_scatter_base_"] == reductions


def test_replicas_average_gradients_once_a_step(workers: Callable[[int], WorkerPool]) -> None:
    layout = Layout(dp_replicate=2, num_microbatches=MICROBATCHES)
    for counts in workers(2).run("collectives", plan=build_plan(layout).model_dump_json()):
        assert counts == {"allreduce_": 2}  # gradients, and the loss


@pytest.mark.parametrize("degrees", [{"dp_shard": 2, "zero_stage": 3}, {"dp_replicate": 2}, {"tp": 2}, {"pp": 2}])
def test_bf16_computes_over_float32_parameters(degrees: dict[str, int], workers: Callable[[int], WorkerPool]) -> None:
    layout = Layout(**degrees, num_microbatches=2)
    plan = build_plan(layout, precision="bf16", param_dtype="bf16", master_dtype="fp32")
    for losses, stored, computed in workers(2).run("bf16_losses", plan=plan.model_dump_json(), steps=4):
        assert (stored, computed) == ({"torch.float32"}, {"torch.bfloat16"})
        assert losses[-1] < losses[0]


def test_numerics_follow_the_workload() -> None:
    shape = {"seq_len": 8, "global_batch_size": 1}
    assert Numerics.of(Workload(**shape, precision="fp32", param_dtype="fp32")) == Numerics.all_in(torch.float32)
    masters = Numerics.of(Workload(**shape, precision="bf16", grad_reduce_dtype="bf16"))
    assert masters == Numerics(torch.float32, torch.bfloat16, torch.bfloat16)
    assert Numerics.of(Workload(**shape, master_dtype="none")).stored is torch.bfloat16


def test_gradients_are_reduced_in_buckets() -> None:
    tensors = [torch.zeros(size, dtype=torch.uint8) for size in (3, 4, 20, 5, 5, 1)]
    sizes = [[tensor.numel() for tensor in bucket] for bucket in buckets(tensors, 10)]
    assert sizes == [[3, 4], [20], [5, 5], [1]]
    assert list(buckets([], 10)) == []
