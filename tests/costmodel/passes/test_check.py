"""The check of any schedule: what is generated passes, what is broken is named."""

from __future__ import annotations

import random

import pytest
from drawn import FROZEN, GATHERED, ONE_BARRIER, PAIRED, TWO_COPIES, VOCABULARY, WRITTEN, edited, from_lines, schedules
from drawn import sizes as all_sizes
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from costmodel.passes import check_schedule, peak_in_flight
from costmodel.passes.counts import COMPUTE_KINDS
from costmodel.schema.errors import InvalidSpec
from costmodel.schema.schedule import VOCAB_KINDS, Pass, PassKind, Schedule, parse_pass
from planner.schedules import SCHEDULES, build_schedule

unhurried = settings(deadline=None)


def test_every_generated_schedule_can_run() -> None:
    """A thousand sizes, those of one schedule as many as of the next."""
    for name in SCHEDULES:
        own = [size for size in all_sizes(8, 16, 4) if size[0] == name]
        for size in random.Random(1).sample(own, min(len(own), 1200 // len(SCHEDULES))):
            assert check_schedule(build_schedule(*size)) == [], size


@pytest.mark.parametrize("schedule", WRITTEN)
def test_passes_of_every_kind_can_run(schedule: Schedule) -> None:
    assert check_schedule(schedule) == []


@unhurried
@given(schedules(), st.data())
def test_dropped_pass_is_refused(schedule: Schedule, data: st.DataObject) -> None:
    rank, at = _any_pass(schedule, data)
    order = list(schedule.orders[rank])
    gone = order.pop(at)
    problems = check_schedule(edited(schedule, rank, order))
    assert any(f"rank {rank}: pass {part} is missing" in problems for part in gone.work)


@unhurried
@given(schedules(), st.data())
def test_duplicated_pass_is_refused(schedule: Schedule, data: st.DataObject) -> None:
    rank, at = _any_pass(schedule, data)
    order = list(schedule.orders[rank])
    twice = order[at]
    order.insert(data.draw(st.integers(0, len(order))), twice)
    assert check_schedule(edited(schedule, rank, order)) == [
        f"rank {rank}: pass {part} stands 2 times in the order" for part in twice.work
    ]


@unhurried
@given(schedules(), st.data())
def test_swapped_passes_of_one_microbatch_are_refused(schedule: Schedule, data: st.DataObject) -> None:
    rank, one = _any_pass(schedule, data)
    order = list(schedule.orders[rank])
    same = [
        at for at, step in enumerate(order) if at != one and step.kind in COMPUTE_KINDS and step[1:] == order[one][1:]
    ]
    assume(same and order[one].kind in COMPUTE_KINDS)
    other = data.draw(st.sampled_from(same))
    order[one], order[other] = order[other], order[one]
    problems = check_schedule(edited(schedule, rank, order))
    assert any(f"rank {rank}: " in problem and " comes before " in problem for problem in problems)


@unhurried
@given(schedules(), st.data())
def test_pass_on_another_rank_is_refused(schedule: Schedule, data: st.DataObject) -> None:
    assume(schedule.num_ranks > 1)
    rank, at = _any_pass(schedule, data)
    step = schedule.orders[rank][at]
    elsewhere = (rank + 1) % schedule.num_ranks
    orders = [list(order) for order in schedule.orders]
    orders[elsewhere].append(orders[rank].pop(at))
    moved = edited(edited(schedule, rank, orders[rank]), elsewhere, orders[elsewhere])
    assert [problem.split(", ")[0] for problem in check_schedule(moved)] == [
        f"rank {elsewhere}: pass {part} belongs on rank {rank}" for part in step.work
    ]


@unhurried
@given(schedules(), st.data())
def test_any_swap_is_judged_as_the_plain_rule_says(schedule: Schedule, data: st.DataObject) -> None:
    assume(not schedule.kinds - COMPUTE_KINDS)
    rank, one = _any_pass(schedule, data)
    order = list(schedule.orders[rank])
    other = data.draw(st.integers(0, len(order) - 1))
    order[one], order[other] = order[other], order[one]
    swapped = edited(schedule, rank, order)
    assert (check_schedule(swapped) == []) == _runs(swapped)


def _any_pass(schedule: Schedule, data: st.DataObject) -> tuple[int, int]:
    """Rank and position of a pass that must be there: of a stage or of the vocabulary."""
    places = [
        (rank, at)
        for rank, order in enumerate(schedule.orders)
        for at, step in enumerate(order)
        if step.work[0].kind in COMPUTE_KINDS | VOCAB_KINDS
    ]
    return data.draw(st.sampled_from(places))


def _runs(schedule: Schedule) -> bool:
    """F, B, I and W by the plainest reading of their rules, one pass at a time."""
    done: set[str] = set()
    left = [list(order) for order in schedule.orders]
    per_copy = schedule.num_stages // schedule.copies

    def ready(step: Pass) -> bool:
        stage, microbatch = step.stage, step.microbatch
        if step.kind is PassKind.FORWARD:
            return stage % per_copy == 0 or f"{stage - 1}F{microbatch}" in done
        if step.kind is PassKind.WEIGHT_GRAD:
            return f"{stage}I{microbatch}" in done
        after = {f"{stage + 1}B{microbatch}", f"{stage + 1}I{microbatch}"}
        return f"{stage}F{microbatch}" in done and ((stage + 1) % per_copy == 0 or bool(after & done))

    moved = True
    while moved:
        moved = False
        for order in left:
            while order and ready(order[0]):
                done.add(str(order.pop(0)))
                moved = True
    return not any(left)


def test_deadlock_across_ranks_is_named() -> None:
    """Each rank's order is fine by itself; together they wait for each other."""
    assert check_schedule(from_lines("0F0 0B0 0F1 0B1\n1F1 1B1 1F0 1B0", 2, (0, 1))) == [
        "rank 0: deadlock, pass 0B0 waits for ever for 1B0 of rank 1",
        "rank 1: deadlock, pass 1F1 waits for ever for 0F1 of rank 0",
    ]


@pytest.mark.parametrize(
    ("stage_to_rank", "lines", "problem"),
    [
        ((0, 1), "0F0 0B0 1F0\n1B0", "rank 0: pass 1F0 belongs on rank 1, where stage 1 lives"),
        ((0, 2), "0F0 0B0\n1F0 1B0", "stage 1 is placed on rank 2, but there are 2 ranks"),
        ((0, 1), "0F0 0B0\n2F0 1B0", "rank 1: pass 2F0 names a stage that does not exist (there are 2)"),
        ((0,), "0F1 0B0", "rank 0: pass 0F1 names a micro-batch that does not exist (there are 1)"),
        ((0, 1), "0F0 0B0\n1F0 1B0 1W0", "rank 1: pass 1I0 is missing"),
        ((0,), "0F0 0I0 0W0 0B0", "rank 0: pass 0B0 stands beside a split backward of the same micro-batch"),
        ((0, 1), "0F0 0I0 0W0\n1F0 1I0", "rank 1: pass 1W0 is missing"),
        ((0, 0), "1F0 0F0 1B0 0B0", "rank 0: pass 1F0 comes before 0F0"),
    ],
)  # fmt: skip
def test_faults_are_named(stage_to_rank: tuple[int, ...], lines: str, problem: str) -> None:
    assert problem in check_schedule(from_lines(lines, 1, stage_to_rank))


def _without(schedule: Schedule, rank: int, *gone: str) -> Schedule:
    order = [step for step in schedule.orders[rank] if str(step) not in gone]
    assert len(order) == len(schedule.orders[rank]) - len(gone)
    return edited(schedule, rank, order)


@pytest.mark.parametrize(
    ("faulty", "problem"),
    [
        (_without(VOCABULARY, 1, "1VOCAB_F0"), "rank 1: pass 1VOCAB_F0 is missing"),
        (
            _without(_without(VOCABULARY, 0, "0VOCAB_IN_B0"), 1, "1VOCAB_IN_B0"),
            "VOCAB_IN_F and VOCAB_IN_B go together",
        ),
        (
            from_lines("0F0 0VOCAB_F0 0B0\n1F0 1VOCAB_F0 1B0", 1, (0, 1)),
            "VOCAB_F goes with VOCAB_B or with VOCAB_W, neither with both nor alone",
        ),
        (
            from_lines("0F0 0VOCAB_F0 0VOCAB_B0 0VOCAB_W0 0B0\n1F0 1VOCAB_F0 1VOCAB_B0 1VOCAB_W0 1B0", 1, (0, 1)),
            "VOCAB_F goes with VOCAB_B or with VOCAB_W, neither with both nor alone",
        ),
        (
            from_lines("0F0 1VOCAB_F0 0VOCAB_W0 0B0\n1F0 0VOCAB_F0 1B0 1VOCAB_W0", 1, (0, 1)),
            "rank 0: pass 1VOCAB_F0 belongs on rank 1, whose part of the vocabulary it names",
        ),
        (
            from_lines("0F0 0VOCAB_F0 0VOCAB_W0 0B0\n1F0 1B0 1VOCAB_F0 1VOCAB_W0", 1, (0, 1)),
            "rank 1: pass 1B0 comes before 1VOCAB_F0",
        ),
        (
            from_lines("0F0 0B0 0VOCAB_F0 0VOCAB_W0\n1F0 1VOCAB_F0 1B0 1VOCAB_W0", 1, (0, 1)),
            "rank 0: deadlock, pass 0B0 waits for ever for 1B0 of rank 1",
        ),
        (
            from_lines("0F0 1F1 0VOCAB_F0 0VOCAB_F1 0VOCAB_W0 0VOCAB_W1 0B0 1B1", 2, (0, 0), 2),
            "vocabulary passes go with one copy of the model, not 2",
        ),
        (_without(FROZEN, 0, "1FROZEN_F1"), "pass 1FROZEN_F1 is missing"),
        (
            from_lines("0F0 1FROZEN_F0 0FROZEN_F0 0B0", 1, (0,)),
            "rank 0: pass 1FROZEN_F0 comes before 0FROZEN_F0",
        ),
        (
            from_lines("0F0 0FROZEN_F0 0FROZEN_F0 0B0", 1, (0,)),
            "pass 0FROZEN_F0 stands 2 times in the order",
        ),
        (
            from_lines("0F0 1F0 0B0 1B0", 1, (0, 0), 2),
            "micro-batch 0 crosses copies 0 and 1 of the model; it must cross one",
        ),
        (
            from_lines("0F0 0B0", 2, (0, 0), 2),
            "micro-batch 1 crosses none of the copies of the model; it must cross one",
        ),
        (_without(TWO_COPIES, 0, "3B1"), "rank 0: pass 3B1 is missing"),
        (
            Schedule("odd", 1, (0, 1), from_lines("0F0 0B0\n1F0 1B0", 1, (0, 1)).orders, 3),
            "3 copies of a model don't share 2 stages evenly",
        ),
        (
            from_lines("0F0 0F1 0B0 0B1\n1F0 1B0 (1F1;1B1)OVERLAP_F_B", 2, (0, 1)),
            "rank 1: pass 1B1 runs beside 1F1",
        ),
        (
            edited(PAIRED, 0, [Pass(PassKind.OVERLAP, 0, 0), *PAIRED.orders[0]]),
            "rank 0: pass 0OVERLAP_F_B0 does not pair an F with a B or I",
        ),
    ],
)  # fmt: skip
def test_faults_of_other_kinds_are_named(faulty: Schedule, problem: str) -> None:
    assert problem in check_schedule(faulty)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("0F0 0UNSHARD 0B0", "rank 0: pass 0F0 finds the parameters of stage 0 not gathered"),
        ("0UNSHARD 0F0 0RESHARD 0B0", "rank 0: pass 0B0 finds the parameters of stage 0 not gathered"),
        ("0UNSHARD 0F0 0UNSHARD 0B0", "rank 0: pass 0UNSHARD gathers what is gathered already"),
        ("0UNSHARD 0F0 0B0 0RESHARD 0RESHARD", "rank 0: pass 0RESHARD drops what is not gathered"),
        ("0F0 0REDUCE_GRAD 0B0 0REDUCE_GRAD", "rank 0: pass 0REDUCE_GRAD has nothing to reduce"),
        ("0F0 0I0 0REDUCE_GRAD 0W0", "rank 0: pass 0W0 comes after the last 0REDUCE_GRAD"),
        ("1UNSHARD 0F0 0B0", "rank 0: pass 1UNSHARD names a stage that does not exist (there are 1)"),
    ],
)  # fmt: skip
def test_faults_of_gathers_are_named(line: str, problem: str) -> None:
    assert problem in check_schedule(from_lines(line, 1, (0,)))


