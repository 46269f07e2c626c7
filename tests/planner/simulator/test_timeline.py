"""Makespans, bubbles and rows of times: properties that hold for any schedule, and cases worked by hand."""

from __future__ import annotations

import gc
import weakref
from dataclasses import fields, replace
from itertools import pairwise

import numpy as np
import pytest
from generated import cases
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodel.schema.schedule import Schedule
from planner.schedules import build_schedule
from planner.schedules.report import rank_times
from planner.simulator import FrozenTimes, Simulation, StageTimes, VocabTimes, simulate, simulate_many
from planner.simulator.graph import graph_of

unhurried = settings(deadline=None, max_examples=60)

Case = tuple[Schedule, StageTimes]
Factor = np.ndarray | float


def scaled(times: StageTimes, by: Factor) -> StageTimes:
    """All times multiplied; ``by`` of shape [rows] makes rows of them."""
    return _scaled(times, by, ("edge_level",))


def _scaled(times: StageTimes | VocabTimes | FrozenTimes, by: Factor, kept: tuple[str, ...] = ()) -> StageTimes:
    changed = {}
    for field in fields(times):
        value = getattr(times, field.name)
        if isinstance(value, VocabTimes | FrozenTimes):
            changed[field.name] = _scaled(value, by)
        elif value is not None and field.name not in kept:
            changed[field.name] = value * (np.asarray(by)[..., None] if np.ndim(value) else by)
    return replace(times, **changed)


@unhurried
@given(st.one_of(cases(), cases(wires=True)), st.integers(1, 4))
def test_many_rows_equal_one_by_one(case: Case, rows: int) -> None:
    schedule, times = case
    factors = np.linspace(1, 2, rows)
    one_by_one = [simulate(schedule, scaled(times, factor)).makespan_s for factor in factors.tolist()]
    np.testing.assert_allclose(simulate_many(schedule, scaled(times, factors)), one_by_one, rtol=1e-12, atol=1e-12)
    assert simulate_many(schedule, times).shape == ()


def test_many_rows_in_several_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = build_schedule("zb-h1", 3, 5)
    times = StageTimes(np.linspace(1, 2, 21).reshape(7, 3), 1.0, 1.0, edge_s=np.arange(14.0).reshape(7, 2))
    whole = simulate_many(schedule, times)
    monkeypatch.setattr("planner.simulator.longest_path._BATCH_BYTES", 2 * 8 * 48)
    np.testing.assert_array_equal(simulate_many(schedule, times), whole)
    assert simulate_many(schedule, StageTimes(np.ones((0, 3)), 1.0, 1.0)).shape == (0,)


@unhurried
@given(cases(wires=True), st.sampled_from(["forward_s", "weight_grad_s", "edge_s", "wire_s", "gather_s", "reduce_s"]))
def test_slower_is_never_faster(case: Case, name: str) -> None:
    schedule, times = case
    quick = replace(times, overlap_s=None, backward_s=None)
    slow = replace(quick, **{name: getattr(times, name) * 1.5 + 0.5})
    assert simulate(schedule, slow).makespan_s >= simulate(schedule, quick).makespan_s - 1e-9


@unhurried
@given(st.one_of(cases(), cases(wires=True)))
def test_shares_and_spans_fit_together(case: Case) -> None:
    simulation = simulate(*case)
    assert (simulation.busy_s <= simulation.span_s + 1e-9).all()
    assert (simulation.span_s <= simulation.makespan_s + 1e-9).all()
    assert -1e-9 <= simulation.span_bubble_fraction <= simulation.bubble_fraction + 1e-9 <= 1 + 1e-9


@unhurried
@given(cases(wires=True))
def test_simulation_is_linear_in_time(case: Case) -> None:
    schedule, times = case
    one, ten = simulate(schedule, times), simulate(schedule, scaled(times, 10.0))
    assert isinstance(one, Simulation)
    assert ten.makespan_s == pytest.approx(10 * one.makespan_s, abs=1e-9)
    assert ten.bubble_fraction == pytest.approx(one.bubble_fraction, abs=1e-9)


def test_nothing_takes_time() -> None:
    schedule = build_schedule("zb-h1", 2, 2)
    for cores in (None, 1):
        simulation = simulate(schedule, rank_times(schedule, 0, 0, 0, 0), shared_cores=cores)
        assert (simulation.makespan_s, simulation.bubble_fraction, simulation.span_bubble_fraction) == (0, 0, 0)


def test_graph_is_built_once_and_let_go() -> None:
    schedule = Schedule.from_text("own", 1, (0,), {"0": "0F0 0B0"})
    graph = graph_of(schedule)
    assert graph_of(schedule) is graph
    assert graph_of(schedule, ()) is not graph
    left = weakref.ref(graph)
    del schedule, graph
    gc.collect()
    assert left() is None


@unhurried
@given(st.one_of(cases(), cases(wires=True)))
def test_levels_hold_slots_that_do_not_wait_for_each_other(case: Case) -> None:
    schedule, times = case
    graph = graph_of(schedule, times.link_levels)
    bounds = enumerate(pairwise(graph.levels.tolist()))
    level = {slot: at for at, (start, end) in bounds for slot in graph.order[start:end].tolist()}
    empty = graph.first[:-1].tolist()
    assert sorted([*level, *empty]) == list(range(graph.first[-1]))
    for slot, own in level.items():
        assert level.get(slot - 1, -1) < own
        assert level.get(int(graph.awaited[slot]), -1) < own
