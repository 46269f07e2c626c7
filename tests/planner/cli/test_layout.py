"""A layout as given, and what it is completed to."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from costmodel.catalog.runtimes import load_runtime
from costmodel.schema.errors import InvalidSpec
from costmodel.schema.layout import Layout
from planner.cli.layout import GivenLayout
from planner.report.command import layout_flags

TORCH = load_runtime("torch")


def test_what_is_left_becomes_sharded_data_parallel() -> None:
    layout = GivenLayout().override(tp=2, pp=2).complete(16, 32, TORCH)
    assert (layout.tp, layout.pp, layout.dp_shard, layout.zero_stage, layout.num_microbatches) == (2, 2, 4, 3, 8)


def test_nothing_is_filled_in_beside_a_given_dp_shard() -> None:
    with pytest.raises(InvalidSpec, match="makes 4 ranks, and there are 16 GPUs"):
        GivenLayout().override(tp=2, dp_shard=2).complete(16, 32, TORCH)


def test_replicas_alone_shard_nothing() -> None:
    layout = GivenLayout().override(dp_replicate=8, dp_shard=1).complete(8, 32, TORCH)
    assert (layout.dp_shard, layout.zero_stage) == (1, 0)


def test_schedule_follows_the_chunks() -> None:
    assert GivenLayout().schedule == "1f1b"
    assert GivenLayout().override(vpp=2).schedule == "interleaved-1f1b"
    assert GivenLayout().override(vpp=2, schedule="GPipe").schedule == "gpipe"


def test_chunks_follow_the_schedule() -> None:
    assert GivenLayout().override(pp=2, schedule="zb-v").complete(4, 32, TORCH).vpp == 2
    assert GivenLayout().override(pp=2, schedule="1f1b").complete(4, 32, TORCH).vpp == 1
    assert GivenLayout().override(pp=2, vpp=4, schedule="hanayo").complete(4, 32, TORCH).vpp == 4


def test_file_then_flags(tmp_path: Path) -> None:
    path = tmp_path / "layout.json"
    path.write_text(
        json.dumps({"tp": 4, "pp": 2, "schedule": "zb-h1", "recompute": "full", "sequence_parallel": False})
    )
    given = GivenLayout.read(str(path)).override(tp=2)
    layout = given.complete(8, 32, TORCH)
    assert (layout.tp, layout.pp, layout.dp_shard, layout.sequence_parallel) == (2, 2, 2, False)
    assert (given.schedule, given.recompute) == ("zb-h1", "full")


def test_plan_file_gives_its_own_layout(plan_file: Any, make_plan: Any) -> None:
    plan = make_plan()
    given = GivenLayout.read(str(plan_file()))
    assert given.complete(8, plan.workload.global_batch_size, TORCH) == plan.layout
    assert (given.schedule, given.recompute) == ("1f1b", "none")


@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"tp": 8, "pp": 1, "dp_shard": 1, "zero_stage": 0, "sequence_parallel": False, "num_microbatches": 8},
        {"tp": 1, "cp_ring": 2, "ep": 4, "optimizer_offload": 0.25},
        {"dp_shard": 1, "dp_replicate": 2, "order": ["tp", "pp", "cp_ulysses", "cp_ring", "dp_shard", "dp_replicate"]},
    ],
    ids=str,
)
def test_the_printed_flags_give_the_layout_back(
    layout: dict[str, Any], make_plan: Any, plan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the report prints, pasted after ``plan predict``, is the same layout again."""
    small = make_plan()
    whole = small.model_copy(update={"layout": Layout.load(small.layout.model_dump(exclude={"edp"}) | layout, "test")})
    seen: list[Any] = []
    predict = ModuleType("planner.predict")
    predict.predict_plan = lambda *given: seen.append(given) or whole  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "planner.predict", predict)
    question = ("--model", "tiny", "--gpus", 8, "--global-batch-size", whole.workload.global_batch_size)
    ending = plan("predict", *question, *layout_flags(whole).split())
    assert ending.status == 0, ending.err
    _, given, schedule, recompute = seen[0]
    assert given == whole.layout
    assert (schedule, recompute) == ("1f1b", "none")


def test_the_runtime_decides_what_was_not_given() -> None:
    given = GivenLayout().override(tp=2)
    assert given.complete(8, 32, load_runtime("megatron")).zero_stage == 1
    assert given.complete(8, 32, TORCH).sequence_parallel
    assert not given.complete(8, 32, load_runtime("megatron-2021")).sequence_parallel
