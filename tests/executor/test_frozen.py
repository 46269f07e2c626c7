"""A schedule with frozen passes in its bubbles runs them there, each micro-batch as the frozen model alone would."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from plans import build_plan
from reference import single_process
from worker_pool import WorkerPool

from costmodel.schema.errors import InvalidSpec
from costmodel.schema.layout import Layout
from executor.capabilities import check_runnable
from planner.schedules import build_schedule
from planner.schedules.bubble_filling import fill_bubbles
from planner.simulator import StageTimes

MICROBATCHES = 6


@pytest.mark.parametrize("name", ["1f1b", "zb-h1"])
def test_pieces_run_where_the_bubbles_are(name: str, workers: Callable[[int], WorkerPool]) -> None:
    layout = Layout(pp=4, num_microbatches=MICROBATCHES)
    plan = build_plan(layout, schedule=name)
    filled = fill_bubbles(build_schedule(name, 4, MICROBATCHES), StageTimes.uniform(4, 1, 1, 1), [0.5, 1.0, 0.25])
    assert any("FROZEN" in str(order[0]) for order in filled.orders)
    loss, _ = single_process(plan)
    done: dict[int, float] = {}
    for order, (ran, measured, errors) in zip(
        filled.to_text().values(),
        workers(4).run("frozen_passes", plan=plan.model_dump_json(), passes=filled.to_text()),
        strict=True,
    ):
        assert ran == order.split()
        assert measured == pytest.approx(loss, rel=1e-9)
        assert not done.keys() & errors.keys(), "a micro-batch is run once"
        done |= errors
    assert done == dict.fromkeys(range(MICROBATCHES), 0.0)


def test_a_plan_carries_no_frozen_model() -> None:
    filled = fill_bubbles(build_schedule("1f1b", 2, 4), StageTimes.uniform(2, 1, 1, 1), [1.0])
    plan = build_plan(Layout(pp=2, num_microbatches=4), schedule=filled)
    with pytest.raises(InvalidSpec, match=r"pipeline\.passes has FROZEN_F, and the executor runs F, B"):
        check_runnable(plan)
