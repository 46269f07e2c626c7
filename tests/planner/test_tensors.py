"""Placements of tensors agree with the parameters that a rank is charged for."""

from __future__ import annotations

from math import prod

import pytest

from costmodel.even_split import uniform_assignment
from costmodel.layouts import Layouts
from costmodel.parameters import count_layer
from costmodel.schema.layout import Layout
from costmodel.state import estimate_local_params
from planner.problem import Problem
from planner.request import build_request
from planner.tensors import place_tensors

MODELS = ("llama-8b", "mixtral-8x7b", "qwen3-30b-a3b", "deepseek-v3", "deepseek-moe-16b", "mamba2-1.3b", "mamba-2.8b")


def problem_of(model: str, runtime: str = "megatron") -> Problem:
    return Problem.from_request(build_request(model, 8, runtime=runtime, calibration="none"))


@pytest.mark.parametrize("model", MODELS)
def test_matrices_are_those_that_are_counted(model: str) -> None:
    """What tp and ep split is all that is counted as split, but for vectors; what they replicate is no more."""
    spec = problem_of(model).setting.model
    tensors = place_tensors(problem_of(model).setting, Layout(tp=2, ep=2, dp_shard=4, etp=2, zero_stage=1))
    for kind in spec.kinds:
        counted = count_layer(kind, spec)
        own = [one for one in tensors if one.tensor.startswith(f"{kind.name}.")]
        sizes = {"sharded": 0, "replicated": 0, "expert": 0}
        for one in own:
            over_tp = one.placements.get("tp")
            where = "expert" if over_tp is None else "replicated" if over_tp == "Replicate" else "sharded"
            sizes[where] += prod(one.shape)
        vectors = 64 * spec.hidden_size
        assert sizes["expert"] == counted.expert
        if kind.mtp:
            continue  # its projection is counted as split
        assert counted.sharded - vectors <= sizes["sharded"] <= counted.sharded
        assert counted.replicated - vectors <= sizes["replicated"] <= counted.replicated


@pytest.mark.parametrize("model", ["mixtral-8x7b", "deepseek-moe-16b"])
@pytest.mark.parametrize(("tp", "ep", "etp"), [(1, 8, 1), (2, 4, 1), (4, 2, 4), (8, 1, 8)])
def test_a_ranks_share_is_what_memory_charges(model: str, tp: int, ep: int, etp: int) -> None:
    problem = problem_of(model)
    layout = Layout(tp=tp, ep=ep, etp=etp, dp_shard=8 // tp, zero_stage=1)
    columns = Layouts.from_rows([(layout, "1f1b")])
    params = estimate_local_params(
        problem.setting, columns, uniform_assignment(problem.kinds, problem.num_kinds, columns, 0)
    )
    names = [kind.name for kind in problem.setting.model.kinds]
    dense = expert = 0.0
    for one in place_tensors(problem.setting, layout):
        kind = one.tensor.split(".")[0]
        if kind not in (*names, "embedding", "head"):
            continue
        copies = problem.kinds.count(names.index(kind)) if kind in names else 1
        split = prod(getattr(layout, axis) for axis, placement in one.placements.items() if placement != "Replicate")
        if {"ep", "etp", "edp"} & set(one.placements):
            expert += copies * prod(one.shape) / split
        else:
            dense += copies * prod(one.shape) / split
    assert expert == pytest.approx(float(params.expert.sum()), rel=1e-12)
    assert dense == pytest.approx(float(params.dense.sum()), rel=2e-3)


def test_stages_and_context_parallelism() -> None:
    setting = problem_of("llama-8b", "torchtitan").setting
    at = {stage: Layout(dp_shard=2, cp_ring=2, dp_replicate=2, zero_stage=stage) for stage in (1, 3)}
    split, whole = {"cp_ring": "Shard(0)", "dp_shard": "Shard(0)"}, {"cp_ring": "Replicate", "dp_shard": "Replicate"}
    for stage, parameters in ((1, whole), (3, split)):
        found = {one.tensor: one.placements for one in place_tensors(setting, at[stage])}
        assert found["dense.attention.q"] == parameters | {"dp_replicate": "Replicate"}
        assert found["optimizer state"] == split | {"dp_replicate": "Replicate"}
        assert found["hidden states"] == {"cp_ring": "Shard(1)", "dp_shard": "Shard(0)", "dp_replicate": "Shard(0)"}


def test_fewer_heads_than_ranks_are_replicated_and_one_device_places_nothing() -> None:
    setting = problem_of("llama-8b").setting
    wide = {one.tensor: one.placements for one in place_tensors(setting, Layout(tp=16))}
    assert wide["dense.attention.k"] == {"tp": "Replicate"}
    assert all(not one.placements for one in place_tensors(setting, Layout()))
