"""The layouts that are enumerated: all of them legal, none twice, and none that somebody is known to use left out."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from small_instances import build_model, build_request, random_request, with_request

from costmodel.catalog.models import load_model
from costmodel.layouts import SCHEDULE_CODES, Layouts
from planner.request import Request
from planner.request import build_request as build_catalog_request
from planner.schedules import supports
from planner.search.space import enumerate_layouts


def as_rows(layouts: Layouts) -> np.ndarray:
    return np.stack([np.asarray(getattr(layouts, field.name), np.float64) for field in fields(Layouts)], axis=1)


def check_rows(request: Request) -> None:
    """Both world equations, and whatever must divide."""
    layouts, workload, world = enumerate_layouts(request), request.workload, request.cluster.num_devices
    assert len(layouts)
    one = layouts
    np.testing.assert_array_equal(
        one.pp * one.dp_replicate * one.dp_shard * one.cp_ring * one.cp_ulysses * one.tp, world
    )
    np.testing.assert_array_equal(one.etp * one.ep * one.edp, one.tp * one.cp * one.dp)
    batch = one.dp_replicate * one.dp_shard * one.micro_batch_size * one.num_microbatches
    np.testing.assert_array_equal(batch, workload.global_batch_size)
    assert not (workload.seq_len % np.where(one.cp > 1, 2 * one.cp, 1)).any()
    for kind in request.model.kinds:
        for block in kind.blocks:
            if hasattr(block, "num_heads"):
                assert not (block.num_heads % (one.tp * one.cp_ulysses)).any()
            if hasattr(block, "num_experts"):
                assert not (block.num_experts % one.ep).any()
                assert ((one.order == 0) | (one.etp * one.ep == one.tp * one.cp)).all()
    runtime = request.runtime
    alone = 2 * (runtime.ends_without_layers & (one.vocab_parallel == 0))
    assert (one.pp * one.vpp <= request.model.num_layers + alone).all()
    assert len(np.unique(as_rows(one), axis=0)) == len(one)
    assert set(one.zero_stage.tolist()) <= set(runtime.state.zero_stages)
    assert not ((one.zero_stage == 0) & (one.dp_shard > 1)).any()
    for code in np.unique(one.schedule).tolist():
        rows = one.take(one.schedule == code)
        assert SCHEDULE_CODES[code] in runtime.schedules
        assert np.all(supports(SCHEDULE_CODES[code], rows.pp, rows.num_microbatches, rows.vpp))
    for row in range(0, len(one), max(1, len(one) // 20)):
        assert one.row(row).world_size == world


@pytest.mark.parametrize("seed", range(40))
def test_every_row_is_legal(seed: int) -> None:
    check_rows(random_request(seed))


@pytest.mark.parametrize(
    ("model", "gpus", "runtime"),
    [
        ("llama-70b", 64, "torch"),
        ("mixtral-8x22b", 32, "megatron"),
        ("gemma-3-27b", 32, "torchtitan"),
        ("deepseek-v3", 32, "megatron"),
    ],
)
def test_every_row_is_legal_for_known_models(model: str, gpus: int, runtime: str) -> None:
    check_rows(build_catalog_request(model, gpus, runtime=runtime, calibration="none"))


def test_small_space_by_hand() -> None:
    """Two devices, one kind, batch 2, only 1f1b and stage 0: tp 2; pp 2 with micro-batches of 1 and 2; dp 2."""
    request = build_request(
        build_model(), 2, global_batch_size=2, fixed={"schedule": "1f1b", "zero_stage": 0},
        forbidden=frozenset({"optimizer_offload", "cp_ring", "cp_ulysses", "sequence_parallel"}),
    )  # fmt: skip
    layouts = enumerate_layouts(request)
    degrees = zip(layouts.tp, layouts.pp, layouts.dp_replicate, layouts.micro_batch_size, strict=True)
    expected = [(1, 1, 2, 1), (1, 2, 1, 1), (1, 2, 1, 2), (2, 1, 1, 1), (2, 1, 1, 2)]
    assert sorted(tuple(map(int, row)) for row in degrees) == expected


FIXED = (
    {"tp": 4}, {"pp": 2}, {"vpp": 2}, {"dp_shard": 2}, {"dp_replicate": 4}, {"micro_batch_size": 2}, {"zero_stage": 3},
    {"schedule": "zb-h1"}, {"sequence_parallel": False}, {"sequence_parallel": True}, {"tp": 2, "pp": 2},
    {"ep": 4}, {"cp_ring": 2}, {"cp_ulysses": 2},
)  # fmt: skip


@pytest.mark.parametrize("fixed", FIXED, ids=str)
def test_fixed_selects_rows_of_the_whole_space(fixed: dict[str, int | str]) -> None:
    runtime = "megatron" if {"cp_ring", "cp_ulysses", "ep"} & fixed.keys() else "torch"
    request = build_request(build_model("mixture"), 8, seq_len=8192, runtime=runtime)
    whole, some = enumerate_layouts(request), enumerate_layouts(with_request(request, fixed=fixed))
    mask = np.ones(len(whole), bool)
    for key, value in fixed.items():
        if key == "sequence_parallel":
            mask &= (whole.sequence_parallel == value) | (whole.tp == 1)
        else:
            mask &= getattr(whole, key) == (SCHEDULE_CODES.index(str(value)) if key == "schedule" else value)
    assert 0 < mask.sum() < len(whole)
    assert {tuple(row) for row in as_rows(some)} == {tuple(row) for row in as_rows(whole.take(mask))}


@pytest.mark.parametrize(
    ("key", "value", "degrees"),
    [("etp", 2, {"tp": 4}), ("vpp", 7, {"pp": 2}), ("micro_batch_size", 128, {"pp": 8}), ("tp", 16, {})],
)
def test_what_is_fixed_may_lie_beyond_what_is_tried(key: str, value: int, degrees: dict[str, int]) -> None:
    """Experts cut finer than attention, odd chunks, huge micro-batches, tensor parallelism between nodes."""
    model = build_model("mixture", num_layers=14, heads=16)
    request = build_request(model, 16, global_batch_size=512, runtime="megatron", gpus_per_node=8)
    assert value not in getattr(enumerate_layouts(with_request(request, fixed=degrees)), key)
    some = enumerate_layouts(with_request(request, fixed={key: value, **degrees}))
    assert len(some)
    assert set(getattr(some, key).tolist()) == {value}


@pytest.mark.parametrize("name", ["tp", "pp", "vpp", "cp_ring", "cp_ulysses", "ep", "etp", "dp_replicate", "dp_shard"])
def test_forbidden_degrees_stay_one(name: str) -> None:
    request = build_request(build_model("mixture"), 8, seq_len=8192, runtime="megatron")
    some = enumerate_layouts(with_request(request, forbidden=frozenset({name})))
    whole = enumerate_layouts(request)
    assert len(some) == (getattr(whole, name) == 1).sum() < len(whole)


@pytest.mark.parametrize(
    ("name", "column", "gone"),
    [
        ("zero1", "zero_stage", 1), ("zero2", "zero_stage", 2), ("zero3", "zero_stage", 3),
        ("gpipe", "schedule", SCHEDULE_CODES.index("gpipe")), ("zb-h1", "schedule", SCHEDULE_CODES.index("zb-h1")),
    ],
)  # fmt: skip
def test_forbidden_techniques_are_gone(name: str, column: str, gone: int) -> None:
    request = build_request(build_model(), 8)
    some = enumerate_layouts(with_request(request, forbidden=frozenset({name})))
    whole = enumerate_layouts(request)
    assert len(some) == (getattr(whole, column) != gone).sum() < len(whole)


def test_offload_of_the_optimizer_can_be_forbidden() -> None:
    request = build_request(build_model(), 8, runtime="megatron")
    assert enumerate_layouts(request).optimizer_offload.max() == 1
    forbidden = with_request(request, forbidden=frozenset({"optimizer_offload"}))
    assert enumerate_layouts(forbidden).optimizer_offload.max() == 0


def test_megatron_trillion_layout_is_in_the_space() -> None:
    """The published run of a trillion parameters on 3072 GPUs: tensor 8, pipeline 64, data 6, micro-batch 1.

    Source: Narayanan et al. 2021, table 1 and section 5.1.
    """
    request = build_catalog_request(
        "megatron-gpt-1t", 3072, gpu="a100-80g", runtime="megatron-2021", global_batch_size=3072, seq_len=2048,
        calibration="none",
    )  # fmt: skip
    layouts = enumerate_layouts(request)
    wanted = {"tp": 8, "pp": 64, "dp_replicate": 6, "dp_shard": 1, "zero_stage": 0, "micro_batch_size": 1, "vpp": 1}
    mask = layouts.schedule == SCHEDULE_CODES.index("1f1b")
    for name, value in wanted.items():
        mask &= getattr(layouts, name) == value
    assert mask.sum() == 1
    assert load_model("megatron-gpt-1t").num_layers == 128
    assert layouts.take(mask).num_microbatches.tolist() == [512]
