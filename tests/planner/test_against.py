"""Why not that layout: the best plan that has it, or the rule against it; and what binds a plan."""

from __future__ import annotations

import pytest

from costmodel.schema.errors import Infeasible, InvalidSpec, UnknownName
from costmodel.schema.plan import Plan
from planner.against import find_against
from planner.binding import what_binds
from planner.constraints import read_constraints
from planner.constraints.words import asked_by, constraints_of, options_of, words_of
from planner.request import build_request, request_from_plan
from planner.search import find_plan

FIX = "schedule=1f1b,micro_batch_size=1,zero_stage=1"


@pytest.fixture(scope="module")
def plan() -> Plan:
    return find_plan(build_request("llama-8b", 8, global_batch_size=32, fix=[f"tp=2,{FIX}"], top=0))


def test_a_plan_keeps_the_words_that_asked_for_it(plan: Plan) -> None:
    assert plan.constraints.fix[0] == "tp=2"
    request = request_from_plan(plan)
    assert dict(request.fixed) == dict(read_constraints(fix=[f"tp=2,{FIX}"]).fixed)
    again = find_plan(request_from_plan(plan, top=0))
    assert (again.layout, again.layers) == (plan.layout, plan.layers)
    assert again.prediction.step_time_s.mean == plan.prediction.step_time_s.mean
    assert not request_from_plan(plan, constrained=False).fixed


def test_words_say_every_kind_of_constraint() -> None:
    request = build_request(
        "llama-8b", 8, fix=["recompute.0-3=full,pp=4,layers_per_stage=9/8/8/7"], limit=["tp=..4,dp=1/2"],
        forbid=["zb-h1,offload,tp=3"], schedules=["1f1b,auto"], free_memory="3.5GiB", fit_probability=0.9,
    )  # fmt: skip
    words = words_of(request)
    assert asked_by(words) == constraints_of(request)
    assert words.fit_probability == 0.9
    assert "--limit tp=..4" in options_of(words)
    assert "--fix layers_per_stage=9/8/8/7" in options_of(words)
    assert "--free-memory 3.5GiB" in options_of(words)


def test_a_slower_layout_is_the_best_plan_that_has_it(plan: Plan) -> None:
    found = find_against(plan, f"tp=2,dp_shard=4,{FIX}").plan
    assert (found.layout.tp, found.layout.dp_shard) == (2, 4)
    assert found.prediction.step_time_s.mean >= plan.prediction.step_time_s.mean * (1 - 0.01)
    assert found.workload == plan.workload


def test_a_layout_that_the_user_had_ruled_out(plan: Plan) -> None:
    found = find_against(plan, f"tp=1,pp=2,{FIX}")
    assert found.plan.layout.tp == 1
    (said,) = found.left_out
    assert "held to --fix tp=2" in said


def test_a_layout_that_the_search_tries_only_when_named(plan: Plan) -> None:
    free = plan.model_copy(update={"constraints": plan.constraints.model_copy(update={"fix": ()})})
    found = find_against(free, f"vpp=7,pp=4,tp=1,{FIX}".replace("schedule=1f1b", "schedule=interleaved-1f1b"))
    assert found.left_out[0].startswith("The search does not try this layout unless it is named")
    assert not find_against(free, f"tp=2,pp=2,{FIX}").left_out


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("tp=3", Infeasible, "--against asks for tp 3 = 3 ranks, which does not divide the 8 devices"),
        ("cp_ring=2", InvalidSpec, r"--against cp_ring=2: the runtime torch cannot run it"),
        ("pp=8,vpp=8", InvalidSpec, "--against pp=8, vpp=8: llama-3.1-8b has 32 layers"),
        ("tp=2,tp=4", InvalidSpec, "gives tp twice"),
        ("dp_replicate=8,recompute=none", Infeasible, "does not fit on 8 h100"),
        ("tq=3", UnknownName, "unknown key of --against 'tq'"),
    ],
)  # fmt: skip
def test_the_rule_that_stands_against_a_layout(
    plan: Plan, text: str, error: type[InvalidSpec], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("planner.search.infeasible.LARGEST_FACTOR", 1)
    with pytest.raises(error if error is not UnknownName else InvalidSpec, match=words):
        find_against(plan, text)


def test_reasons_name_the_option_that_was_typed(plan: Plan) -> None:
    with pytest.raises(Infeasible) as caught:
        find_against(plan, "tp=8,zero_stage=3")
    assert "without --against zero_stage=3 there are" in " ".join(caught.value.reasons)
    assert "--fix" not in " ".join(caught.value.reasons)


def rules(plan: Plan) -> dict[str, str]:
    return {one.rule: one.says for one in what_binds(plan)}


def test_memory_binds_where_layers_recompute(plan: Plan) -> None:
    said = rules(plan)
    saving = sum(layer.recompute != "none" or layer.offload > 0 for layer in plan.layers)
    assert saving > 0
    assert said["memory"].startswith(f"Memory: {saving} of 32 layers recompute or offload")
    assert said["user"].startswith("Asked for: --fix tp=2")


def test_memory_does_not_bind_where_there_is_plenty() -> None:
    free = find_plan(build_request("llama-3.2-1b", 8, gpu="h200", seq_len=2048, fix=[FIX, "pp=1"], top=0))
    assert "memory" not in rules(free)
    assert {layer.recompute for layer in free.layers} == {"none"}


def test_batch_degrees_and_runtime_bind() -> None:
    held = find_plan(build_request("llama-3.2-1b", 8, global_batch_size=4, fix=["tp=2,pp=4,schedule=1f1b"], top=0))
    said = rules(held)
    assert "give each of 1 pipelines 4 micro-batches" in said["batch"]
    assert "torch does not have ring context parallelism" in said["runtime"]
    wide = find_plan(build_request("llama-3.2-1b", 8, global_batch_size=4, fix=["tp=8"], top=0))
    assert "tp 8 fills nvlink" in rules(wide)["divisibility"]
    capable = wide.model_copy(update={"runtime_spec": build_request("llama-3.2-1b", 8, runtime="megatron").runtime})
    assert "context parallelism" not in rules(capable).get("runtime", "")
