"""Every generator over its whole domain: valid orders, bounded memory."""

from __future__ import annotations

from random import Random

import pytest
from slow_reference import makespan, peak_activations

from costmodel.schema.schedule import Pass, PassKind, Schedule
from planner.schedules import SCHEDULES, build_schedule, check_schedule, supports
from planner.schedules.names import DEFERRED
from planner.schedules.rounds import rounds

SMALL = [(pp, m, vpp) for pp in range(1, 6) for m in (1, 2, 3, 4, 5, 7, 10) for vpp in (1, 2, 3, 4)]
ADDED = (
    "interleaved-1f1b",
    "breadth-first",
    "breadth-first+fsdp",
    "hanayo",
    "chimera",
    "bitpipe",
    "dualpipe",
    "dualpipe-v",
    "zeropp",
)


def _sizes(name: str) -> list[tuple[int, int, int]]:
    """All small sizes, and some that are drawn from up to 12 ranks, 40 micro-batches, 6 chunks."""
    draw = Random(name)
    drawn = [(draw.randint(1, 12), draw.randint(1, 40), draw.randint(1, 6)) for _ in range(40)]
    return [sizes for sizes in SMALL + drawn if supports(name, *sizes)]


@pytest.mark.parametrize("name", ADDED)
def test_valid_over_the_whole_domain(name: str) -> None:
    for sizes in _sizes(name):
        schedule = build_schedule(name, *sizes)
        assert check_schedule(schedule) == [], sizes
        text = schedule.to_text()
        shape = (schedule.num_microbatches, schedule.stage_to_rank)
        assert Schedule.from_text(name, *shape, text, schedule.copies) == schedule


@pytest.mark.parametrize("name", [name for name in SCHEDULES if name.endswith(DEFERRED)])
def test_2bp_keeps_the_order_and_adds_no_bubble(name: str) -> None:
    """Without its W, and with B for I, the order is the plain one; p micro-batches more are alive at most."""
    plain_name = name.removesuffix(DEFERRED)
    for pp, m, vpp in _sizes(name)[::3]:
        plain, deferred = build_schedule(plain_name, pp, m, vpp), build_schedule(name, pp, m, vpp)
        assert check_schedule(deferred) == []
        for order, before in zip(deferred.orders, plain.orders, strict=True):
            kept = [step for step in order if step.kind is not PassKind.WEIGHT_GRAD]
            assert [_whole(step) for step in kept] == list(before)
        assert makespan(deferred, 1, 1, 1) <= makespan(plain, 1, 1, 1) + 1e-9
        more = [
            after - before for after, before in zip(peak_activations(deferred), peak_activations(plain), strict=True)
        ]
        assert max(more) <= pp + 1e-9


def _whole(step: Pass) -> Pass:
    return step._replace(kind=PassKind.BACKWARD) if step.kind is PassKind.INPUT_GRAD else step


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("hanayo", lambda pp, m: pp),
        ("chimera", lambda pp, m: pp),
        ("bitpipe", lambda pp, m: pp),
        ("dualpipe", lambda pp, m: pp + 1),
        ("dualpipe-v", lambda pp, m: pp + 0.5),
        ("zeropp", lambda pp, m: len(rounds(m, 2 * pp - 1)[0])),
    ],
)
def test_memory_stays_bounded_whatever_the_size(name: str, most) -> None:  # type: ignore[no-untyped-def]
    for pp, m, vpp in _sizes(name):
        assert max(peak_activations(build_schedule(name, pp, m, vpp))) <= most(pp, m) + 1e-9


def test_interleaved_waits_no_longer_for_odd_numbers_of_microbatches() -> None:
    """Bubble (p - 1)(F + B) / v for every m >= p, not its multiples alone."""
    for pp, m, vpp in _sizes("interleaved-1f1b"):
        if m >= pp:
            assert makespan(build_schedule("interleaved-1f1b", pp, m, vpp), 1, 1, 1) == pytest.approx(
                3 * m + 3 * (pp - 1) / vpp
            )


@pytest.mark.parametrize("m", range(1, 30))
def test_rounds_share_out(m: int) -> None:
    for least in range(1, 12):
        parts = rounds(m, least)
        assert [at for part in parts for at in part] == list(range(m))
        sizes = [len(part) for part in parts]
        assert max(sizes) - min(sizes) <= 1
        assert sizes == sorted(sizes, reverse=True)
        assert min(sizes) >= min(least, m)
        assert len(parts) == max(1, m // least)
