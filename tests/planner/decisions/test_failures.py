"""What a checkpoint holds, what it and a restart take, and what no job survives."""

from __future__ import annotations

from math import sqrt
from typing import Any

import pytest

from costmodel.schema.errors import Infeasible, InvalidSpec
from planner.decisions.failures import DEVICE_MTBF_S, Reliability, estimate_checkpoint_bytes, estimate_goodput

PARAMS = 4 * (2 * 512 * 512 + 2 * 512 * 256 + 3 * 512 * 2048) + 2 * 1000 * 512
"""Matrices of the small plan's model; its norms are a few thousand more."""


def test_a_checkpoint_holds_master_weights_and_moments(make_plan: Any) -> None:
    assert estimate_checkpoint_bytes(make_plan()) == pytest.approx(12 * PARAMS, rel=1e-3)
    plain = make_plan(workload={"optimizer": "sgd", "param_dtype": "fp32", "master_dtype": "none", "precision": "fp32"})
    assert estimate_checkpoint_bytes(plain) == pytest.approx(4 * PARAMS, rel=1e-3)


@pytest.mark.parametrize(("name", "moments"), [("int8", 2.03), ("fp8", 2.19), ("low-rank", 2.0), ("bf16", 4.0)])
def test_moments_are_saved_in_their_format(make_plan: Any, name: str, moments: float) -> None:
    ends = 2 * 1000 * 512
    saved = estimate_checkpoint_bytes(make_plan(layout={"optimizer_format": name}))
    at_ends = 8.0 if name == "low-rank" else moments
    assert saved == pytest.approx(4 * PARAMS + moments * (PARAMS - ends) + at_ends * ends, rel=2e-3)


def test_adapters_alone_are_saved(make_plan: Any) -> None:
    adapters = make_plan(model={"trains": {"rank": 8, "targets": ["q", "v"]}})
    assert estimate_checkpoint_bytes(adapters) < 0.05 * estimate_checkpoint_bytes(make_plan())


def test_times_follow_from_bytes_and_bandwidth(make_plan: Any) -> None:
    plan = make_plan()
    saved = estimate_checkpoint_bytes(plan)
    goodput = estimate_goodput(plan, Reliability(storage_bytes_per_s=saved / 40, restart_s=100))
    assert (goodput.checkpoint_write_s, goodput.checkpoint_stall_s) == pytest.approx((40, 40))
    assert goodput.restart_s == pytest.approx(140)
    assert goodput.mtbf_s == pytest.approx(DEVICE_MTBF_S / 8)
    assert goodput.interval_s == pytest.approx(sqrt(2 * 40 * goodput.mtbf_s), rel=0.02)
    background = estimate_goodput(plan, Reliability(storage_bytes_per_s=saved / 40, restart_s=100, asynchronous=True))
    link = plan.cluster.groups[0].host.copy_bytes_per_s
    assert background.checkpoint_stall_s == pytest.approx(saved / 8 / link)
    assert background.share > goodput.share


def test_checkpoints_come_between_steps(make_plan: Any) -> None:
    step_s = 0.5
    for reliability in (Reliability(), Reliability(asynchronous=True), Reliability(device_mtbf_s=40_000.0)):
        steps = estimate_goodput(make_plan(), reliability).interval_s / step_s
        assert steps == pytest.approx(round(steps))
        assert steps >= 1


def test_the_best_interval_is_hardly_beaten_by_any_given_one(make_plan: Any) -> None:
    plan = make_plan()
    base = Reliability(device_mtbf_s=8 * 3600.0, storage_bytes_per_s=estimate_checkpoint_bytes(plan) / 30)
    best = estimate_goodput(plan, base).share
    for interval_s in (60, 200, 400, 500, 800, 2000):
        given = Reliability(base.device_mtbf_s, base.storage_bytes_per_s, float(interval_s))
        assert estimate_goodput(plan, given).share < best * (1 + 1e-4)


def test_what_was_not_said_is_assumed_aloud(make_plan: Any) -> None:
    said = " ".join(estimate_goodput(make_plan(), Reliability()).assumptions)
    assert all(f"({option})" in said for option in ("--mtbf", "--checkpoint-bandwidth", "--restart-time"))
    assert not estimate_goodput(make_plan(), Reliability(1e9, 1e9, None, 60.0)).assumptions


def test_no_progress_and_overlapping_writes_are_refused(make_plan: Any) -> None:
    with pytest.raises(Infeasible, match="fail every 1 s"):
        estimate_goodput(make_plan(), Reliability(device_mtbf_s=8.0))
    slow = Reliability(storage_bytes_per_s=1e5, interval_s=60.0, asynchronous=True)
    with pytest.raises(InvalidSpec, match="--checkpoint-interval 60s"):
        estimate_goodput(make_plan(), slow)
