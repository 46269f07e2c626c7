"""Paths of a split backward, and of few micro-batches, in tight bounds."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from small_instances import build_model, build_request, price_space, slower

from costmodel.catalog.runtimes import load_runtime
from costmodel.layouts import SCHEDULE_CODES
from costmodel.schedules import SCHEDULES
from planner.evaluate import evaluate
from planner.kept import count_kept
from planner.placement import Placement
from planner.schedules import EQUAL_TIMES, PassTimes, build_schedule
from planner.search.bounds import extras_floor_s
from planner.search.place import place
from planner.search.split_paths import most_ahead
from planner.search.tight import tighten

AMPLE = 1e15
ONE_SPLIT_STAGE = [
    name for name, form in SCHEDULES.items() if form.splits_backward and form.copies == 1 and form.allows(4, 8, 1)
]


@pytest.mark.parametrize(
    ("schedule", "vpp", "batch", "tight"),
    [
        ("zb-h1", 1, 1, 0.96), ("zb-h1", 1, 4, 0.9), ("zb-h2", 1, 8, 0.97), ("1f1b+2bp", 1, 4, 0.9),
        ("interleaved-1f1b", 2, 1, 0.999), ("hanayo", 2, 1, 0.999), ("zb-v", 2, 1, 0.96),
    ],
)  # fmt: skip
def test_tight_bounds_are_near_for_few_micro_batches(schedule: str, vpp: int, batch: int, tight: float) -> None:
    """Sixteen equal layers on four ranks; most of the step is a micro-batch's way there and back."""
    fixed = {"pp": 4, "vpp": vpp, "micro_batch_size": 1, "recompute": "none", "zero_stage": 0}
    model = build_model(num_layers=16, hidden=4096, vocab=8)
    request = build_request(model, 4, seq_len=4096, global_batch_size=batch, fixed=fixed, schedules=(schedule,))
    problem, layers = price_space(request)
    one = layers.take(np.array([0]))
    after_s = extras_floor_s(one, problem.kinds, problem.num_kinds, (0,))
    step_s = place(problem, one, after_s, ((0,),), AMPLE, np.inf)[0].step_s
    (bound_s,) = tighten(problem, one, (0,), AMPLE, np.zeros(1), after_s, step_s * 1.001)
    assert tight * step_s <= bound_s <= step_s * (1.0 + 1e-9)


@pytest.mark.parametrize("schedule", ONE_SPLIT_STAGE)
def test_no_rank_is_further_ahead_than_its_paths_assume(schedule: str) -> None:
    """Counted in the order itself, under unlike times of the passes."""
    _, layers = price_space(build_request(build_model(), 2))
    code = np.array([SCHEDULE_CODES.index(schedule)])
    for pp, batch, times in product((2, 3, 5), (1, 2, 4, 11), (EQUAL_TIMES, PassTimes(0.5, 1.0, 1.0, 0.2))):
        row = replace(
            layers.layouts.take(np.array([0])), schedule=code, pp=np.array([pp]), num_microbatches=np.array([batch])
        )
        counted = count_kept(build_schedule(schedule, pp, batch, times=times))
        ahead = [int((change[change != 0] < 0).argmax()) for change in counted.unreached]
        assert (ahead <= most_ahead(row, np.arange(pp)[None])[0]).all(), (pp, batch, times)


@pytest.mark.parametrize("schedule", ["1f1b", *ONE_SPLIT_STAGE])
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_sends_that_block_their_ranks_count_once(schedule: str, batch: int) -> None:
    """Small layers far apart, of next to no weights: most of a stage's time is what it waits for its own sends."""
    torch = load_runtime("torch")
    overlap = torch.overlap.model_copy(update={"pipeline": 0.0})
    runtime = torch.model_copy(update={"overlap": overlap, "uneven_stages": False})
    fixed = {"pp": 4, "micro_batch_size": 1, "recompute": "none", "zero_stage": 0}
    request = build_request(
        build_model(num_layers=4, hidden=512, vocab=1000), 4, seq_len=4096, global_batch_size=batch, fixed=fixed,
        schedules=(schedule,), runtime=runtime,
    )  # fmt: skip
    problem, layers = price_space(replace(request, cluster=slower(request.cluster, 100.0, 0.0)))
    one = replace(layers, costs=replace(layers.costs, weight_grad_s=0.01 * layers.costs.weight_grad_s))
    one = one.take(np.array([0]))
    assert one.busy_s[0] > one.forward[0, 0]
    after_s = extras_floor_s(one, problem.kinds, problem.num_kinds, (0,))
    step_s = evaluate(problem, Placement(one.layouts.row(0), schedule, (1,) * 4, (0,) * 4), layers=one).step_time_s
    (bound_s,) = tighten(problem, one, (0,), AMPLE, np.zeros(1), after_s, step_s * 1.5)
    assert 0.75 * step_s < bound_s <= step_s * (1.0 + 1e-9)
