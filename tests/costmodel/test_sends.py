"""What sends between pipeline stages cost: the rank that waits, the gather behind, the step they lengthen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pricing import make_problem, price_uniform

from costmodel.collectives import estimate_collective_s
from costmodel.even_split import even_split
from costmodel.layer_table import price_layers
from costmodel.layouts import Layouts
from costmodel.pipeline import count_sends, edge_bytes, estimate_busy_share, estimate_makespan_s
from costmodel.schema.layout import Layout
from costmodel.schema.schedule import PassKind
from planner.evaluate import evaluate, stage_times
from planner.placement import Placement
from planner.problem import Problem
from planner.schedules import build_schedule
from planner.simulator import StageTimes, simulate


def problem_of(runtime: str = "megatron-2021", **changes: object) -> Problem:
    """GPT-3 on 96 A100 under a runtime with other rules."""
    problem = make_problem("gpt3-175b", 96, gpu="a100-80g", runtime=runtime, precision="fp16", global_batch_size=48)
    overlap = problem.setting.runtime.overlap.model_copy(
        update={key: value for key, value in changes.items() if key.startswith("pipeline")}
    )
    whole = {key: value for key, value in changes.items() if not key.startswith("pipeline")}
    changed = problem.setting.runtime.model_copy(update={**whole, "overlap": overlap})
    return replace(problem, setting=replace(problem.setting, runtime=changed))


def layouts_of(schedule: str = "1f1b", pp: int = 12, tp: int = 8, vpp: int = 1, sequence: bool = False) -> Layouts:
    layout = Layout(pp=pp, tp=tp, vpp=vpp, num_microbatches=48, sequence_parallel=sequence)
    return Layouts.from_rows([(layout, schedule)])


@pytest.mark.parametrize(
    ("schedule", "pp", "vpp"), [("gpipe", 3, 1), ("1f1b", 4, 1), ("interleaved-1f1b", 4, 2), ("zb-h1", 4, 1)]
)
def test_every_pass_that_has_a_neighbour_sends(schedule: str, pp: int, vpp: int) -> None:
    """Counted in the schedule: forwards before the last stage, backwards behind the first."""
    activations, gradients = count_sends(layouts_of(schedule, pp, vpp=vpp), np.arange(pp)[None])
    for rank, order in enumerate(build_schedule(schedule, pp, 8, vpp).orders):
        forwards = [step for step in order if step.kind is PassKind.FORWARD and step.stage < pp * vpp - 1]
        backwards = [step for step in order if step.kind in (PassKind.BACKWARD, PassKind.INPUT_GRAD) and step.stage > 0]
        assert len(forwards) == 8 * activations[0, rank]
        assert len(backwards) == 8 * gradients[0, rank]


@pytest.mark.parametrize("waits_s", [0.0, 0.05, 0.4])
def test_two_equal_stages_that_block_take_as_long_as_the_closed_form(waits_s: float) -> None:
    """Rank 0 sends activations, rank 1 gradients: every period is F + B + c, and nothing hides it."""
    forward_s = np.array([[1.0 + waits_s, 1.0]])
    backward_s = np.array([[2.0, 2.0 + waits_s]])
    layouts = Layouts.from_rows([(Layout(pp=2, num_microbatches=6), "1f1b")])
    ones, none = np.ones((1, 2), np.int64), np.zeros(1)
    estimate = estimate_makespan_s(layouts, forward_s, backward_s, np.zeros((1, 2)), ones, none)
    times = StageTimes(forward_s[0], backward_s[0], np.zeros(2))
    assert simulate(build_schedule("1f1b", 2, 6, 1), times).makespan_s == pytest.approx(estimate[0], rel=1e-12)
    assert estimate[0] == pytest.approx(7.0 * (3.0 + waits_s))


@pytest.mark.parametrize(
    ("schedule", "vpp", "rules", "share"),
    [
        ("1f1b", 1, {"pipeline": 0.0}, 1.0),
        ("1f1b", 1, {"pipeline": 1.0}, 0.0),
        ("1f1b", 1, {"pipeline": 0.0, "pipeline_interleaved": 0.9}, 1.0),
        ("interleaved-1f1b", 2, {"pipeline": 0.0, "pipeline_interleaved": 0.9}, 0.05),
        ("interleaved-1f1b", 2, {"pipeline": 0.4, "pipeline_interleaved": None}, 0.3),
    ],
)
def test_the_runtime_says_who_waits(schedule: str, vpp: int, rules: dict[str, float | None], share: float) -> None:
    """What occupies the sender and what merely delays its neighbour are one send, however it is shared out."""
    problem = problem_of(**rules)
    layouts = layouts_of(schedule, vpp=vpp)
    layers = price_layers(problem.setting, problem.network, layouts)
    assert estimate_busy_share(problem.setting, layouts) == pytest.approx([share])
    assert layers.busy_s == pytest.approx(share * layers.send_s)
    assert layers.busy_s + layers.edge_s == pytest.approx(layers.send_s)
    assert (layers.send_s > 0).all()


def test_receivers_of_shares_gather_them_in_their_node() -> None:
    """Tensor ranks that each sent an eighth gather the whole; under sequence parallelism an eighth is all they want."""
    problem = problem_of()
    setting, network = problem.setting, problem.network
    whole, split = layouts_of(), layouts_of(sequence=True)
    message = float(edge_bytes(setting, whole)[0])
    assert message == edge_bytes(setting, split)[0]
    gather_s = estimate_collective_s(network, "all_gather", 8.0 * message, 8, 1, setting.device.kernel_launch_s).item()
    sends = [float(price_layers(setting, network, one).send_s[0]) for one in (whole, split)]
    assert gather_s > 0
    assert sends[0] - sends[1] == pytest.approx(gather_s)


def test_taking_turns_doubles_the_messages_and_not_the_gather() -> None:
    layouts = layouts_of(sequence=True)
    both, one_way = (
        price_layers(problem.setting, problem.network, layouts).send_s
        for problem in (problem_of(one_way_sends=False), problem_of(one_way_sends=True))
    )
    assert one_way == pytest.approx(2.0 * both)


def test_nothing_is_sent_without_a_pipeline() -> None:
    problem = problem_of("megatron-deepspeed")
    layers = price_layers(problem.setting, problem.network, layouts_of(pp=1))
    assert layers.send_s == layers.busy_s == layers.edge_s == 0.0


@pytest.mark.parametrize(("schedule", "vpp"), [("1f1b", 1), ("interleaved-1f1b", 2), ("interleaved-1f1b", 4)])
def test_waiting_for_sends_never_makes_a_step_faster(schedule: str, vpp: int) -> None:
    """Simulated and in closed form; and with twelve stages every micro-batch of a middle rank gains two sends."""
    layouts = layouts_of(schedule, vpp=vpp)
    layout = layouts.row(0)
    placement = Placement(layout, schedule, tuple(even_split(96, 12 * vpp)), (0,) * 96)
    shares = [{"pipeline": share, "pipeline_interleaved": share} for share in (1.0, 0.5, 0.0)]
    problems = [problem_of(**share) for share in shares]
    evaluated = [evaluate(problem, placement) for problem in problems]
    simulated = [one.step_time_s for one in evaluated]
    closed = [float(price_uniform(problem, layouts).step_time_s[0]) for problem in problems]
    assert simulated == sorted(simulated)
    assert simulated[2] > simulated[0]
    assert closed == sorted(closed)
    free, blocked = (
        stage_times(one.priced.layers, placement, problem)
        for one, problem in ((evaluated[0], problems[0]), (evaluated[2], problems[2]))
    )
    busy_s = evaluated[2].priced.layers.busy_s[0]
    gained = blocked.pass_table_s()[:2] - free.pass_table_s()[:2]
    assert gained[0, :-1] == pytest.approx(busy_s)
    assert gained[1, 1:] == pytest.approx(busy_s)
    assert gained[0, -1] == gained[1, 0] == 0.0
