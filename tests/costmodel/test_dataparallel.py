"""What data parallelism adds: volumes, copies in device memory, waits for the slowest rank, the update."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pricing import make_problem, price_uniform

from costmodel.catalog.runtimes import load_runtime
from costmodel.layouts import Layouts
from costmodel.price import Priced
from costmodel.schema.layout import Layout
from planner.problem import Problem

GPUS = 64


def problem(state: dict[str, Any] | None = None, kernels: dict[str, Any] | None = None) -> Problem:
    """Llama 3.1 8B on 64 H100 under ``torch`` with nothing hidden, and with changed rules."""
    base = make_problem("llama-3.1-8b", GPUS, gpu="h100", runtime="torch")
    runtime = base.setting.runtime
    nothing = {"param_gather": 0.0, "grad_reduce": 0.0, "compute_slowdown": 1.0}
    changed = runtime.model_copy(
        update={
            "state": runtime.state.model_copy(update=state or {}),
            "kernels": runtime.kernels.model_copy(update=kernels or {}),
            "overlap": runtime.overlap.model_copy(update=nothing),
        }
    )
    return replace(base, setting=replace(base.setting, runtime=changed))


def priced(which: Problem, **degrees: int) -> Priced:
    layout = Layout.load({"num_microbatches": 2, **degrees}, "a test")
    return price_uniform(which, Layouts.from_rows([(layout, "1f1b")]))


def test_an_all_reduce_of_gradients_sends_twice_a_scatter() -> None:
    """Stage 1 over 64 ranks: gather 2 bytes and scatter 4 of every parameter; all-reduced, 4 cross twice."""
    scattered = priced(problem(), dp_shard=GPUS, zero_stage=1)
    reduced = priced(problem({"all_reduces_grads": True}), dp_shard=GPUS, zero_stage=1)
    params, share = float(scattered.params.total[0, 0]), 63 / 64
    assert float(scattered.sent_bytes.sum()) == pytest.approx((2 + 4) * share * params)
    assert float(reduced.sent_bytes.sum()) == pytest.approx((2 + 8) * share * params)
    assert reduced.extras.dp_total_s[0, 0] > scattered.extras.dp_total_s[0, 0]


def test_an_all_reduce_reaches_the_replicas_of_a_shard_group_too() -> None:
    reduced = priced(problem({"all_reduces_grads": True}), dp_shard=8, dp_replicate=8, zero_stage=1)
    params = float(reduced.params.total[0, 0])
    assert float(reduced.sent_bytes.sum()) == pytest.approx((2 * 7 / 8 + 8 * 63 / 64) * params)


def test_a_share_of_the_network_counts_between_nodes_alone() -> None:
    half = problem({"network_share": 0.5})
    inside = {"tp": 8, "dp_replicate": 8, "zero_stage": 0}
    across = {"dp_shard": GPUS, "zero_stage": 3}
    within = {"pp": 8, "dp_shard": 8, "zero_stage": 1}
    for degrees in (inside, across):
        fast, slow = priced(problem(), **degrees).extras, priced(half, **degrees).extras
        assert 1.5 < slow.dp_total_s[0, 0] / fast.dp_total_s[0, 0] < 2.0
    assert priced(half, **within).extras.dp_total_s == pytest.approx(priced(problem(), **within).extras.dp_total_s)


@pytest.mark.parametrize(("stage", "gathers", "reductions"), [(1, 0, 0), (2, 1, 2), (3, 4, 2)])
def test_copies_of_what_is_gathered_and_reduced(stage: int, gathers: int, reductions: int) -> None:
    """Two micro-batches; a gather's pass reads and writes 2 bytes a parameter, a gradient's reads 2 and writes 4."""
    none = priced(problem({"gather_copies": 0.0, "reduce_copies": 0.0}), dp_shard=GPUS, zero_stage=stage).extras
    some = priced(problem({"gather_copies": 1.0, "reduce_copies": 3.0}), dp_shard=GPUS, zero_stage=stage)
    device = some.layers.setting.device
    moved = float(some.params.total[0, 0]) * (gathers * 4.0 + reductions * 3.0 * 6.0)
    expected = moved / (device.memory_bytes_per_s * device.memory_fraction)
    assert float(some.extras.dp_total_s[0, 0] - none.dp_total_s[0, 0]) == pytest.approx(expected, abs=1e-12)
    assert float(some.extras.dp_exposed_s[0, 0] - none.dp_exposed_s[0, 0]) == pytest.approx(expected, abs=1e-12)


def test_sharded_layers_wait_for_the_slowest_rank_and_replicas_do_not() -> None:
    calm, uneasy = problem({"gather_jitter": 0.0}), problem({"gather_jitter": 0.02})
    for stage, per_e_fold in ((1, 0.0), (2, 0.02), (3, 0.02)):
        degrees = {"dp_shard": GPUS, "zero_stage": stage}
        more = priced(uneasy, **degrees).layers.jitter - priced(calm, **degrees).layers.jitter
        assert more == pytest.approx(np.array([per_e_fold * np.log(GPUS)]))


def test_an_unfused_update_moves_as_many_bytes_more() -> None:
    host_s = problem().setting.runtime.kernels.host_s_per_step
    fused, passes = (
        priced(problem(kernels={"optimizer_bytes_factor": factor}), dp_shard=8, dp_replicate=8, zero_stage=1)
        for factor in (1.0, 2.7)
    )
    on_device = fused.extras.optimizer_s - host_s
    assert passes.extras.optimizer_s - host_s == pytest.approx(2.7 * on_device)


def test_owners_slow_a_step_down_with_their_number() -> None:
    """Even shares are gathered in a time that hardly depends on the ranks; owners' broadcasts grow with them."""

    def gather_s(owned: bool, shard: int) -> float:
        rules = {"broadcasts_owned": owned, "all_reduces_grads": True}
        degrees = {"dp_shard": shard, "dp_replicate": GPUS // shard, "zero_stage": 1}
        return float(priced(problem(rules), **degrees).extras.dp_total_s[0, 0])

    assert gather_s(True, 64) - gather_s(True, 16) > 2.0 * abs(gather_s(False, 64) - gather_s(False, 16))


def test_runtimes_say_what_their_frameworks_do() -> None:
    assert load_runtime("fsdp").state.reduce_copies > load_runtime("torch").state.reduce_copies > 0.0
    assert load_runtime("fsdp").state.gather_copies == 0.0
    assert load_runtime("deepspeed-2021").state.network_share < load_runtime("deepspeed").state.network_share
    assert load_runtime("megatron").state.gather_jitter == 0.0
