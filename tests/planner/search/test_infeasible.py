"""Requests that cannot be met: every message says how far off they are, or what would work."""

from __future__ import annotations

import re

import pytest
from small_instances import build_model, build_request, with_request

from costmodel.catalog.clusters import default_cluster
from costmodel.schema.errors import Infeasible, InvalidSpec
from planner.request import build_request as build_catalog_request
from planner.search.find import find_plan
from planner.search.policies import policy_sets
from planner.search.space import enumerate_layouts


def refusal(request: object) -> Infeasible:
    with pytest.raises(Infeasible) as caught:
        find_plan(request)  # type: ignore[arg-type]
    return caught.value


def test_too_large_a_model_says_what_it_needs_and_what_would_do() -> None:
    """70B on eight 24 GB cards. The hint's number of GPUs must be a way out, and half of it none."""
    request = build_catalog_request(
        "llama-70b", 8, gpu="rtx4090", seq_len=2048, global_batch_size=64, calibration="none"
    )
    error = refusal(request)
    needed, left = (float(figure) for figure in re.findall(r"(\d+\.\d) GiB", error.message))
    assert needed > left > 0
    assert left < 24
    assert "8 rtx4090" in error.message
    assert "llama" in error.message
    assert re.search(r"tp \d+, pp \d+", error.message)
    assert error.hint
    suggested = re.search(r"--gpus (\d+)", error.hint)
    assert suggested
    gpus = int(suggested[1])
    assert gpus > 8
    half, whole = (
        with_request(request, cluster=default_cluster(request.device, count), gap=0.5, top=0)
        for count in (gpus // 2, gpus)
    )
    assert "does not fit" in refusal(half).message
    assert find_plan(whole).prediction.memory.fits_probability >= 0.95


def test_a_runtime_with_which_it_fits_is_named() -> None:
    """Experts of 47B parameters, gathered whole where no rank may hold some of them."""
    question = {"model": "mixtral-8x7b", "gpus": 8, "seq_len": 4096, "global_batch_size": 8, "calibration": "none"}
    hint = refusal(build_catalog_request(**question)).hint or ""  # type: ignore[arg-type]
    assert hint.startswith("with --runtime megatron a layout fits; else try --gpus 16")
    assert find_plan(build_catalog_request(**question, runtime="megatron", gap=0.5, top=0)).layout.ep > 1  # type: ignore[arg-type]


def test_memory_alone_rules_out_where_nothing_fits() -> None:
    """Layouts that fit on average, but no stage by stage: there is no answer that a bound could be held against."""
    request = build_catalog_request("deepseek-v3", 512, calibration="none")
    reasons = refusal(with_request(request, fixed={"pp": 1, "tp": 8})).reasons
    assert [reason.split("ruled out by ")[1] for reason in reasons] == ["memory", "memory, layer by layer"]


def test_a_batch_that_does_not_divide_says_so() -> None:
    """Seven devices, batch 16, heads that 7 does not divide, and no seven stages: no degree can be seven."""
    error = refusal(build_request(build_model(num_layers=4), 7, gpus_per_node=7))
    assert "no layout" in error.message
    assert "7 h100" in error.message
    assert "batch 16" in error.message
    assert error.hint
    assert "--gpus" in error.hint


@pytest.mark.parametrize(
    ("fixed", "forbidden"),
    [
        ({"tp": 3}, frozenset()),
        ({"tp": 8, "pp": 8}, frozenset()),
        ({"micro_batch_size": 5}, frozenset()),
        ({"vpp": 4, "schedule": "1f1b"}, frozenset()),
        ({"pp": 8, "schedule": "interleaved-1f1b", "micro_batch_size": 16}, frozenset()),
        ({}, frozenset({"tp", "pp", "dp_shard", "dp_replicate", "cp_ring", "cp_ulysses"})),
    ],
    ids=str,
)
def test_too_many_constraints_are_named(fixed: dict[str, int | str], forbidden: frozenset[str]) -> None:
    error = refusal(build_request(build_model(), 8, fixed=fixed, forbidden=forbidden))
    assert "no layout" in error.message
    for key, value in fixed.items():
        assert f"--fix {key}={value}" in error.message
    for name in forbidden:
        assert f"--forbid {name}" in error.message
    assert "relax" in (error.hint or "")


def test_constraints_that_cost_the_memory_are_named() -> None:
    """7B in one replica without sharding or recomputation: it would fit, were it not for what was fixed."""
    fixed = {"tp": 1, "pp": 1, "zero_stage": 0}
    error = refusal(
        build_catalog_request("llama-8b", 8, fix=[f"{k}={v}" for k, v in fixed.items()], calibration="none")
    )
    assert "does not fit" in error.message
    assert all(f"--fix {key}={value}" in error.message for key, value in fixed.items())
    assert any("memory" in reason for reason in error.reasons)


def test_no_policy_left_is_refused() -> None:
    request = build_request(build_model(), 8, fixed={"recompute": "full"}, forbidden=frozenset({"recompute"}))
    with pytest.raises(InvalidSpec, match="recompute"):
        policy_sets(request)
    with pytest.raises(InvalidSpec, match="recompute"):
        find_plan(request)


@pytest.mark.parametrize(("gpus", "near"), [(1000, (992, 1024)), (1016, (992, 1024))])
def test_a_count_without_layouts_names_the_nearest_that_have_some(gpus: int, near: tuple[int, int]) -> None:
    with pytest.raises(Infeasible) as refused:
        find_plan(build_catalog_request("llama-8b", gpus))
    assert f"layouts exist on {near[0]} and {near[1]} devices" in str(refused.value.hint)
    for count in range(near[0] + 8, near[1], 8):
        assert not len(enumerate_layouts(build_catalog_request("llama-8b", count)))
    assert all(len(enumerate_layouts(build_catalog_request("llama-8b", count))) for count in near)
