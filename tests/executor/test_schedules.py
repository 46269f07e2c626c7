"""Every registered schedule runs as it stands, with one process's losses and gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from orders import gathered, one_by_one
from plans import build_plan, small_model
from test_parity import assert_parity
from worker_pool import WorkerPool

from costmodel.schema.layout import Layout
from costmodel.schema.plan import Plan
from planner.schedules import SCHEDULES, build_schedule

TWO_WAY = [name for name, kind in SCHEDULES.items() if kind.copies > 1]


def plan_of(name: str, pp: int, num_microbatches: int, **options: Any) -> Plan:
    """A plan with one layer more than stages, so that stages are unequal."""
    kind = SCHEDULES[name]
    layout = Layout(pp=pp, vpp=kind.vpp, num_microbatches=num_microbatches, **options.pop("degrees", {}))
    model = small_model(pp * kind.vpp + 1, tied=options.pop("tied", False))
    return build_plan(layout, model=model, schedule=name, **options)


@pytest.mark.parametrize("recompute", ["none", "full"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_gradients_are_those_of_one_process(name: str, recompute: str, workers: Callable[[int], WorkerPool]) -> None:
    assert_parity(plan_of(name, 4, 8, recompute=(recompute,)), workers(4))


@pytest.mark.parametrize("name", [name for name in SCHEDULES if SCHEDULES[name].allows(4, 3, SCHEDULES[name].vpp)])
def test_fewer_microbatches_than_ranks(name: str, workers: Callable[[int], WorkerPool]) -> None:
    assert_parity(plan_of(name, 4, 3), workers(4))


BESIDE = [{"dp_shard": 2, "zero_stage": 3}, {"dp_replicate": 2}, {"tp": 2}]


@pytest.mark.parametrize("degrees", BESIDE, ids=["zero3", "replicate", "tp"])
@pytest.mark.parametrize("name", ["zb-h1", "hanayo", "zeropp", "dualpipe", "chimera"])
def test_beside_data_and_tensor_parallelism(
    name: str, degrees: dict[str, int], workers: Callable[[int], WorkerPool]
) -> None:
    assert_parity(plan_of(name, 2, 4, degrees=degrees, recompute=("full", "none")), workers(4))


@pytest.mark.parametrize("zero_stage", [1, 2, 3])
@pytest.mark.parametrize("name", ["1f1b", "zb-h1"])
def test_gathers_and_reductions_stand_where_the_schedule_says(
    name: str, zero_stage: int, workers: Callable[[int], WorkerPool]
) -> None:
    schedule = gathered(build_schedule(name, 2, 4))
    layout = Layout(pp=2, dp_shard=2, zero_stage=zero_stage, num_microbatches=4)
    assert_parity(build_plan(layout, schedule=schedule), workers(4))


@pytest.mark.parametrize("name", ["1f1b", "hanayo", "dualpipe-v", *TWO_WAY])
def test_tied_ends_share_their_gradient(name: str, workers: Callable[[int], WorkerPool]) -> None:
    """Both ends on one rank (hanayo, dualpipe-v), on two, and two of each (two directions)."""
    assert_parity(plan_of(name, 4, 8, tied=True), workers(4))


@pytest.mark.parametrize(
    "degrees", [{"dp_shard": 2, "zero_stage": 3}, {"tp": 2}, {"tp": 2, "sequence_parallel": False}]
)
@pytest.mark.parametrize("name", ["hanayo", "dualpipe"])
def test_tied_ends_that_are_split(name: str, degrees: dict[str, Any], workers: Callable[[int], WorkerPool]) -> None:
    assert_parity(plan_of(name, 2, 4, tied=True, degrees=degrees), workers(4))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    ("placement", "copies"),
    [((0, 1, 0, 1), 2), ((0, 0, 1, 1, 1, 0), 1), ((1, 0, 0, 1, 0, 1, 1, 0), 2), ((1, 1, 0, 0, 0, 1), 2)],
    ids=str,
)
def test_any_placement(
    placement: tuple[int, ...], copies: int, tied: bool, workers: Callable[[int], WorkerPool]
) -> None:
    schedule = one_by_one(placement, 3, copies)
    layout = Layout(pp=2, vpp=schedule.stages_per_copy // 2 or 1, num_microbatches=3)
    plan = build_plan(layout, model=small_model(schedule.stages_per_copy, tied=tied), schedule=schedule)
    assert_parity(plan, workers(2))


@pytest.mark.parametrize(
    ("name", "degrees"),
    [
        ("interleaved-1f1b", {"dp_shard": 2, "zero_stage": 3}),
        ("zb-v", {"dp_shard": 2, "zero_stage": 3}),
        ("dualpipe-v", {"tp": 2}),
    ],
)
def test_ends_without_layers(name: str, degrees: dict[str, Any], workers: Callable[[int], WorkerPool]) -> None:
    """The first stage is the embedding, the last one the norm and the head, on two ranks or together on one."""
    layout = Layout(pp=2, vpp=2, num_microbatches=4, **degrees)
    plan = build_plan(layout, model=small_model(2), schedule=name, lengths=(0, 1, 1, 0))
    assert_parity(plan, workers(4))
