"""What the cost model knows of each schedule, against the order that is generated under its name."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodel.layouts import SCHEDULE_CODES, Layouts
from costmodel.pipeline import (
    count_copies,
    count_crossings,
    count_sends,
    estimate_in_flight,
    estimate_least_in_flight,
    estimate_least_pending,
    estimate_pending,
    keeps_logits,
    schedule_is_legal,
    splits_backward,
)
from costmodel.schedules import SCHEDULES
from costmodel.schema.errors import InvalidSpec
from costmodel.schema.layout import Layout
from costmodel.schema.schedule import VOCAB_KINDS, PassKind, Schedule
from costmodel.stages import resembling, stages_of
from planner.kept import count_kept, count_kept_microbatches
from planner.schedules import SCHEDULES as GENERATED
from planner.schedules import PassTimes, build_schedule

SHARES = st.integers(1, 48).map(lambda share: share / 50)
TIMES = st.one_of(
    st.sampled_from((PassTimes(), PassTimes(0.34, 0.36, 0.3, 0.01), PassTimes(0.3, 0.5, 0.2))),
    st.builds(PassTimes, SHARES, SHARES, SHARES, st.integers(0, 25).map(lambda share: share / 50)),
)
EXACT = ("gpipe", "1f1b", "breadth-first", "interleaved-1f1b", "hanayo", "1f1b-vocab-1", "1f1b-vocab-2")


def row(name: str, pp: int, m: int, vpp: int) -> Layouts:
    return Layouts.from_rows([(Layout(pp=pp, vpp=vpp, num_microbatches=m), name)])


SIZES = [(pp, m, vpp) for pp in range(1, 13) for m in (*range(1, 14), 16, 23, 24, 32, 40) for vpp in (1, 2, 3, 4, 6)]


def allowed(name: str) -> list[tuple[int, int, int]]:
    return [size for size in SIZES if GENERATED[name].allows(*size)]


@pytest.mark.parametrize("name", SCHEDULE_CODES)
def test_same_sizes_are_allowed(name: str) -> None:
    rows = Layouts.from_rows([(Layout(pp=pp, vpp=vpp, num_microbatches=m), name) for pp, m, vpp in SIZES])
    legal = schedule_is_legal(rows)
    assert [size for size, can in zip(SIZES, legal, strict=True) if can] == allowed(name)


@pytest.mark.parametrize("name", SCHEDULE_CODES)
@settings(max_examples=20, deadline=None)
@given(data=st.data(), times=TIMES)
def test_bounds_hold_what_the_order_keeps(name: str, data: st.DataObject, times: PassTimes) -> None:
    """Between the two bounds on every rank, whatever times the order was built for."""
    pp, m, vpp = data.draw(st.sampled_from(allowed(name)))
    layouts, ranks = row(name, pp, m, vpp), np.arange(pp)[None]
    kept = count_kept_microbatches(build_schedule(name, pp, m, vpp, times))
    assert (kept.in_flight <= estimate_in_flight(layouts, ranks) + 1e-9).all()
    assert (kept.in_flight >= estimate_least_in_flight(layouts, ranks) - 1e-9).all()
    assert (kept.waiting <= estimate_pending(layouts, ranks) + 1e-9).all()
    if name in EXACT:
        np.testing.assert_allclose(kept.in_flight, estimate_in_flight(layouts, ranks))
    if keeps_logits(layouts)[0]:
        assert kept.unreached.max() == m


@pytest.mark.parametrize("name", [name for name, form in SCHEDULES.items() if form.splits_backward])
@settings(max_examples=20, deadline=None)
@given(data=st.data(), times=TIMES, pending=st.sampled_from((0.1, 0.5, 1.0, 3.0, 30.0)))
def test_least_of_both_is_kept_at_once(name: str, data: st.DataObject, times: PassTimes, pending: float) -> None:
    """At some moment every rank keeps the least activations and the least pending gradients together, whatever a
    micro-batch's gradients take beside its activations; and never more than each at its own peak."""
    pp, m, vpp = data.draw(st.sampled_from(allowed(name)))
    layouts, ranks = row(name, pp, m, vpp), np.arange(pp)[None]
    schedule = build_schedule(name, pp, m, vpp, times)
    each = np.full(schedule.num_stages, 1.0 / vpp)
    together = np.sum(count_kept(schedule).peak_at_once(each, pending * each), axis=0)
    least = estimate_least_in_flight(layouts, ranks) + pending * estimate_least_pending(layouts, ranks)
    assert (together >= least - 1e-9).all()
    apart = count_kept_microbatches(schedule)
    assert (together <= apart.in_flight + pending * apart.waiting + 1e-9).all()


