"""Rows that were slower than others with more work of the same kind."""

from __future__ import annotations

import pytest
from measured_rows import llama_row

from planner.validation.result import PricedRow
from planner.validation.work_order import find_contradictions


def measured(seconds: float | None, **changes: object) -> PricedRow:
    stated = {"layers": 16, "hidden": 1024, **changes}
    return PricedRow(llama_row(id=str(seconds), step_time_s=seconds, **stated))


def test_a_larger_micro_batch_that_was_faster() -> None:
    rows = [
        measured(3.0, micro_batch=1, global_batch=16),
        measured(3.3, micro_batch=2, global_batch=32),
        measured(2.5, micro_batch=4, global_batch=64),
    ]
    found = find_contradictions(rows)
    assert [(one.slower.id, one.faster.id) for one in found] == [("3.3", "2.5"), ("3.0", "2.5")]
    assert [one.ratio for one in found] == pytest.approx([3.3 / 2.5, 3.0 / 2.5])


def test_more_work_that_took_longer_contradicts_nothing() -> None:
    rows = [
        measured(1.0),
        measured(1.0, hidden=2048),
        measured(2.0, layers=32),
        measured(2.0, dp=16, gpus=16, global_batch=16),
    ]
    assert not find_contradictions(rows)


@pytest.mark.parametrize(
    "changes",
    [
        {"tp": 2},
        {"pp": 2},
        {"gpu": "H200"},
        {"source": "another"},
        {"flags": {"kernel": "fused"}},
        {"global_batch": 16},
    ],
)
def test_rows_of_another_place_are_not_compared(changes: dict[str, object]) -> None:
    assert not find_contradictions([measured(3.0), measured(1.0, hidden=2048, **changes)])
    assert len(find_contradictions([measured(3.0), measured(1.0, hidden=2048)])) == 1


def test_less_of_one_column_and_more_of_another_is_no_order() -> None:
    assert not find_contradictions([measured(3.0, layers=32), measured(1.0, hidden=2048)])


def test_rows_that_leave_their_work_open_are_passed_over() -> None:
    assert not find_contradictions([measured(None), measured(3.0, layers=None), measured(1.0, hidden=2048)])
