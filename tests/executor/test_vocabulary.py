"""The vocabulary split over pipeline ranks: other layouts and numbers of rows, other orders, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from plans import build_plan, small_model
from test_parity import assert_parity
from worker_pool import WorkerPool

from costmodel.catalog.clusters import default_cluster
from costmodel.catalog.devices import load_device
from costmodel.catalog.runtimes import load_runtime
from costmodel.schema.errors import InvalidSpec
from costmodel.schema.layout import Layout
from costmodel.schema.schedule import Pass, PassKind, Schedule
from costmodel.schema.workload import Workload
from executor import apply_plan
from executor.capabilities import reasons_not_runnable
from executor.model import Llama
from planner.cli.files import plan_from
from planner.request import Request
from planner.schedules import build_schedule
from planner.search import find_plan

FORMS = ("1f1b-vocab-1", "1f1b-vocab-2")


@pytest.mark.parametrize("degrees", [{"dp_replicate": 2}, {"dp_shard": 2, "zero_stage": 0}], ids=str)
@pytest.mark.parametrize("name", FORMS)
def test_beside_data_parallelism(name: str, degrees: dict[str, int], workers: Callable[[int], WorkerPool]) -> None:
    layout = Layout(pp=2, num_microbatches=3, micro_batch_size=2, **degrees)
    assert_parity(build_plan(layout, schedule=name, recompute=("full", "none")), workers(4))


@pytest.mark.parametrize("vocab_size", [61, 7])
@pytest.mark.parametrize("name", FORMS)
def test_ranks_with_unequal_rows(name: str, vocab_size: int, workers: Callable[[int], WorkerPool]) -> None:
    model = small_model(4, vocab_size=vocab_size)
    assert_parity(build_plan(Layout(pp=4, num_microbatches=4), model=model, schedule=name), workers(4))


def _with_split_backward(schedule: Schedule) -> Schedule:
    """Every B as I and W, one right after the other."""

    def split(step: Pass) -> tuple[Pass, ...]:
        if step.kind is not PassKind.BACKWARD:
            return (step,)
        return step._replace(kind=PassKind.INPUT_GRAD), step._replace(kind=PassKind.WEIGHT_GRAD)

    orders = tuple(tuple(each for step in order for each in split(step)) for order in schedule.orders)
    return Schedule(schedule.name, schedule.num_microbatches, schedule.stage_to_rank, orders)


@pytest.mark.parametrize("name", FORMS)
def test_with_a_split_backward(name: str, workers: Callable[[int], WorkerPool]) -> None:
    schedule = _with_split_backward(build_schedule(name, 2, 4))
    layout = Layout(pp=2, num_microbatches=4)
    assert_parity(build_plan(layout, schedule=schedule, recompute=("full", "none")), workers(2))


@pytest.mark.parametrize("name", FORMS)
def test_bf16_over_fp32_masters(name: str, workers: Callable[[int], WorkerPool]) -> None:
    """Losses are those of the whole vocabulary on one rank, up to bf16's rounding of its 8 bits."""
    runs = [
        workers(2).run(
            "bf16_losses",
            plan=build_plan(
                Layout(pp=2, num_microbatches=2), schedule=each, precision="bf16", master_dtype="fp32"
            ).model_dump_json(),
            steps=3,
        )
        for each in ("1f1b", name)
    ]
    for (plain, *_), (split, stored, computed) in zip(*runs, strict=True):
        np.testing.assert_allclose(split, plain, rtol=2**-8)
        assert split[-1] < split[0]
        assert (stored, computed) == ({"torch.float32"}, {"torch.bfloat16"})


@pytest.mark.parametrize(
    ("degrees", "model", "reason"),
    [
        ({"tp": 2}, {}, "layout.tp = 2, and"),
        ({"dp_shard": 2, "zero_stage": 1}, {}, "layout.zero_stage = 1 over dp_shard = 2, and"),
        ({}, {"tied": True}, "model.tie_word_embeddings = True, and"),
        ({}, {"vocab_size": 9}, "model.vocab_size = 9 leaves one of pp = 4 ranks without a row"),
    ],
)
def test_what_the_split_vocabulary_does_not_go_with(
    degrees: dict[str, int], model: dict[str, Any], reason: str
) -> None:
    plan = build_plan(
        Layout(pp=4, num_microbatches=4, **degrees), model=small_model(4, **model), schedule="1f1b-vocab-2"
    )
    (given,) = reasons_not_runnable(plan)
    assert given.startswith(reason)


@pytest.mark.parametrize("name", FORMS)
def test_a_searched_plan_runs_as_it_was_written(name: str, workers: Callable[[int], WorkerPool]) -> None:
    """Through its JSON, stages and recomputation as the search placed them."""
    device = load_device("cpu")
    request = Request(
        model=small_model(6, vocab_size=512),
        device=device,
        cluster=default_cluster(device, 2),
        workload=Workload(seq_len=8, global_batch_size=8, precision="fp32", param_dtype="fp32", master_dtype="none"),
        runtime=load_runtime("torch"),
        fixed={"vocab_parallel": True, "schedule": name},
    )
    plan = plan_from(find_plan(request).model_dump(mode="json"), "the plan")
    assert (plan.pipeline.schedule, plan.layout.pp) == (name, 2)
    assert list(reasons_not_runnable(plan)) == []
    assert_parity(plan, workers(2))


def test_one_end_alone_is_not_split() -> None:
    schedule = build_schedule("1f1b-vocab-1", 2, 2)
    orders = tuple(tuple(step for step in order if not step.kind.startswith("VOCAB_IN")) for order in schedule.orders)
    plan = build_plan(Layout(pp=2, num_microbatches=2), schedule=Schedule("head", 2, (0, 1), orders))
    (given,) = reasons_not_runnable(plan)
    assert given.startswith("pipeline.passes splits one end of the model")


def test_losses_of_ones_own_are_refused() -> None:
    plan = build_plan(Layout(pp=2, num_microbatches=2), schedule="1f1b-vocab-1")
    with torch.device("meta"):
        model = Llama(plan.model)
    with pytest.raises(InvalidSpec, match="computes cross-entropy in parts, and takes no loss_function"):
        apply_plan(model, plan, loss_function=lambda logits, targets: logits.sum())
