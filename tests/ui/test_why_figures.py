"""The Why page's figures without Streamlit: what is drawn is what the plan says."""

from __future__ import annotations

from collections import Counter

import numpy as np
import plotly.graph_objects as go
import pytest
from planned import CLUSTER, count_boxes, planned

from costmodel.schema.plan import Plan
from planner.evaluate import evaluate_plan
from planner.report.terms import label, terms_of
from planner.schedules import build_schedule
from planner.simulator import Simulation, StageTimes, simulate
from ui import charts
from ui.figures.passes import COMPUTE, read_passes
from ui.figures.timeline import LOOKS, drawn_at_once, window_at
from ui.schedules import try_schedules


@pytest.fixture(scope="module")
def pipelined() -> Plan:
    return planned(schedule="zb-h1", pp=4, dp_shard=4, global_batch_size=64)


@pytest.fixture(scope="module")
def mixed() -> Plan:
    return planned("llama-3.1-70b", None, cluster=CLUSTER, tp=4, pp=6, dp_shard=4, zero_stage=1, first_group=1)


def named(figure: go.Figure, name: str) -> list[go.Scatter]:
    return [trace for trace in figure.data if trace.name == name]


def test_solid_and_hatched_bars_are_the_terms(pipelined: Plan) -> None:
    figure = charts.step_time(pipelined)
    exposed, hidden = figure.data[:2]
    terms = {label(term.name): term for term in terms_of(pipelined.prediction.breakdown)}
    assert [terms[name].exposed_s for name in exposed.y] == list(exposed.x)
    assert [terms[name].hidden_s for name in hidden.y] == list(hidden.x)
    assert sum(exposed.x) == pytest.approx(pipelined.prediction.step_time_s.mean, rel=5e-3)


@pytest.mark.parametrize("which", ["pipelined", "mixed"])
def test_parts_of_memory_end_where_the_rank_does_and_each_device_has_its_own_line(
    which: str, request: pytest.FixtureRequest
) -> None:
    plan: Plan = request.getfixturevalue(which)
    figure = charts.memory(plan)
    ranks = plan.prediction.memory.per_stage
    together = np.sum([trace.x for trace in figure.data if isinstance(trace, go.Bar)], axis=0)
    assert together * 2**30 == pytest.approx([rank.device_bytes for rank in ranks])
    (line,) = named(figure, "what the device has")
    there = [rank.capacity_bytes or plan.prediction.memory.capacity_bytes for rank in ranks]
    assert np.array(line.x[::2]) * 2**30 == pytest.approx(there)
    assert len(set(line.x)) == len(plan.cluster.counts)


def simulated(name: str, pp: int, num_microbatches: int, vpp: int = 1, edge_s: float = 0.0) -> Simulation:
    schedule = build_schedule(name, pp, num_microbatches, vpp)
    each = np.full(schedule.num_stages, 1.0)
    times = StageTimes(
        forward_s=each, input_grad_s=each, weight_grad_s=each, recompute_s=0 * each, edge_s=edge_s,
        gather_s=0.5 * each, reduce_s=0.5 * each,
    )  # fmt: skip
    return simulate(schedule, times)


@pytest.mark.parametrize(
    ("name", "vpp"),
    [("1f1b", 1), ("interleaved-1f1b", 2), ("zb-v", 2), ("chimera", 1), ("dualpipe", 1), ("breadth-first+fsdp", 2)],
)
def test_every_pass_is_drawn_once_as_long_as_it_takes(name: str, vpp: int) -> None:
    simulation = simulated(name, 4, 8, vpp, edge_s=0.1)
    passes = read_passes(simulation.trace())
    figure = charts.timeline({"simulated": passes})
    drawn = Counter[str]()
    for words, _ in LOOKS.values():
        drawn[words] += sum(count_boxes(trace) for trace in named(figure, words))
    kinds = Counter(step.kind.value for order in simulation.schedule.orders for step in order)
    kinds.pop("RESHARD", None)
    assert {LOOKS[kind][0]: number for kind, number in kinds.items()} == {
        words: number for words, number in drawn.items() if number and words not in ("send", "collective")
    }
    assert drawn["send"] > 0
    works = passes.lane == COMPUTE
    took_s = np.bincount(passes.rank[works], (passes.finish_s - passes.start_s)[works])
    assert took_s == pytest.approx(simulation.busy_s)


def test_passes_and_collectives_of_a_split_vocabulary_are_drawn() -> None:
    degrees = {"pp": 4, "dp_shard": 4, "vocab_parallel": True, "global_batch_size": 32}
    plan = planned(schedule="1f1b-vocab-1", **degrees)
    figure = charts.timeline({"simulated": read_passes(evaluate_plan(plan).simulation.trace())})
    m, pp = plan.layout.num_microbatches, plan.layout.pp
    for words in ("embedding", "embedding's gradient", "output layer", "output layer's gradients"):
        assert [count_boxes(trace) for trace in named(figure, words)] == [m * pp]
    joint_products = 3
    assert [count_boxes(trace) for trace in named(figure, "collective")] == [joint_products * m * pp]


