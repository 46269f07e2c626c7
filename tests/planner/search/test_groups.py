"""The search over unlike groups of nodes against all placements there are, and what it makes of unequal devices."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import pytest
from exhaustive import ROUNDING
from small_instances import build_model
from small_mixed import AMPLE, best_of_all, build_mixed, group_of, join, random_mixed, run_of, splits

from costmodel.catalog.devices import load_device
from costmodel.schema.errors import Infeasible
from costmodel.schema.plan import Plan
from planner.binding import what_binds
from planner.constraints import LayerPin
from planner.evaluate import Evaluated, evaluate
from planner.mixed import group_of_ranks
from planner.placement import Placement
from planner.problem import Problem
from planner.search import find_plan
from planner.search.groups.best_first import search_mixed
from planner.search.groups.floors import estimate_after_s
from planner.search.groups.space import enumerate_mixed
from planner.search.groups.tight import tighten
from planner.sensitivity import sweep


def claims(evaluated: Evaluated) -> np.ndarray:
    return evaluated.priced.memory.claim[0]


@pytest.mark.parametrize("seed", range(10))
def test_a_placement_is_the_best_of_all_splits(seed: int) -> None:
    """Three layouts each, with memory ample and short."""
    draw = Random(seed)
    run = run_of(random_mixed(seed), 3, draw)
    for row in range(len(run.rows)):
        ample = best_of_all(run, row, (AMPLE, AMPLE))
        assert ample is not None
        largest = [max(claims(ample)[np.array(ample.homes) == home]) for home in (0, 1)]
        for budgets in ((AMPLE, AMPLE), tuple(draw.choice((0.4, 0.7, 1.001)) * most for most in largest)):
            best = best_of_all(run, row, budgets)
            run.budgets = budgets
            placed = run.place(row, float("inf"))
            if best is None:
                assert placed.evaluated is None
                assert not placed.slower
                continue
            assert placed.evaluated is not None, best.placement
            assert run.bounds[row] <= best.step_time_s * ROUNDING
            assert placed.bound_s <= best.step_time_s * (1.0 + 1e-6), best.placement
            assert best.step_time_s / ROUNDING <= placed.evaluated.step_time_s <= best.step_time_s * 1.01
            for home, budget in enumerate(budgets):
                assert max(claims(placed.evaluated)[np.array(best.homes) == home]) <= budget * ROUNDING
            again = run.place(row, placed.step_s * 1.0001)
            assert again.evaluated is not None, "a limit above its own time made the placement disappear"
            slow = run.place(row, placed.bound_s * 0.99)
            assert slow.evaluated is None
            assert slow.slower


@pytest.mark.parametrize("seed", range(100, 110))
def test_no_random_placement_beats_the_bounds(seed: int) -> None:
    """3 layouts x 2 placements each, against the floor and tight bounds of ample and of just enough memory."""
    draw = Random(seed)
    run = run_of(random_mixed(seed), 3, draw)
    rows, problem = run.rows, run.problem
    after_s = estimate_after_s(rows, run.policies)
    total = len(problem.kinds)
    for row in range(len(rows)):
        one = rows.take(np.array([row]))
        for _ in range(2):
            ranges = draw.choice(list(splits(total, len(one.homes), problem.setting.runtime)))
            lengths = tuple(stop - start for start, stop in ranges)
            chosen, policies = draw.random() < 0.5, draw.choice(run.sets)
            dealt = tuple(draw.choice(policies) for _ in range(total)) if chosen else (draw.choice(policies),) * total
            placement = Placement(one.layouts.row(0), one.layouts.schedule_name(0), lengths, dealt)
            evaluated = evaluate(problem, placement, layers=one.tables)
            step_s, homes = evaluated.step_time_s, np.array(one.homes)
            assert run.bounds[row] <= step_s * ROUNDING, placement
            enough = tuple(float(claims(evaluated)[homes == home].max()) for home in (0, 1))
            for budgets, best_s in (((AMPLE, AMPLE), step_s * 2.0), (enough, step_s * 1.001)):
                floor_s = run.bounds[[row]]
                bound = tighten(one, run.policies, budgets, floor_s, after_s[[row]], best_s)[0]
                assert bound <= step_s * ROUNDING, (placement, budgets)


@pytest.mark.parametrize("seed", [200, 202, 203, 204])
def test_the_answer_is_the_best_of_the_whole_space(seed: int) -> None:
    request = replace(random_mixed(seed), gap=0.0, fixed={"micro_batch_size": 1, "schedule": "1f1b", "tp": 1})
    problem = Problem.from_request(request)
    outcome, run = search_mixed(request, problem)
    if run is None:
        return
    best = [best_of_all(run, row, run.budgets) for row in range(len(run.rows))]
    fastest_s = min((one.step_time_s for one in best if one is not None), default=None)
    if fastest_s is None:
        assert outcome.best is None
        return
    assert outcome.best is not None
    assert outcome.bound_s <= fastest_s * ROUNDING
    assert fastest_s / ROUNDING <= outcome.best.step_time_s <= fastest_s * (1.0 + 2e-3)
    assert not outcome.stopped


DEEP = build_model(num_layers=16, hidden=2048, vocab=1000)
TWO = join(group_of("h100", 1, 4), group_of("a100-80g", 1, 8))


def test_faster_devices_take_more_layers() -> None:
    """The same layout under an even split takes longer."""
    request = build_mixed(DEEP, TWO, global_batch_size=64, seq_len=4096, top=1, schedules=("1f1b",))
    plan = find_plan(request)
    devices = [stage.device for stage in plan.prediction.memory.per_stage]
    by_device = {name: [] for name in devices}
    for device, layers in zip(devices, plan.pipeline.layers_per_stage, strict=True):
        by_device[device].append(layers)
    assert min(by_device["h100"]) > max(by_device["a100-80g"])
    assert plan.certificate.gap is not None
    assert plan.certificate.gap < 0.03
    even = 16 // plan.layout.pp
    lengths = (even,) * (plan.layout.pp - 1) + (16 - even * (plan.layout.pp - 1),)
    policies = tuple(0 for _ in plan.layers)
    split = evaluate(Problem.from_plan(plan), Placement(plan.layout, plan.pipeline.schedule, lengths, policies))
    assert split.step_time_s > 1.1 * plan.prediction.step_time_s.mean


def test_a_plan_of_the_search_prices_again_to_itself() -> None:
    from planner.assemble import reprice

    plan = find_plan(build_mixed(DEEP, TWO, top=1, fixed={"micro_batch_size": 1, "schedule": "zb-h1"}))
    again = Plan.load_json(plan.model_dump_json(), "the plan")
    assert reprice(again) == plan.prediction
    assert {one.name for one in plan.certificate.relaxations} == {"overlap", "policies", "mixes", "stages", "paths"}
    assert any("Layers by group of nodes" in note for note in plan.notes)
    assert any("alone would take at least" in note for note in plan.notes)


def test_a_group_that_slows_the_other_down_is_named() -> None:
    """One V100 beside eight H100: stages of one device, nine of them, for little."""
    cluster = join(group_of("h100", 1, 8), group_of("v100-16g", 1, 1))
    plan = find_plan(build_mixed(DEEP, cluster, top=1, schedules=("1f1b",)))
    said = [note for note in plan.notes if "8 h100 alone would be faster" in note]
    assert len(said) == 1
    assert not any("v100-16g alone would be faster" in note for note in plan.notes)


def test_the_group_with_more_memory_comes_first() -> None:
    """Under 1F1B earlier ranks keep more micro-batches: the other order has to recompute."""
    roomy, tight = load_device("a100-80g"), load_device("a100-40g")
    cluster = join(group_of("a100-80g", 1, 4), group_of("a100-40g", 1, 4))
    fixed = {"tp": 1, "dp_shard": 1, "dp_replicate": 1, "micro_batch_size": 1, "schedule": "1f1b"}
    request = build_mixed(
        build_model(num_layers=24, hidden=2048, vocab=1000), cluster, seq_len=16384, global_batch_size=64,
        devices=(roomy, tight), fixed=fixed, forbidden=frozenset({"activation_offload"}),
    )  # fmt: skip
    run = search_mixed(request, Problem.from_request(request))[1]
    assert run is not None
    placed = {int(run.rows.layouts.first_group[row]): run.place(row, float("inf")) for row in range(len(run.rows))}
    ahead, behind = placed[0].evaluated, placed[1].evaluated
    assert ahead is not None
    assert behind is not None
    assert ahead.step_time_s < 0.99 * behind.step_time_s
    assert sum(policy > 0 for policy in ahead.placement.policies) < sum(p > 0 for p in behind.placement.policies)
    assert find_plan(request).layout.first_group == 0


def test_nothing_fits_over_both_groups() -> None:
    """Two 16 GB devices have no room for what four H100 hold."""
    cluster = join(group_of("h100", 1, 4), group_of("v100-16g", 2, 4))
    model = build_model(num_layers=8, hidden=8192, vocab=256000)
    small = load_device("v100-16g").model_copy(update={"memory_bytes": 4e9})
    request = build_mixed(model, cluster, devices=(load_device("h100"), small), fixed={"tp": 1})
    with pytest.raises(Infeasible, match=r"does not fit on 4 h100 \+ 8 v100-16g") as raised:
        find_plan(request)
    assert raised.value.hint


def test_no_stage_divides_both_groups() -> None:
    cluster = join(group_of("h100", 1, 3), group_of("a100-80g", 1, 8))
    with pytest.raises(Infeasible, match=r"no layout of dense exists on 3 h100 \+ 8 a100-80g .* must divide 1"):
        find_plan(build_mixed(build_model(num_layers=8), cluster))


def test_three_groups_turn_round() -> None:
    """Whichever is first, the others follow in the file's order; the slowest takes fewest layers."""
    cluster = join(group_of("h200", 1, 2), group_of("h100", 1, 2), group_of("a100-80g", 1, 2))
    fixed = {"tp": 2, "micro_batch_size": 1, "schedule": "1f1b"}
    request = build_mixed(DEEP, cluster, fixed=fixed, global_batch_size=64, seq_len=4096, top=0)
    layouts = enumerate_mixed(request)
    assert set(layouts.first_group.tolist()) == {0, 1, 2}
    homes = [group_of_ranks(cluster, layouts.row(row)) for row in range(len(layouts))]
    assert set(homes) == {(0, 1, 2), (1, 2, 0), (2, 0, 1)}
    plan = find_plan(request)
    devices = [stage.device for stage in plan.prediction.memory.per_stage]
    held = dict(zip(devices, plan.pipeline.layers_per_stage, strict=True))
    assert held["a100-80g"] < min(held["h100"], held["h200"])


