"""Closed forms of the pipeline against the simulator that counts: activations alive, gradients that wait."""

from __future__ import annotations

import numpy as np
import pytest

from costmodel.layouts import Layouts
from costmodel.pipeline import estimate_in_flight, estimate_pending, schedule_is_legal
from costmodel.schema.layout import Layout
from costmodel.schema.schedule import PassKind
from planner.schedules import build_schedule
from planner.simulator import StageTimes, simulate

SIZES = [(pp, m) for pp in (2, 3, 4, 8) for m in (1, 2, 4, 8, 24)]


def layouts_of(schedule: str, pp: int, m: int, vpp: int = 1) -> Layouts:
    return Layouts.from_rows([(Layout(pp=pp, vpp=vpp, num_microbatches=m), schedule)])


@pytest.mark.parametrize(("pp", "m"), SIZES)
@pytest.mark.parametrize("schedule", ["gpipe", "1f1b", "zb-h1"])
def test_in_flight_is_what_the_simulator_sees(schedule: str, pp: int, m: int) -> None:
    """gpipe m; 1f1b min(m, p-r); zb-h1 at most min(m, p), which the first rank reaches."""
    estimate = estimate_in_flight(layouts_of(schedule, pp, m), np.arange(pp)[None])[0]
    simulation = simulate(build_schedule(schedule, pp, m, 1), StageTimes(*np.ones((3, pp))))
    seen = simulation.peak_activations(1.0)
    if schedule == "zb-h1":
        assert (seen <= estimate).all()
        assert seen[0] == estimate[0]
    else:
        np.testing.assert_array_equal(seen, estimate)


@pytest.mark.parametrize(("pp", "vpp", "m"), [(2, 2, 4), (4, 2, 4), (4, 2, 16), (4, 3, 12), (8, 4, 32)])
def test_interleaved_in_flight_is_what_the_simulator_sees(pp: int, vpp: int, m: int) -> None:
    """In units of all of a rank's layers: a chunk is 1/v of them."""
    estimate = estimate_in_flight(layouts_of("interleaved-1f1b", pp, m, vpp), np.arange(pp)[None])[0]
    times = StageTimes(*np.full((3, pp * vpp), 1.0 / vpp))
    simulation = simulate(build_schedule("interleaved-1f1b", pp, m, vpp), times)
    np.testing.assert_allclose(simulation.peak_activations(1.0 / vpp), estimate)


@pytest.mark.parametrize(("pp", "m"), SIZES)
def test_pending_is_what_the_order_leaves_between_input_and_weight_gradient(pp: int, m: int) -> None:
    estimate = estimate_pending(layouts_of("zb-h1", pp, m), np.arange(pp)[None])[0]
    for rank, order in enumerate(build_schedule("zb-h1", pp, m, 1).orders):
        change = [(step.kind is PassKind.INPUT_GRAD) - (step.kind is PassKind.WEIGHT_GRAD) for step in order]
        assert np.cumsum(change).max() == estimate[rank]
    assert (estimate_pending(layouts_of("1f1b", pp, m), np.arange(pp)[None]) == 0.0).all()


def test_which_sizes_a_schedule_can_do() -> None:
    rows = {
        ("1f1b", 4, 1, 3): True,
        ("1f1b", 4, 2, 8): False,
        ("interleaved-1f1b", 4, 2, 8): True,
        ("interleaved-1f1b", 4, 2, 6): True,
        ("interleaved-1f1b", 4, 1, 8): False,
        ("interleaved-1f1b", 1, 2, 8): False,
        ("zb-h1", 4, 1, 8): True,
        ("zb-h1", 1, 1, 8): False,
        ("gpipe", 1, 1, 1): True,
    }
    layouts = Layouts.concatenate([layouts_of(name, pp, m, vpp) for name, pp, vpp, m in rows])
    assert schedule_is_legal(layouts).tolist() == list(rows.values())
