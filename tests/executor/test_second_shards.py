"""Parameters that stay split over near ranks from forward to backward: same gradients, memory as priced."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from plans import build_plan, small_model
from test_parity import assert_parity
from worker_pool import WorkerPool

from costmodel.schema.errors import InvalidSpec
from costmodel.schema.layout import Layout
from executor.capabilities import check_runnable

USUAL = Layout(dp_shard=4, zero_stage=3, num_microbatches=2)


def _between(num_ranks: int, **changes: int) -> Layout:
    return USUAL.model_copy(update={"reshard_after_forward": num_ranks, **changes})


@pytest.mark.parametrize(
    "layout",
    [_between(2), _between(1), _between(1, dp_replicate=2, dp_shard=2), _between(1, tp=2, dp_shard=2)],
    ids=["two", "whole", "whole-hybrid", "whole-tp"],
)
def test_gradients_do_not_depend_on_the_second_shards(layout: Layout, workers: Callable[[int], WorkerPool]) -> None:
    assert_parity(build_plan(layout, recompute=("full", "none"), seq_len=32), workers(4))


def test_backward_gathers_cross_near_ranks_and_shards_wait_for_it(workers: Callable[[int], WorkerPool]) -> None:
    """Over the usual layout: the k-th of the layers' parameters is alive between the passes, as priced."""
    model = small_model(8, hidden_size=128)
    sizes = {}
    for num_ranks in (0, 2, 1):
        plan = build_plan(_between(num_ranks), model=model)
        sizes[num_ranks] = workers(4).run("peak_bytes", plan=plan.model_dump_json())[0]
    layer = (128 * 128 * 3 + 128 * 256 * 3 + 2 * 128) * 8  # float64
    for num_ranks in (2, 1):
        grown = sizes[num_ranks] - sizes[0]
        assert grown == pytest.approx(7 * layer / num_ranks, rel=0.15)


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (Layout(tp=2, dp_shard=4, zero_stage=3, reshard_after_forward=2), "beside tp = 2 the executor runs 0 and 1"),
        (Layout(pp=2, dp_shard=4, zero_stage=3, reshard_after_forward=2), "under a pipeline parameters stay gathered"),
        (Layout(dp_shard=4, zero_stage=3, shard_params=2), "layout.shard_params = 2"),
        (Layout(dp_replicate=2, dp_shard=2, zero_stage=2, shard_optim=4), "layout.shard_optim = 4"),
    ],
)
def test_what_it_does_not_go_with_is_refused(layout: Layout, message: str) -> None:
    with pytest.raises(InvalidSpec, match=message):
        check_runnable(build_plan(layout))