def test_a_long_step_is_drawn_in_part_and_the_rest_as_stretches() -> None:
    simulation = simulated("1f1b", 2, 1000)
    passes = read_passes(simulation.trace())
    for share in (0.0, 0.5, 1.0):
        window = window_at(passes, share)
        figure = charts.timeline({"simulated": passes}, window)
        one_by_one = sum(count_boxes(trace) for words in ("forward", "backward") for trace in named(figure, words))
        assert 0.9 * drawn_at_once(passes) < one_by_one <= drawn_at_once(passes) + 2 * passes.num_ranks
        start_s, finish_s, _ = passes.busy_outside(*window)
        inside = (passes.finish_s >= window.start_s) & (passes.start_s <= window.end_s)
        outside_s = (passes.finish_s - passes.start_s)[~inside].sum()
        assert (finish_s - start_s).sum() == pytest.approx(outside_s)
        assert len(start_s) < 20
    assert window_at(passes, 1.0).end_s == passes.end_s


def test_a_measured_trace_stands_above_the_simulated_one() -> None:
    passes = read_passes(simulated("1f1b", 2, 4).trace())
    figure = charts.timeline({"measured": passes, "simulated": passes})
    assert [note.text for note in figure.layout.annotations] == ["<b>measured</b>", "<b>simulated</b>"]
    assert list(figure.layout.yaxis.ticktext) == ["rank 0", "rank 1"] * 2
    assert sum(count_boxes(trace) for trace in named(figure, "forward")) == 2 * 8


def test_activations_peak_where_the_plan_says(mixed: Plan) -> None:
    evaluated = evaluate_plan(mixed)
    figure = charts.activations(evaluated, 0.0, evaluated.simulation.makespan_s)
    for trace in figure.data:
        rank = mixed.prediction.memory.per_stage[int(trace.name.removeprefix("rank "))]
        assert max(trace.y) * 2**30 == pytest.approx(rank.parts["activations"], rel=0.05)
        assert trace.y[-1] == pytest.approx(0.0, abs=1e-9)


def test_layers_are_cells_of_their_policy() -> None:
    plan = planned(schedule="interleaved-1f1b", recompute="full", pp=2, vpp=4, dp_shard=8, global_batch_size=64)
    figure = charts.layers(plan)
    (cells,) = named(figure, "recomputed")
    assert count_boxes(cells) == plan.model.num_layers
    assert [note.text for note in figure.layout.annotations] == [f"stage {stage}" for stage in range(8)]


def test_kinds_of_layer_are_told_apart() -> None:
    plan = planned("deepseek-v3", 64, ep=32, dp_shard=64, global_batch_size=64)
    figure = charts.layers(plan)
    kinds = Counter(layer.kind for layer in plan.layers)
    assert len(kinds) > 1
    assert {kind: count_boxes(named(figure, kind)[0]) for kind in kinds} == kinds


def test_time_on_the_wire_times_its_rate_is_what_is_sent(mixed: Plan) -> None:
    figure = charts.traffic(mixed)
    sent = mixed.prediction.network
    assert list(figure.data[0].y) == list(sent)
    by_name = {level.name: level for group in mixed.cluster.spec.groups for level in group.levels}
    by_name |= {level.name: level for level in mixed.cluster.spec.network}
    for name, taken_s in zip(sent, figure.data[0].x, strict=True):
        level = by_name[name]
        assert taken_s * level.bytes_per_s * level.efficiency / level.oversubscription == pytest.approx(sent[name])


def test_other_schedules_of_the_layout_are_what_they_would_be_alone(pipelined: Plan) -> None:
    every = try_schedules(pipelined)
    assert every[0].name == "zb-h1"
    assert every[0].evaluated.step_time_s == pytest.approx(pipelined.prediction.step_time_s.mean)
    times_s = {one.name: one.evaluated.step_time_s for one in every}
    assert set(times_s) <= set(pipelined.runtime_spec.schedules)
    for name in ("1f1b", "interleaved-1f1b"):
        degrees = {"pp": 4, "dp_shard": 4, "vpp": 2 if name.startswith("inter") else 1}
        alone = planned(schedule=name, global_batch_size=64, **degrees)
        assert times_s[name] == pytest.approx(alone.prediction.step_time_s.mean)


def test_without_a_pipeline_there_is_no_other_schedule() -> None:
    plan = planned(dp_shard=16, zero_stage=3)
    (itself,) = try_schedules(plan)
    assert itself.evaluated.step_time_s == pytest.approx(plan.prediction.step_time_s.mean)
