"""A curve is so many single searches; what is chosen on it, and what is kept when it is interrupted."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from costmodel.schema.errors import Infeasible, InvalidSpec, SolverTimeout
from costmodel.schema.plan import Plan
from planner.decisions.curve import Curve, Point, check_answered, choose, pareto_front, scan
from planner.decisions.document import to_document
from planner.decisions.less_memory import with_memory_share
from planner.decisions.question import Question
from planner.request import Request, build_request
from planner.search import find_plan

COUNTS = (1, 2, 4)


def ask(devices: int, batch: int | None = None) -> Request:
    return build_request("tiny", devices, gpu="h100", global_batch_size=batch, calibration="none", fix=["pp=1"])


@cache
def tiny_curve() -> Curve:
    return scan(find_plan, ask, COUNTS, Question(tokens=1e9))


def without_clock(plan: Plan) -> dict[str, Any]:
    document = plan.model_dump(exclude={"training"})
    document["certificate"].pop("wall_s")
    return document


def test_each_point_is_what_the_single_search_finds() -> None:
    for point in tiny_curve().points:
        assert point.plan is not None
        assert without_clock(point.plan) == without_clock(find_plan(ask(point.devices)))


def test_the_run_follows_from_the_step() -> None:
    for point in tiny_curve().points:
        plan, training = point.answer
        steps = -(-(10**9) // plan.workload.tokens_per_step)
        assert training.steps == steps
        assert training.time_s.mean * training.goodput.share == pytest.approx(steps * plan.prediction.step_time_s.mean)
        assert training.device_hours == pytest.approx(training.time_s.mean * point.devices / 3600)
        assert training.time_s.low < training.time_s.mean < training.time_s.high


def test_goodput_falls_with_the_number_of_devices() -> None:
    shares = [point.answer[1].goodput.share for point in tiny_curve().points]
    assert shares == sorted(shares, reverse=True)


def test_the_document_has_every_figure_and_reads_back() -> None:
    document = to_document(tiny_curve())
    assert [point.num_devices for point in document.points] == list(COUNTS)
    assert document.chosen == choose(tiny_curve().points, Question()).devices  # type: ignore[union-attr]
    assert type(document).load_json(document.model_dump_json(), "the curve") == document


def test_an_interruption_keeps_what_was_found() -> None:
    def find(request: Request, on_progress: Any) -> Plan:
        if request.cluster.num_devices == 4:
            raise KeyboardInterrupt
        return find_plan(request, on_progress)

    curve = scan(find, ask, COUNTS, Question())
    assert curve.interrupted
    assert [point.devices for point in curve.points] == [1, 2]
    with pytest.raises(KeyboardInterrupt):
        scan(find, ask, (4, 8), Question())


def test_less_memory_is_tried_until_nothing_fits(searching: Any, ask: Any) -> None:
    """A slower step in less memory, nothing in a quarter of it; half, which changes nothing, is left out."""
    free = searching(lambda devices, batch: 1.0)
    whole = ask(1, None).device.memory_bytes

    def find(request: Request, on_progress: Any = None) -> Plan:
        share = request.device.memory_bytes / whole
        assert request.free_bytes == pytest.approx((1 - share) * whole)
        if share < 0.3:
            raise Infeasible("no room")
        plan: Plan = free(request)
        step_s = plan.prediction.step_time_s.model_copy(update={"mean": 1.0 if share > 0.8 else 1.1})
        memory = plan.prediction.memory.model_copy(update={"peak_bytes_per_device": 2e10 if share > 0.8 else 1e10})
        prediction = plan.prediction.model_copy(update={"step_time_s": step_s, "memory": memory})
        return plan.model_copy(update={"prediction": prediction})

    curve = scan(find, ask, (1, 2), Question(), memory_shares=(1.0, 0.75, 0.5, 0.25))
    assert [(point.devices, point.memory_share) for point in curve.points] == [(1, 1.0), (1, 0.75), (2, 1.0), (2, 0.75)]
    # Two devices are no faster here and cost twice as much.
    assert pareto_front(curve.points) == list(curve.points[:2])
    assert [point.on_pareto_front for point in to_document(curve).points] == [True, True, False, False]


def test_in_part_of_the_memory_the_plan_is_that_of_free_memory() -> None:
    def ask_tiny(devices: int | None, batch: int | None, free_memory: str | None = None) -> Request:
        fix = ["pp=1,tp=1,zero_stage=0"]
        return build_request("tiny", devices, gpu="h100", calibration="none", fix=fix, free_memory=free_memory)

    share = 1 - 40 * 2**30 / ask_tiny(1, None).device.memory_bytes
    ours = find_plan(with_memory_share(ask_tiny, share)(1, None))
    theirs = find_plan(ask_tiny(1, None, "40GiB"))
    assert ours.layout == theirs.layout
    assert ours.prediction.memory.capacity_bytes == pytest.approx(theirs.prediction.memory.capacity_bytes)
    assert ours.constraints.free_bytes == pytest.approx(theirs.constraints.free_bytes)


def test_a_number_without_a_plan_has_its_sentence() -> None:
    def find(request: Request, on_progress: Any) -> Plan:
        raise SolverTimeout("no time") if request.cluster.num_devices == 2 else Infeasible("no room")

    curve = scan(find, ask, (2, 4), Question())
    assert [(point.plan, point.why_not) for point in curve.points] == [(None, "no time"), (None, "no room")]
    with pytest.raises(Infeasible) as caught:
        check_answered(curve, Question())
    assert caught.value.reasons == ("2 GPUs: no time", "4 GPUs: no room")


def test_fixed_degrees_that_do_not_divide_are_a_reason_and_half_nodes_a_mistake() -> None:
    def fixed(devices: int, batch: int | None) -> Request:
        return build_request("tiny", devices, gpu="h100", calibration="none", fix=["tp=4", "pp=1"])

    curve = scan(find_plan, fixed, (2, 4), Question())
    assert curve.points[0].why_not is not None
    assert curve.chosen is curve.points[1]
    with pytest.raises(InvalidSpec, match="12"):
        scan(find_plan, ask, (8, 12), Question())


def point(make_plan: Any, devices: int, time_s: float, memory_bytes: float = 1e9, cost: float | None = None) -> Point:
    """A point of given figures."""
    interval = {"mean": time_s, "low": time_s, "high": time_s}
    goodput = dict.fromkeys(
        ("checkpoint_share", "lost_share", "restart_share", "checkpoint_bytes", "checkpoint_stall_s",
         "checkpoint_write_s", "restart_s"), 0.0
    ) | {"share": 1.0, "device_mtbf_s": 1.0, "mtbf_s": 1.0, "interval_s": 1.0}  # fmt: skip
    training = {
        "tokens": 1e9, "steps": 1, "time_s": interval, "device_hours": devices * time_s / 3600, "goodput": goodput,
        "cost": cost,
    }  # fmt: skip
    memory = {"peak_bytes_per_device": memory_bytes}
    return Point(devices, make_plan(training=training, prediction={"memory": memory}))


def test_what_is_chosen(make_plan: Any) -> None:
    points = [
        point(make_plan, 8, 100.0),
        point(make_plan, 16, 49.0),
        Point(24, why_not="no"),
        point(make_plan, 32, 40.0),
    ]
    assert choose(points, Question()) is points[3]
    priced = [point(make_plan, 8, 100.0, cost=8.0), point(make_plan, 16, 49.0, cost=7.84)]
    assert choose([*priced, point(make_plan, 32, 40.0, cost=12.8)], Question(price_per_device_hour=2.0)) is priced[1]
    assert choose(points, Question(tokens=1e9, deadline_s=60)) is points[1]
    late = Question(tokens=1e9, deadline_s=10)
    assert choose(points, late) is None
    with pytest.raises(Infeasible, match=r"fastest, 32 GPUs"):
        check_answered(Curve(tuple(points)), late)


def test_the_front_leaves_out_what_another_point_beats_in_everything(make_plan: Any) -> None:
    points = [
        point(make_plan, 8, 100.0, 5e9),
        point(make_plan, 16, 60.0, 5e9),
        point(make_plan, 24, 61.0, 6e9),
        point(make_plan, 32, 61.0, 4e9),
        Point(64, why_not="no"),
    ]
    assert pareto_front(points) == [points[0], points[1], points[3]]
