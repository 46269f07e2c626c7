"""What the executor cannot run it refuses, in one sentence that names the field and its value."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from plans import build_plan, small_model

from costmodel.schema.errors import InvalidSpec
from costmodel.schema.layout import Layout
from costmodel.schema.model import LoRA, MoEBlock
from costmodel.schema.plan import Plan
from executor.capabilities import check_runnable, reasons_not_runnable
from planner.schedules import SCHEDULES


def test_plans_of_every_kind_are_runnable() -> None:
    for layout, schedule in ((Layout(), "1f1b"), (Layout(pp=2, vpp=2, tp=2, num_microbatches=4), "interleaved-1f1b")):
        assert list(reasons_not_runnable(build_plan(layout, schedule=schedule))) == []


@pytest.mark.parametrize("degree", ["cp_ring", "cp_ulysses"])
def test_context_parallelism_is_refused(degree: str) -> None:
    plan = build_plan(Layout(**{degree: 2}))
    with pytest.raises(InvalidSpec, match=rf"layout\.{degree} = 2"):
        check_runnable(plan)


@pytest.mark.parametrize("degree", ["ep", "etp"])
def test_expert_parallelism_is_refused(degree: str) -> None:
    plan = build_plan(Layout(**{degree: 2}, dp_shard=2))
    with pytest.raises(InvalidSpec, match=rf"layout\.{degree} = 2"):
        check_runnable(plan)


@pytest.mark.parametrize(
    ("choice", "value"),
    [
        ("shard_params", 2),
        ("shard_grads", 2),
        ("shard_optim", 8),
        ("optimizer_format", "fp8"),
    ],
)
def test_state_split_or_kept_another_way_is_refused(choice: str, value: int | str) -> None:
    layout = Layout(dp_shard=4, dp_replicate=2, zero_stage=3, **{choice: value})
    with pytest.raises(InvalidSpec, match=rf"layout\.{choice} = {value}"):
        check_runnable(build_plan(layout))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm": "layernorm"}, r"model\.norm = layernorm"),
        ({"activation": "gelu"}, r"model\.activation = gelu"),
        ({"hidden_dropout": 0.1}, r"model\.hidden_dropout = 0.1"),
        ({"trains": LoRA(rank=4)}, r"model\.trains"),
        ({"has_head": False}, r"model\.has_head = False"),
    ],
)
def test_other_models_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSpec, match=message):
        check_runnable(build_plan(Layout(), model=small_model().model_copy(update=change)))


def test_experts_are_refused() -> None:
    model = small_model()
    attention, _ = model.kinds[0].blocks
    experts = MoEBlock(num_experts=4, experts_per_token=2, intermediate_size=32)
    kinds = (model.kinds[0].model_copy(update={"blocks": (attention, experts)}),)
    with pytest.raises(InvalidSpec, match=r"attention \+ moe"):
        check_runnable(build_plan(Layout(), model=model.model_copy(update={"kinds": kinds})))


def test_heads_must_divide_by_tp() -> None:
    with pytest.raises(InvalidSpec, match=r"num_key_value_heads = 4 .* tp = 8"):
        check_runnable(build_plan(Layout(tp=8)))


def test_batch_must_be_the_product_of_its_parts() -> None:
    plan = build_plan(Layout(dp_shard=2, num_microbatches=3))
    workload = plan.workload.model_copy(update={"global_batch_size": 7})
    with pytest.raises(InvalidSpec, match=r"global_batch_size = 7, .* = 6"):
        check_runnable(plan.model_copy(update={"workload": workload}))


def _with_passes(*passes: str) -> Plan:
    plan = build_plan(Layout(pp=2, num_microbatches=2))
    pipeline = plan.pipeline.model_copy(update={"passes": dict(zip(("0", "1"), passes, strict=True))})
    return plan.model_copy(update={"pipeline": pipeline})


@pytest.mark.parametrize(
    ("passes", "message"),
    [
        (("0F0 0F1 0B0", "1F0 1B0 1F1 1B1"), "pass 0B1 is missing"),
        (("0F0 0F1 0B0 0B1 0B1", "1F0 1B0 1F1 1B1"), "pass 0B1 stands 2 times"),
        (("0F0 0F1 0B0 0B1", "1F0 1I0 1F1 1B1"), "pass 1W0 is missing"),
        (("0F0 0F1 0B0 1B1", "1F0 1B0 1F1 0B1"), "rank 0: pass 1B1 belongs on rank 1"),
        (("0F0 0F1 0F2 0B0 0B1", "1F0 1B0 1F1 1B1"), "0F2 names a micro-batch that does not exist"),
        (("0F0 0B0 0F1 0B1", "1F1 1B1 1F0 1B0"), "0B0 waits for ever for 1B0 of rank 1"),
        (("0F0 0F1 0B0 0B1", "1B0 1F0 1F1 1B1"), "pass 1B0 comes before 1F0"),
        (("0F0 0F1 0B0 0B1 0FROZEN_F0", "1F0 1B0 1F1 1B1"), "has FROZEN_F, and the executor runs F, B"),
        (
            ("0F0 0F1 0B0 0B1 0VOCAB_F0 0VOCAB_F1", "1F0 1B0 1F1 1B1 1VOCAB_F0 1VOCAB_F1"),
            "splits one end of the model",
        ),
    ],
)
def test_orders_that_cannot_be_executed_are_refused(passes: tuple[str, str], message: str) -> None:
    with pytest.raises(InvalidSpec, match=f"this plan cannot be run: pipeline.passes.* {message}"):
        check_runnable(_with_passes(*passes))


@pytest.mark.parametrize("name", SCHEDULES)
def test_published_orders_can_be_executed(name: str) -> None:
    layout = Layout(pp=4, vpp=SCHEDULES[name].vpp, num_microbatches=8)
    assert list(reasons_not_runnable(build_plan(layout, model=small_model(16), schedule=name))) == []


def test_checking_a_plan_imports_no_torch() -> None:
    modules = "executor, executor.capabilities, executor.launch, executor.record, executor.text, executor.report"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