def test_what_the_user_pins_holds_over_groups() -> None:
    asked = {"tp": 4, "schedule": "1f1b", "micro_batch_size": 1}
    first = find_plan(build_mixed(DEEP, TWO, top=0, fixed=asked | {"first_group": 1}))
    assert first.layout.first_group == 1
    lengths = find_plan(build_mixed(DEEP, TWO, top=0, fixed=asked | {"layers_per_stage": (4, 6, 6)}))
    assert lengths.pipeline.layers_per_stage == (4, 6, 6)
    assert lengths.prediction.step_time_s.mean > first.prediction.step_time_s.mean
    pinned = find_plan(build_mixed(DEEP, TWO, top=0, fixed=asked, pins=(LayerPin("recompute", 0, 1, "full"),)))
    assert [layer.recompute for layer in pinned.layers[:3]] == ["full", "full", "none"]


def test_a_changed_machine_is_searched_as_several_kinds() -> None:
    plan = find_plan(build_mixed(DEEP, TWO, top=0, fixed={"tp": 4, "schedule": "1f1b", "micro_batch_size": 1}))
    (found,) = sweep(plan, (("compute", 2.0),)).outcomes
    assert found.best_step_time_s is not None
    assert 0.4 < found.best_step_time_s / plan.prediction.step_time_s.mean < 0.95


def test_memory_that_binds_is_the_ranks_own() -> None:
    """Of 80 GB beside 40 GB the smaller device is named, though the larger holds more."""
    cluster = join(group_of("a100-80g", 1, 2), group_of("a100-40g", 1, 2))
    fixed = {"tp": 1, "dp_shard": 1, "dp_replicate": 1, "micro_batch_size": 1, "schedule": "1f1b", "first_group": 1}
    model = build_model(num_layers=12, hidden=4096, vocab=1000)
    plan = find_plan(build_mixed(model, cluster, seq_len=8192, fixed=fixed, top=0))
    memory = next(one for one in what_binds(plan) if one.rule == "memory")
    rank = int(memory.says.split(" on rank ")[1].split(",")[0])
    assert plan.prediction.memory.per_stage[rank].device == "a100-40g"
