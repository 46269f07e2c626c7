"""Frozen passes in bubbles: all of them placed, in order, and free as long as the bubbles have room."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodel.passes import check_schedule
from costmodel.schema.errors import InvalidSpec
from costmodel.schema.schedule import PassKind, Schedule
from planner.schedules import build_schedule
from planner.schedules.bubble_filling import fill_bubbles
from planner.schedules.report import rank_times
from planner.simulator import simulate


def _filled(name: str, pp: int, m: int, pieces: list[float]) -> tuple[Schedule, float, float]:
    """The filled schedule, and makespans without and with the frozen passes."""
    plain = build_schedule(name, pp, m)
    filled = fill_bubbles(plain, rank_times(plain, 1, 1, 1, 0), pieces)
    spans = [simulate(one, rank_times(one, 1, 1, 1, 0, frozen=pieces)).makespan_s for one in (plain, filled)]
    return filled, spans[0], spans[1]


@settings(deadline=None, max_examples=40)
@given(
    name=st.sampled_from(["1f1b", "gpipe", "zb-h1"]),
    pp=st.integers(2, 6),
    m=st.integers(1, 12),
    pieces=st.lists(st.floats(0, 3), min_size=1, max_size=4),
)
def test_every_piece_of_every_microbatch_runs_once_and_nothing_else_moves(
    name: str, pp: int, m: int, pieces: list[float]
) -> None:
    filled, before_s, after_s = _filled(name, pp, m, pieces)
    assert check_schedule(filled) == []
    kept = [tuple(step for step in order if step.kind is not PassKind.FROZEN_FORWARD) for order in filled.orders]
    assert tuple(kept) == build_schedule(name, pp, m).orders
    frozen = [step for order in filled.orders for step in order if step.kind is PassKind.FROZEN_FORWARD]
    assert sorted((step.stage, step.microbatch) for step in frozen) == [
        (piece, microbatch) for piece in range(len(pieces)) for microbatch in range(m)
    ]
    assert before_s - 1e-6 <= after_s <= before_s + m * sum(pieces) + 1e-6


def test_small_pieces_are_free() -> None:
    """1F1B's four ranks idle 9 units each; eight micro-batches of 3 fit into the 36."""
    _, before_s, after_s = _filled("1f1b", 4, 8, [0.5] * 6)
    assert after_s == pytest.approx(before_s)


def test_what_does_not_fit_is_added() -> None:
    """Without a pipeline there is no bubble."""
    _, before_s, after_s = _filled("1f1b", 1, 4, [2.0])
    assert after_s == pytest.approx(before_s + 8.0)


def test_a_piece_that_takes_no_finite_time_is_refused() -> None:
    with pytest.raises(InvalidSpec, match=r"piece_s\[1\] = nan"):
        _filled("1f1b", 2, 2, [1.0, float("nan")])