@pytest.mark.parametrize("name", SCHEDULE_CODES)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_stages_and_sends_are_those_of_the_order(name: str, data: st.DataObject) -> None:
    """Messages counted pass by pass: an activation to the next stage and a gradient back, unless it lives here."""
    pp, m, vpp = data.draw(st.sampled_from(allowed(name)))
    schedule, stages, layouts = build_schedule(name, pp, m, vpp), stages_of(name, pp, vpp), row(name, pp, m, vpp)
    assert (schedule.stage_to_rank, schedule.copies) == (stages.stage_to_rank, stages.copies)
    assert count_copies(layouts)[0] == schedule.copies
    sent = sends_of(schedule)
    activations, gradients = count_sends(layouts, np.arange(pp)[None])
    if schedule.copies == 1 or m % 2 == 0:
        assert [sent["activation", rank] for rank in range(pp)] == (m * activations[0]).tolist()
        assert [sent["gradient", rank] for rank in range(pp)] == (m * gradients[0]).tolist()
    assert sum(sent.values()) == 2 * m * count_crossings(layouts)[0]
    firsts = {schedule.stage_to_rank[stage] for stage in range(schedule.num_stages) if schedule.is_first(stage)}
    lasts = {schedule.stage_to_rank[stage] for stage in range(schedule.num_stages) if schedule.is_last(stage)}
    if VOCAB_KINDS & schedule.kinds:
        firsts = lasts = set(range(pp))
    assert (set(np.flatnonzero(stages.embedding)), set(np.flatnonzero(stages.head))) == (firsts, lasts)
    if schedule.splits_backward:
        assert splits_backward(layouts)[0]


def sends_of(schedule: Schedule) -> Counter[tuple[str, int]]:
    sent: Counter[tuple[str, int]] = Counter()
    home = schedule.stage_to_rank
    for rank, order in enumerate(schedule.orders):
        for step in (part for whole in order for part in whole.work):
            forward = step.kind is PassKind.FORWARD
            if not forward and step.kind not in (PassKind.BACKWARD, PassKind.INPUT_GRAD):
                continue
            ends_here = schedule.is_last(step.stage) if forward else schedule.is_first(step.stage)
            there = step.stage + (1 if forward else -1)
            if not ends_here and home[there] != rank:
                sent["activation" if forward else "gradient", rank] += 1
    return sent


@pytest.mark.parametrize("name", SCHEDULE_CODES)
def test_an_order_without_a_name_is_priced_as_one_that_lies_alike(name: str) -> None:
    vpp = GENERATED[name].vpp
    placed = stages_of(name, 4, vpp).stage_to_rank
    split = SCHEDULES[name].splits_backward
    found = resembling(placed, 4, vpp, split)
    assert stages_of(found, 4, vpp).stage_to_rank == placed
    assert SCHEDULES[found].splits_backward == split


def test_stages_that_no_schedule_places_so_are_refused() -> None:
    with pytest.raises(InvalidSpec, match=r"pipeline\.stage_to_rank = \[1, 0\] is not a placement"):
        resembling((1, 0), 2, 1, False)
