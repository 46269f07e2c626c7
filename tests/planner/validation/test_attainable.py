"""What choosing costs once a source's own rows have corrected the model."""

from __future__ import annotations

from itertools import product

import pytest
from measured_rows import llama_row

from planner.validation.attainable import attain_regrets, correct_steps
from planner.validation.regret import judge_choices
from planner.validation.result import PricedRow

TP_FACTOR = {1: 1.0, 2: 1.5, 4: 0.7}


def sweep(odd: tuple[int, int] | None = None, odd_factor: float = 1.0) -> list[PricedRow]:
    """Nine layouts at three depths; predictions off by a factor of tp alone, and of one cell (tp, micro-batch)."""
    rows = []
    for tp, size, layers in product((1, 2, 4), (1, 2, 4), (8, 16, 24)):
        measured = layers * (1.0 + 0.1 * tp + 0.03 * size)
        off = TP_FACTOR[tp] * (odd_factor if (tp, size) == odd else 1.0)
        row = llama_row(id=f"{tp} {size} {layers}", layers=layers, tp=tp, micro_batch=size, step_time_s=measured)
        rows.append(PricedRow(row, step_time_s=measured * off))
    return rows


def regret_of(rows: list[PricedRow]) -> float:
    return max(choice.regret for choice in judge_choices(rows))


def test_factors_of_the_values_mend_what_is_off_by_value() -> None:
    assert regret_of(sweep()) > 0.2
    corrected = correct_steps(sweep(), [("tp",)])
    assert regret_of(corrected) == 0.0
    assert max(abs(one.step_error or 0.0) for one in corrected) < 0.01


def test_one_odd_layer_wants_a_factor_of_its_own_and_the_others_do_not_foretell_it() -> None:
    rows = sweep(odd=(4, 4), odd_factor=0.3)
    rungs = {rung.name: rung for rung in attain_regrets(rows)["made up"]}
    assert rungs["as priced"].regrets.worst == pytest.approx(regret_of(rows))
    assert rungs["a factor for each value"].regrets.mean > 0.1
    assert rungs["and for each layer"].regrets.mean == 0.0
    assert rungs["each value, the layer left out"].regrets.mean > 0.1
    # tp and micro-batch of three values, depth of three: no other column varies.
    assert rungs["a factor for each value"].factors == 9
    assert rungs["and for each layer"].factors == 9 + 9 + 9


def test_a_left_out_layer_is_corrected_by_the_others_alone() -> None:
    before, after = (correct_steps(sweep((4, 4), factor), [("tp",)], leave_out=True) for factor in (1.0, 3.0))
    odd = [place for place, one in enumerate(before) if (one.row.tp, one.row.micro_batch) == (4, 4)]
    for place in odd:
        # Its own rows three times as slow: only the prediction that they started from changes.
        assert after[place].step_time_s == pytest.approx(3.0 * (before[place].step_time_s or 0.0))


def test_the_mean_needs_no_columns() -> None:
    rows = [PricedRow(one.row, step_time_s=2.0 * (one.row.step_time_s or 0.0)) for one in sweep()]
    assert all(one.step_error == pytest.approx(0.0) for one in correct_steps(rows, []))


def test_sources_without_a_choice_and_rows_without_times_are_passed_over() -> None:
    assert not attain_regrets(sweep()[:4])
    unpriced = PricedRow(llama_row(source="unpriced", step_time_s=1.0), reason="unknown")
    assert list(attain_regrets([*sweep(), unpriced])) == ["made up"]
