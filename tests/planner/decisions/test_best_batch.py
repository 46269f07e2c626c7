"""The batch size of the shortest run: against the closed form and all batches in turn."""

from __future__ import annotations

from math import sqrt
from typing import Any

import pytest

from costmodel.schema.errors import Infeasible
from planner.decisions.best_batch import find_best_batch
from planner.decisions.critical_batch import estimate_tokens
from planner.decisions.failures import Reliability
from planner.decisions.question import Question
from planner.decisions.training import estimate_training
from planner.request import build_request
from planner.search import find_plan

CALM = Reliability(device_mtbf_s=1e15)
SEQ_LEN = 128


def test_tokens_double_from_a_vanishing_batch_to_the_critical_one() -> None:
    assert estimate_tokens(10.0, 0, 4e6, 4e6) == pytest.approx(5.0)
    assert estimate_tokens(10.0, 4e6, 4e6, 4e6) == 10.0
    # Steps fall without end, and never below those of the largest batch.
    steps = [estimate_tokens(1e12, batch, 4e6, 4e6) / batch for batch in (1e6, 4e6, 1e9, 1e12)]
    assert steps == sorted(steps, reverse=True)
    assert steps[-1] == pytest.approx(1e12 / 8e6, rel=1e-4)


@pytest.mark.parametrize("fixed_s", [0.01, 0.1, 1.0])
def test_the_batch_found_is_the_best_of_all_it_may_choose(searching: Any, ask: Any, fixed_s: float) -> None:
    """min (1 + C / B) (f + p B) lies at B = sqrt(C f / p)."""
    each_s, critical = 2e-4, 500 * SEQ_LEN

    def step_s(devices: int, batch: int) -> float:
        return fixed_s + each_s * batch

    question = Question(tokens=1e12, critical_batch_tokens=critical, reliability=CALM)
    found = find_best_batch(searching(step_s), ask, 8, question)
    batch = found.workload.global_batch_size
    assert batch == pytest.approx(sqrt(500 * fixed_s / each_s), rel=0.35)

    def run_s(candidate: int) -> float:
        request = ask(8, candidate)
        plan = searching(step_s)(request)
        return estimate_training(plan, question, 3360 * SEQ_LEN).time_s.mean

    doublings = [105 * 2**power for power in range(9)]
    assert run_s(batch) == min(run_s(candidate) for candidate in [*doublings, batch])
    assert found.notes[0].startswith(f"A batch of {batch:,} sequences")


def test_smaller_batches_end_after_two_that_are_no_better(searching: Any, ask: Any) -> None:
    find = searching(lambda devices, batch: 1.0)
    find_best_batch(find, ask, 8, Question(tokens=1e12, critical_batch_tokens=1e5, reliability=CALM))
    assert min(batch for _, batch in find.asked) == 840


def test_batches_that_do_not_fit_are_passed_over(searching: Any, ask: Any) -> None:
    find = searching(lambda devices, batch: None if batch >= 3360 else 0.1 + batch * 1e-3)
    question = Question(tokens=1e12, critical_batch_tokens=1e5, reliability=CALM)
    assert find_best_batch(find, ask, 8, question).workload.global_batch_size < 3360
    with pytest.raises(Infeasible, match="nothing on 8"):
        find_best_batch(searching(lambda devices, batch: None), ask, 8, question)


def test_with_the_real_search_no_batch_beats_the_flops_bound() -> None:
    def ask_tiny(devices: int | None, batch: int | None) -> Any:
        fix = ["pp=1,tp=1,cp_ring=1,cp_ulysses=1,zero_stage=0"]
        return build_request("tiny", devices, gpu="h100", global_batch_size=batch, calibration="none", fix=fix)

    seen = []

    def find(request: Any, on_progress: Any = None) -> Any:
        plan = find_plan(request, on_progress)
        seen.append(plan)
        return plan

    question = Question(tokens=1e9, critical_batch_tokens=4096, reliability=CALM)
    best = find_best_batch(find, ask_tiny, 1, question)
    assert best.training is not None
    runs = [estimate_training(plan, question, 32 * SEQ_LEN) for plan in seen]
    assert best.training.time_s.mean == min(run.time_s.mean for run in runs)
    for plan, run in zip(seen, runs, strict=True):
        peak_s = plan.prediction.model_flops_per_step * run.steps / 989e12
        assert run.time_s.mean >= peak_s
    assert best.training.tokens == pytest.approx(1e9 * (best.workload.tokens_per_step + 4096) / (32 * SEQ_LEN + 4096))
