"""Building blocks: memory from lifespans, squeezed orders, the search over blocks."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodel.placement import zigzag
from costmodel.schema.errors import Infeasible, InvalidSpec
from costmodel.schema.schedule import PassKind, Schedule
from planner.schedules import EQUAL_TIMES, PassTimes, check_schedule
from planner.schedules.block_search import blocks, v_schedule
from planner.schedules.building_block import BuildingBlock, uniform_block
from planner.schedules.report import rank_times, schedule_summary
from planner.schedules.squeeze import Ahead, Squeezed, squeeze, squeeze_best
from planner.simulator import simulate

unhurried = settings(deadline=None, max_examples=60)

time = st.sampled_from([0.0, 0.1, 0.5, 0.75, 1.0, 1.25, 2.0])
pass_times = st.builds(PassTimes, st.sampled_from([0.5, 1.0, 1.7]), time, time, time)


def limits(most: int) -> st.SearchStrategy[float]:
    """Micro-batches from 1 on, in hundredths: a limit within rounding of a whole number of chunks counts as that."""
    return st.integers(100, 100 * most).map(lambda hundredths: hundredths / 100)


@st.composite
def uniform_blocks(draw: st.DrawFn) -> BuildingBlock:
    """Any uniform block of one or two chunks, collisions and long cycles included."""
    legs = draw(st.sampled_from([2, 4]))
    offsets = draw(st.lists(st.sampled_from([1, 1.5, 2, 3, 4]), min_size=legs, max_size=legs))
    waits = draw(st.lists(st.integers(0, 3), max_size=legs))
    return uniform_block(draw(st.integers(2, 6)), offsets, waits, draw(st.sampled_from([None, 7.5, 20.0])))


def schedule_of(block: BuildingBlock, squeezed: Squeezed, num_microbatches: int) -> Schedule:
    orders = tuple(tuple(order) for order in squeezed.orders)
    return Schedule("block", num_microbatches, zigzag(block.pp, block.vpp), orders)


@unhurried
@given(
    uniform_blocks(),
    st.integers(1, 14),
    pass_times,
    st.sampled_from(Ahead),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.integers(0, 3),
)
def test_any_block_gives_a_valid_order_under_its_limit(
    block: BuildingBlock, m: int, times: PassTimes, ahead: Ahead, patience: float, spare: int
) -> None:
    """And it plays out just as the simulator does."""
    limit = max(block.peaks) + spare
    squeezed = squeeze(block, m, limit, times, ahead, patience)
    schedule = schedule_of(block, squeezed, m)
    assert check_schedule(schedule) == []
    assert schedule.splits_backward
    simulation = simulate(
        schedule, rank_times(schedule, times.forward, times.input_grad, times.weight_grad, times.comm)
    )
    assert max(simulation.peak_activations(1.0)) <= limit
    assert simulation.makespan_s == pytest.approx(squeezed.makespan, abs=1e-6)
    assert float(simulation.span_s.max()) == pytest.approx(squeezed.span, abs=1e-6)


@unhurried
@given(uniform_blocks(), st.integers(1, 14))
def test_peaks_are_those_of_the_repeated_block(block: BuildingBlock, m: int) -> None:
    """Counted along the block order; reached when there are micro-batches enough."""
    for rank, peak in enumerate(block.peaks):
        for count in (m, 4 * math.ceil(max(block.starts[-1]) / block.cycle) + 4):
            alive = most = 0
            for leg in block.leg_order(rank, count):
                alive += 1 if block.is_forward(leg) else -1
                most = max(most, alive)
            assert most <= peak
        assert most == peak


@pytest.mark.parametrize("pp", [2, 3, 4, 7, 8, 16, 32])
def test_lifespan_fixes_the_memory(pp: int) -> None:
    """Sum of offsets over the cycle: p for 1F1B's and V-ZB's, 2p - 1 for ZB-H2's, half and a third for the others."""
    assert max(uniform_block(pp, (1, 2)).peaks) == pp
    assert max(uniform_block(pp, (3, 3)).peaks) == 2 * pp - 1
    assert max(uniform_block(pp, (3, 3, 3, 3)).peaks) / 2 == pp
    assert max(uniform_block(pp, (1, 1, 2, 1), (0, 3, 0)).peaks) / 2 == (pp + 2) // 2
    assert max(uniform_block(pp, (1, 1, 1, 1)).peaks) / 2 <= (pp + 4) // 3