def test_a_gather_has_no_microbatch() -> None:
    faulty = edited(GATHERED, 1, [Pass(PassKind.UNSHARD, 1, 0), *GATHERED.orders[1]])
    assert check_schedule(faulty) == ["rank 1: pass 1UNSHARD0 names a micro-batch, but concerns its stage as a whole"]


def test_stages_may_differ_in_whether_they_split() -> None:
    assert check_schedule(from_lines("0F0 0B0\n1F0 1I0 1W0", 1, (0, 1))) == []


@unhurried
@given(schedules())
def test_the_peak_is_the_tightest_limit(schedule: Schedule) -> None:
    peaks = peak_in_flight(schedule)
    assert check_schedule(schedule, peaks) == []
    assert check_schedule(schedule, max(peaks)) == []
    below = [peak - 0.01 for peak in peaks]
    problems = check_schedule(schedule, below)
    assert [problem.split(":")[0] for problem in problems] == [f"rank {rank}" for rank in range(schedule.num_ranks)]


@pytest.mark.parametrize(("pp", "num_microbatches"), [(1, 3), (4, 2), (4, 9)])
def test_peaks_of_1f1b_and_interleaved(pp: int, num_microbatches: int) -> None:
    schedule = build_schedule("1f1b", pp, num_microbatches)
    assert peak_in_flight(schedule) == [min(pp - rank, num_microbatches) for rank in range(pp)]
    if pp > 1:
        looped = build_schedule("interleaved-1f1b", pp, 3 * pp, 2)
        assert peak_in_flight(looped) == [min(2 * (pp - rank - 1) + pp + 1, 6 * pp) / 2 for rank in range(pp)]


