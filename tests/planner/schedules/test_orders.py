"""Single orders as their papers draw them."""

from __future__ import annotations

from collections import Counter

import pytest

from costmodel.schema.schedule import PassKind, Schedule
from planner.schedules import build_schedule


def _order(name: str, pp: int, m: int, vpp: int, rank: int) -> str:
    return build_schedule(name, pp, m, vpp).to_text()[str(rank)]


def test_chimera_of_four() -> None:
    """Four ranks, four micro-batches: 0 and 1 go down through stages 0…3, 2 and 3 up through 4…7."""
    schedule = build_schedule("chimera", 4, 4)
    assert schedule.copies == 2
    assert schedule.stage_to_rank == (0, 1, 2, 3, 3, 2, 1, 0)
    assert schedule.to_text() == {
        "0": "0F0 0F1 7F2 7B2 7F3 7B3 0B0 0B1",
        "1": "1F0 6F2 1F1 6F3 6B2 1B0 6B3 1B1",
        "2": "5F2 2F0 5F3 2F1 2B0 5B2 2B1 5B3",
        "3": "4F2 4F3 3F0 3B0 3F1 3B1 4B2 4B3",
    }


def test_chimera_joins_units() -> None:
    """The second unit's first forwards stand between the first unit's last backwards."""
    assert _order("chimera", 4, 8, 1, 0).split()[6:12] == ["0B0", "0F4", "0B1", "0F5", "7F6", "7B6"]


def test_odd_microbatch_goes_down() -> None:
    crossed = {step.microbatch: step.stage // 4 for order in build_schedule("chimera", 4, 7).orders for step in order}
    assert crossed == {0: 0, 1: 0, 2: 1, 3: 1, 4: 0, 5: 0, 6: 1}


def test_bitpipe_places_two_vs() -> None:
    schedule = build_schedule("bitpipe", 4, 4, 2)
    assert schedule.stage_to_rank == (0, 1, 2, 3, 3, 2, 1, 0, 3, 2, 1, 0, 0, 1, 2, 3)
    assert schedule.to_text()["3"] == "8F2 8F3 3F0 4F0 3F1 4F1 15F2 15B2 15F3 15B3 4B0 3B0 4B1 3B1 8B2 8B3"


def test_hanayo_turns_within_a_rank() -> None:
    schedule = build_schedule("hanayo", 2, 2, 4)
    assert schedule.stage_to_rank == (0, 1, 1, 0, 0, 1, 1, 0)
    assert schedule.to_text() == {
        "0": "0F0 0F1 3F0 4F0 3F1 4F1 7F0 7B0 7F1 7B1 4B0 3B0 4B1 3B1 0B0 0B1",
        "1": "1F0 2F0 1F1 2F1 5F0 6F0 5F1 6F1 6B0 5B0 6B1 5B1 2B0 1B0 2B1 1B1",
    }


def test_breadth_first_takes_one_stage_at_a_time() -> None:
    assert _order("breadth-first", 2, 2, 2, 0) == "0F0 0F1 2F0 2F1 2B1 2B0 0B1 0B0"
    assert _order("breadth-first+fsdp", 2, 2, 2, 0) == (
        "0UNSHARD 0F0 2UNSHARD 0F1 0RESHARD 2F0 2F1 2B1 0UNSHARD 2B0 2RESHARD 2REDUCE_GRAD "
        "0B1 0B0 0RESHARD 0REDUCE_GRAD"
    )


def test_layered_gradient_accumulation_is_breadth_first_on_one_rank() -> None:
    assert _order("breadth-first", 1, 2, 2, 0) == "0F0 0F1 1F0 1F1 1B1 1B0 0B1 0B0"


@pytest.mark.parametrize("m", [4, 12, 40])
def test_breadth_first_gathers_do_not_grow_with_microbatches(m: int) -> None:
    """Twice each stage but a rank's last, whose forwards and backwards meet; one reduction each, the earliest first."""
    for order in build_schedule("breadth-first+fsdp", 4, m, 3).orders:
        gathers = Counter(step.stage for step in order if step.kind is PassKind.UNSHARD)
        assert list(gathers.values()) == [2, 2, 1]
        reduced = [step.stage for step in order if step.kind is PassKind.REDUCE_GRAD]
        assert reduced == sorted(gathers, reverse=True)


def test_zeropp_gathers_by_unit() -> None:
    """A unit is 7 to 13 micro-batches on four ranks: two gathers a stage and unit, but for the ends of a rank's run."""
    for units, m in ((1, 7), (1, 13), (2, 14), (3, 21)):
        for order in build_schedule("zeropp", 4, m, 3).orders:
            gathers = Counter(step.stage for step in order if step.kind is PassKind.UNSHARD)
            assert list(gathers.values()) == [units + 1, 2 * units, units]
            assert Counter(step.kind for step in order)[PassKind.REDUCE_GRAD] == 3


def test_dualpipe_steps_of_rank_zero() -> None:
    """Eight ranks, 20 micro-batches, 10 each way: rank 0 is at the outer end of both."""
    order = build_schedule("dualpipe", 8, 20).orders[0]
    assert " ".join(map(str, order[:8])) == "0F0 0F1 0F2 0F3 0F4 0F5 0F6 15F10"
    assert " ".join(map(str, order[8:11])) == "15I10 15W10 15F11"
    assert " ".join(map(str, order[17:19])) == "(0F7;15B13)OVERLAP_F_B (15F14;0B0)OVERLAP_F_B"
    assert " ".join(map(str, order[-11:])) == "15B18 (15F19;0B5)OVERLAP_F_B 15B19 0I6 0W6 0I7 0W7 0I8 0W8 0I9 0W9"


def test_dualpipe_v_is_dualpipe_of_twice_the_ranks_folded() -> None:
    """The kinds of passes on rank r of p are those of rank r of 2p."""
    folded, whole = build_schedule("dualpipe-v", 4, 10, 2), build_schedule("dualpipe", 8, 20)
    for order, other in zip(folded.orders, whole.orders[:4], strict=True):
        assert [step.kind for step in order] == [step.kind for step in other]


def test_dualpipe_of_few_microbatches_leaves_places_empty() -> None:
    few, enough = build_schedule("dualpipe-v", 3, 2, 2), build_schedule("dualpipe-v", 3, 6, 2)
    for order, other in zip(few.orders, enough.orders, strict=True):
        assert _flat(few, order) == [step for step in _flat(enough, other) if step[2] < 2]


def _flat(schedule: Schedule, order: tuple) -> list:  # type: ignore[type-arg]
    assert schedule.num_ranks == 3
    return [part[:3] for step in order for part in step.work]


def test_2bp_fills_where_the_rank_would_wait() -> None:
    assert _order("1f1b+2bp", 2, 3, 1, 0) == "0F0 0F1 0I0 0F2 0I1 0W0 0I2 0W1 0W2"
    assert _order("gpipe+2bp", 2, 2, 1, 1) == "1F0 1F1 1I1 1I0 1W1 1W0"


def test_2bp_lets_p_microbatches_wait() -> None:
    for order in build_schedule("1f1b+2bp", 3, 20).orders:
        waiting = most = 0
        for step in order:
            waiting += {PassKind.INPUT_GRAD: 1, PassKind.WEIGHT_GRAD: -1}.get(step.kind, 0)
            most = max(most, waiting)
        assert most <= 3 + 1