def test_block_of_two_chunks_by_hand() -> None:
    """Two ranks, offsets 1, no waits: down, up, down, up."""
    block = uniform_block(2, (1, 1, 1, 1))
    assert block.starts == ((0, 1), (3, 2), (4, 5), (7, 6))
    assert block.stages == ((0, 3), (1, 2))
    assert block.cycle == 6
    assert [block.chunk(leg) for leg in range(4)] == [0, 1, 1, 0]
    assert block.leg_order(0, 2) == [0, 1, 2, 0, 3, 1, 2, 3]
    assert block.peaks == (2, 2)
    assert block.collisions == 0


def test_collisions_are_counted_and_repaired() -> None:
    """A single rank's F of chunk 0 and I of chunk 1 both at 0 modulo the cycle."""
    block = BuildingBlock(((0.0,), (1.0,), (6.0,), (9.0,)), 6.0)
    assert block.collisions == 1
    squeezed = squeeze(block, 5, max(block.peaks))
    assert check_schedule(schedule_of(block, squeezed, 5)) == []
    assert squeezed.makespan == pytest.approx(15)


def test_limit_below_the_block_is_refused() -> None:
    with pytest.raises(InvalidSpec, match="limit of 3 chunks a rank: the building block needs 4"):
        squeeze(uniform_block(4, (1, 2)), 8, 3)


@pytest.mark.parametrize("wrong", [-1.0, float("nan"), float("inf")])
def test_times_are_finite_and_not_negative(wrong: float) -> None:
    with pytest.raises(InvalidSpec, match=f"weight_grad = {wrong:g}"):
        PassTimes(1, 1, wrong)
    assert PassTimes(2, 2, 2).are_equal
    assert not PassTimes(1, 1, 1, 0.1).are_equal


@unhurried
@given(st.integers(2, 9), limits(12))
def test_blocks_fit_the_memory(pp: int, limit: float) -> None:
    peaks = [max(block.peaks) / 2 for block in blocks(pp, limit)]
    assert peaks
    assert max(peaks) <= limit
    assert peaks == sorted(peaks, reverse=True)


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 6), st.integers(1, 12), limits(7), pass_times)
def test_v_schedule_fits_the_memory(pp: int, m: int, limit: float, times: PassTimes) -> None:
    schedule = v_schedule(pp, m, limit, times, tries=2)
    summary = schedule_summary(schedule, times.forward, times.input_grad, times.weight_grad, times.comm)
    assert summary["problems"] == []
    assert max(summary["peak_activations"] or []) <= limit


def test_more_memory_is_never_slower() -> None:
    spans = [schedule_summary(v_schedule(6, 12, limit), 1, 1, 1, 0)["makespan"] or 0.0 for limit in (1, 2, 3, 4, 5, 6)]
    assert spans == sorted(spans, reverse=True)
    assert spans[-1] == 36 + 2.5


def test_less_than_one_microbatch_is_infeasible() -> None:
    for limit in (0.5, 0, float("nan")):
        with pytest.raises(Infeasible, match="at least 1 alive"):
            v_schedule(4, 8, limit)
    kinds = {step.kind for order in v_schedule(4, 8, 1).orders for step in order}
    assert kinds == {PassKind.FORWARD, PassKind.INPUT_GRAD, PassKind.WEIGHT_GRAD}
    assert v_schedule(4, 8, math.inf, EQUAL_TIMES, tries=2).name == "v-schedule"


@pytest.mark.parametrize(
    ("forward", "weight_grad", "comm"), [(0.36, 0.2, 0.11), (0.31, 0.27, 0.03), (0.38, 0.35, 0.11)]
)
@pytest.mark.parametrize(("offsets", "ahead"), [((3, 3), Ahead.NONE), ((3, 3, 3, 3), Ahead.FORWARDS)])
def test_few_ranks_choose_the_patience_that_all_would(
    offsets: tuple[float, ...], ahead: Ahead, forward: float, weight_grad: float, comm: float
) -> None:
    pp, times = 24, PassTimes(forward, 1.0 - forward - weight_grad, weight_grad, comm)
    block = uniform_block(pp, offsets)
    tried = [squeeze(block, pp, 2 * pp, times, ahead, patience).makespan for patience in (1.0, 0.75, 0.5, 0.0)]
    chosen = squeeze_best(lambda p: uniform_block(p, offsets), pp, pp, lambda p: 2 * p, times, ahead)
    assert max(tried) > min(tried)
    assert chosen.makespan == pytest.approx(min(tried))
