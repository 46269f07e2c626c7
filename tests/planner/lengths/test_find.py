"""Plans for mixed lengths: prices are the cost model's own, and unlike groups are chosen where they pay."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from costmodel.catalog.models import load_model
from costmodel.schema.errors import Infeasible, InvalidSpec
from costmodel.schema.layout import Layout
from costmodel.schema.lengths import LengthLayout, LengthPlan
from costmodel.schema.model import FrozenPart
from planner.cli.main import status_of
from planner.lengths import Histogram, find_length_plan
from planner.lengths.costs import price_groups
from planner.predict import predict_plan
from planner.problem import Problem
from planner.request import Request, build_request

TAIL = Histogram((1024, 4096, 16384, 131072), (5000, 900, 60, 2))
NARROW = Histogram((7168, 8192), (256, 256))


def request_for(histogram: Histogram, gpus: int = 64, runtime: str = "megatron", **options: object) -> Request:
    return build_request(
        "llama-8b",
        gpus,
        runtime=runtime,
        seq_len=histogram.longest,
        global_batch_size=histogram.sequences,
        calibration="none",
        **options,  # type: ignore[arg-type]
    )


def test_a_sequence_costs_what_plan_predict_says() -> None:
    """Sixteen of 8,192 tokens by two at once on each of eight groups: eight micro-batches' forward and backward."""
    histogram = Histogram((8192,), (16,))
    request = request_for(histogram, 8, fix=["tp=1", "zero_stage=1", "recompute=full"])
    (costs,) = price_groups(request, Problem.from_request(request), histogram)
    alone = costs.shapes.index((1, 1))
    k = int(costs.packed[0, alone])
    layout = Layout(dp_shard=8, zero_stage=1, micro_batch_size=k, num_microbatches=16 // 8 // k)
    plan = predict_plan(request, layout, "1f1b", "full")
    compute_s = float(costs.problem.seconds[0, alone]) * 16 / 8
    assert costs.step_s(compute_s) == pytest.approx(plan.prediction.step_time_s.mean, rel=0.01)


def test_packing_is_priced_by_the_sum_of_squares() -> None:
    """As many tokens in sequences half as long: attention takes half the time, the rest the same."""
    request = request_for(TAIL, 16, fix=["tp=1", "cp_ring=8", "cp_ulysses=1", "recompute=full"])
    histogram = Histogram((16384, 32768, 65536), (64, 64, 64))
    costs = price_groups(request, Problem.from_request(request), histogram)[0]
    each = costs.problem.seconds[:, 0] / np.array(histogram.lengths)
    assert each[2] - each[1] == pytest.approx(2.0 * (each[1] - each[0]), rel=0.1)


def test_a_long_tail_gets_groups_of_its_own() -> None:
    """Without tensor parallelism two long sequences would tie all ranks up in large groups."""
    plan = find_length_plan(request_for(TAIL, fix=["tp=1"]), TAIL)
    assert plan.chosen == plan.mixed
    assert plan.chosen.mixed
    assert plan.gain > 0.05
    first, *rest = plan.chosen.groups
    assert first.sequences[-1].length == TAIL.longest
    assert all(first.cp_ring * first.cp_ulysses > one.cp_ring * one.cp_ulysses for one in rest)
    assert all(one.sequences[-1].length < TAIL.longest for one in rest)
    assert sum(one.groups * one.cp_ring * one.cp_ulysses for one in plan.chosen.groups) * plan.chosen.tp == 64
    dealt = sum(share.count for one in plan.chosen.groups for share in one.sequences)
    assert dealt == TAIL.sequences
    assert plan.lower_bound_s <= plan.mixed.step_time_s <= plan.uniform.step_time_s


def test_stopped_at_once_it_still_answers_with_its_gap() -> None:
    whole = request_for(TAIL, fix=["tp=1"])
    stopped = find_length_plan(replace(whole, time_limit_s=1e-9), TAIL)
    exact = find_length_plan(replace(whole, gap=0.0), TAIL)
    assert stopped.mixed == stopped.uniform == exact.uniform
    assert stopped.gap > exact.gap
    assert stopped.lower_bound_s <= exact.lower_bound_s <= exact.mixed.step_time_s


def test_nearly_equal_lengths_do_not() -> None:
    plan = find_length_plan(request_for(NARROW), NARROW)
    assert plan.chosen == plan.uniform
    assert not plan.chosen.mixed
    assert plan.gain <= 0.01


@pytest.mark.parametrize("without", [{"runtime": "megatron-2022"}, {"forbid": ["mixed-context-parallel"]}])
def test_where_they_may_not_be_used(without: dict[str, object]) -> None:
    small = Histogram((512, 4096), (400, 2))
    plan = find_length_plan(request_for(small, 4, **without), small)
    assert plan.chosen == plan.uniform


def test_what_holds_no_sequence_is_infeasible() -> None:
    with pytest.raises(Infeasible, match="131072 tokens"):
        find_length_plan(request_for(TAIL, 8, "torch", fix=["tp=1"]), TAIL)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"fix": ["pp=2"]}, "pp cannot be constrained with --lengths: it is not used"),
        ({"fix": ["micro_batch_size=2"]}, "micro_batch_size cannot be constrained with --lengths: groups differ in it"),
        ({"fix": ["dp_shard=4"]}, "dp_shard cannot be constrained with --lengths: groups differ in it"),
        ({"fix": ["recompute.0-3=full"]}, "--fix recompute.0-3: with --lengths all layers are alike"),
    ],
)
def test_constraints_on_what_is_not_common(asked: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        find_length_plan(request_for(NARROW, 8, **asked), NARROW)
    assert refused.value.message == says


@pytest.mark.parametrize(
    ("asked", "keeps"),
    [
        ({"fix": ["pp=1", "tp=2"]}, lambda plan: plan.tp == 2),
        ({"limit": ["tp=4.."]}, lambda plan: plan.tp >= 4),
        ({"forbid": ["cp", "zero1"], "fix": ["recompute=full"]}, lambda plan: plan.zero_stage == 0),
        ({"fix": ["cp=4"]}, lambda plan: {one.cp_ring * one.cp_ulysses for one in plan.groups} == {4}),
    ],
)
def test_constraints_are_kept(asked: dict[str, Any], keeps: Callable[[LengthLayout], bool]) -> None:
    plan = find_length_plan(request_for(NARROW, 8, **asked), NARROW)
    assert keeps(plan.uniform)
    assert keeps(plan.mixed)


def test_experts_are_spread_inside_a_group() -> None:
    """128 experts on every rank would not fit; over a group's tensor ranks they do, whatever its degree."""
    short = Histogram((2048, 8192), (64, 64))
    request = replace(request_for(short, 16), model=load_model("qwen3-30b-a3b"))
    plan = find_length_plan(request, short)
    assert plan.chosen.ep == plan.chosen.tp > 1
    whole = replace(request, fixed={"ep": 1, "tp": 1})
    with pytest.raises(Infeasible):
        find_length_plan(whole, short)


def test_frozen_parts_are_refused() -> None:
    request = request_for(NARROW, 8)
    encoder = FrozenPart(model=request.model.model_copy(update={"trains": "frozen"}), seq_len=64)
    model = request.model.model_copy(update={"frozen_parts": (encoder,)})
    with pytest.raises(InvalidSpec, match="has frozen parts, and --lengths"):
        find_length_plan(replace(request, model=model), NARROW)


def test_unlike_nodes_are_refused() -> None:
    request = request_for(NARROW, 8)
    group = request.cluster.groups[0]
    both = (group, group.model_copy(update={"device": "a100-80g"}))
    with pytest.raises(InvalidSpec, match="unlike groups of nodes"):
        find_length_plan(replace(request, cluster=request.cluster.model_copy(update={"groups": both})), NARROW)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "hist.csv", tmp_path / "plan.json"
    path.write_text("length,count\n512,400\n4096,20\n16384,2\n")
    asked = ["--model", "llama-8b", "--gpus", "8", "--runtime", "megatron", "--lengths", str(path)]
    assert status_of([*asked, "--out", str(out)]) == 0
    report = capsys.readouterr().out
    assert "Unlike groups" in report
    assert LengthPlan.load_json(out.read_text(), "plan").sequences == 422
    assert status_of([*asked, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["longest"] == 16384
    assert status_of(["show", str(out)]) == 0
    assert capsys.readouterr().out.splitlines()[:8] == report.splitlines()[:8]
    out.write_text(out.read_text().replace('"sequences": 422', '"sequences": 0'))
    assert status_of(["show", str(out)]) == 2
    assert "sequences = 0" in capsys.readouterr().err
    assert status_of([*asked, "--seq-len", "4096"]) == 2
    assert "already says which sequences a step has" in capsys.readouterr().err
    assert status_of([*asked, "--price", "2.5"]) == 2
    assert "--lengths plans one step" in capsys.readouterr().err
    assert status_of([*asked, "--gpus", "8..16"]) == 2
    assert "one number of GPUs" in capsys.readouterr().err
    path.write_text("length,count\n512,many\n")
    assert status_of(asked) == 2
    assert "line 2: count 'many'" in capsys.readouterr().err
