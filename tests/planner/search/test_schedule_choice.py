"""Which schedule a plan takes, and that it says why: bubble, memory, sends, few micro-batches, heavy ends."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from small_instances import build_model, build_request, slower, with_budget, with_request

from costmodel.schema.errors import InvalidSpec
from costmodel.schema.plan import Plan
from planner.assemble import reprice
from planner.cli.files import plan_from
from planner.cli.layout import GivenLayout
from planner.report.command import plan_command
from planner.request import Request
from planner.search import find_plan

GIB = 2**30


def four_ranks(m: int, vocab: int = 1000, **limits: Any) -> Request:
    """Sixteen equal layers on four devices in a row, nothing recomputed."""
    fixed = {"pp": 4, "micro_batch_size": 1, "zero_stage": 0, "recompute": "none"}
    model = build_model(num_layers=16, hidden=4096, vocab=vocab)
    return build_request(model, 4, seq_len=4096, global_batch_size=m, fixed=fixed, top=0, gap=0.0, **limits)


def why(plan: Plan) -> str:
    return next(note for note in plan.notes if " instead of " in note)


def test_bubble() -> None:
    """With memory for p micro-batches ZB-V idles least."""
    plan = find_plan(with_budget(four_ranks(32), 40 * GIB))
    assert plan.pipeline.schedule == "zb-v"
    pattern = r"zb-v with 2 stages a rank instead of (.+): ([\d.]+)% faster, bubble ([\d.]+)% against ([\d.]+)%"
    reason = re.match(pattern, why(plan))
    assert reason is not None
    assert reason[1] == "interleaved-1f1b with 4 stages a rank"
    assert 0.5 < float(reason[2]) < 3
    assert float(reason[3]) < float(reason[4]) < 5


@pytest.mark.parametrize(("gib", "schedule"), [(29, "1f1b"), (30, "v-half"), (36, "interleaved-1f1b"), (40, "zb-v")])
def test_memory(gib: int, schedule: str) -> None:
    """From what only 1F1B fits to what ZB-V needs: V-Half in between, at half of the activations; none offloaded."""
    request = four_ranks(16, forbidden=frozenset({"activation_offload"}))
    assert find_plan(with_budget(request, gib * GIB)).pipeline.schedule == schedule


def test_few_micro_batches() -> None:
    """Where the backward stays whole, chunks shorten the fill."""
    request = with_request(four_ranks(4), schedules=("gpipe", "1f1b", "interleaved-1f1b"))
    plan = find_plan(request)
    assert (plan.pipeline.schedule, plan.layout.vpp) == ("interleaved-1f1b", 4)
    assert "instead of 1f1b" in why(plan)
    assert "bubble 17.6% against 41.6%" in why(plan)


def test_slow_sends() -> None:
    """A V crosses every boundary twice: with sends of 20 ms one stage a rank is faster."""
    request = with_request(four_ranks(8), schedules=("zb-h2", "zb-v"))
    assert find_plan(request).pipeline.schedule == "zb-v"
    plan = find_plan(with_request(request, cluster=slower(request.cluster, 1.0, 0.02)))
    assert plan.pipeline.schedule == "zb-h2"
    assert "less pipeline sends" in why(plan)


def test_heavy_ends() -> None:
    """A vocabulary of 256,000 puts both ends of a V on one rank: it does not win."""
    plan = find_plan(with_request(four_ranks(16, vocab=256_000), schedules=("1f1b", "zb-h1", "zb-v")))
    assert plan.pipeline.schedule == "zb-h1"
    assert plan.pipeline.layers_per_stage[-1] < plan.pipeline.layers_per_stage[0]


def test_a_v_relieves_the_rank_that_holds_both_ends() -> None:
    plan = find_plan(with_request(with_budget(four_ranks(8, vocab=256_000), 200 * GIB), schedules=("zb-v",)))
    lengths, home = plan.pipeline.layers_per_stage, plan.pipeline.stage_to_rank
    held = [sum(length for length, rank in zip(lengths, home, strict=True) if rank == here) for here in range(4)]
    assert held[0] < min(held[1:])
    assert sum(held) == 16


@pytest.mark.parametrize("name", ["zb-v", "hanayo", "chimera", "bitpipe", "dualpipe", "dualpipe-v", "zeropp", "v-min"])
def test_plans_of_every_shape_price_again_to_the_last_bit(name: str) -> None:
    """Through JSON: copies, zigzags and pairs."""
    plan = find_plan(with_request(four_ranks(8), schedules=(name,)))
    again = plan_from(plan.model_dump(mode="json"), "the plan")
    assert again == plan
    assert reprice(again) == plan.prediction
    assert plan.pipeline.copies == (2 if name in ("chimera", "bitpipe", "dualpipe") else 1)


def test_an_order_found_is_reported_apart() -> None:
    """Uneven ends and little memory: no named order fits the times, a found one is faster and says so."""
    request = with_budget(four_ranks(8, vocab=32_000), 45 * GIB)
    named = find_plan(request)
    found = find_plan(with_request(request, synthesize=True))
    assert found.prediction.step_time_s.mean < named.prediction.step_time_s.mean
    assert found.pipeline.schedule == "auto"
    assert found.notes[0].startswith("The order of passes was found for these times")
    assert found.certificate.evaluated == named.certificate.evaluated
    assert plan_command(found) == "The order of passes was found (auto): it is in the plan's file alone."
    assert plan_command(named).startswith("plan predict ")
    assert f"--schedule {named.pipeline.schedule}" in plan_command(named)
    assert reprice(plan_from(found.model_dump(mode="json"), "the plan")) == found.prediction


def test_a_found_order_is_no_schedule_to_predict_with(tmp_path: Path) -> None:
    """The file's layout may be priced under a schedule that is named."""
    request = four_ranks(8, vocab=32_000, schedules=("1f1b",))
    found = find_plan(with_request(with_budget(request, 45 * GIB), synthesize=True))
    path = tmp_path / "plan.json"
    path.write_text(found.model_dump_json())
    given = GivenLayout.read(str(path))
    with pytest.raises(InvalidSpec, match="schedule 'auto': the plan's order of passes was found"):
        given.complete(4, 8, request.runtime)
    assert given.override(schedule="1f1b").complete(4, 8, request.runtime) == found.layout