def test_the_limit_names_rank_pass_and_count() -> None:
    schedule = build_schedule("1f1b", 4, 8)
    assert check_schedule(schedule, 3) == ["rank 0: pass 0F3 makes 4 micro-batches alive, beyond 3"]
    assert check_schedule(PAIRED, [2, 1]) == ["rank 1: pass (1F1;1B0)OVERLAP_F_B makes 2 micro-batches alive, beyond 1"]
    assert check_schedule(TWO_COPIES, 2) == []
    with pytest.raises(InvalidSpec, match="limit has 3 figures; it needs one, or one for each of 4 ranks"):
        check_schedule(schedule, [4, 4, 4])


def test_a_pair_waits_for_both_parts() -> None:
    assert parse_pass("(0F1;0B0)OVERLAP_F_B").work == (parse_pass("0F1"), parse_pass("0B0"))
    waiting = from_lines("0F0 (0F1;0B0)OVERLAP_F_B 0B1\n1F0 (1F1;1B0)OVERLAP_F_B 1B1", 2, (0, 1))
    assert check_schedule(waiting) == [
        "rank 0: deadlock, pass (0F1;0B0)OVERLAP_F_B waits for ever for 1B0 of rank 1",
        "rank 1: deadlock, pass (1F1;1B0)OVERLAP_F_B waits for ever for 0F1 of rank 0",
    ]


def test_one_barrier_lets_the_weight_gradient_wait() -> None:
    assert ONE_BARRIER.orders[1][-1].kind is PassKind.VOCAB_WEIGHT_GRAD
    assert check_schedule(ONE_BARRIER) == []
