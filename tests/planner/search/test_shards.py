"""Shard groups in the space: those that end where a level does, none twice, and what is left out is never better."""

from __future__ import annotations

from dataclasses import fields
from itertools import product

import numpy as np
import pytest
from small_instances import build_model, build_request, slower, with_request

from costmodel.catalog.runtimes import load_runtime
from costmodel.even_split import uniform_assignment
from costmodel.layer_table import price_layers
from costmodel.layouts import Layouts
from costmodel.price import Priced, price
from costmodel.schema.errors import InvalidSpec
from costmodel.schema.layout import Layout
from planner.problem import Problem
from planner.request import Request
from planner.search.space import enumerate_layouts

GROUPS = ("shard_params", "shard_optim", "reshard_after_forward")


def ask(pp: int, defers: bool, **fixed: int) -> Request:
    """Eight devices on two nodes of four, whose runtime has every shard group."""
    runtime = load_runtime("deepspeed")
    state = {
        "shard_groups": ("secondary", "params", "optimizer"), "full_grads_under_pipeline": defers,
        "zero_stages": (1, 2, 3),
    }  # fmt: skip
    request = build_request(
        build_model(num_layers=4, hidden=512), 8, gpus_per_node=4, global_batch_size=32,
        runtime=runtime.model_copy(update={"state": runtime.state.model_copy(update=state)}),
        fixed={"tp": 1, "pp": pp, "cp_ulysses": 1, "micro_batch_size": 1, "optimizer_offload": 0, **fixed},
    )  # fmt: skip
    return with_request(request, cluster=slower(request.cluster, 10.0, 0.0))


def price_plain(request: Request, layouts: Layouts) -> Priced:
    problem = Problem.from_request(request)
    layers = price_layers(problem.setting, problem.network, layouts)
    return price(layers, uniform_assignment(problem.kinds, problem.num_kinds, layouts, 0))


def test_groups_fill_a_unit_of_some_level_and_no_layout_comes_twice() -> None:
    request = ask(1, defers=False)
    layouts = enumerate_layouts(request)
    columns = np.stack([getattr(layouts, field.name) for field in fields(Layouts)], axis=1)
    assert len(np.unique(columns, axis=0)) == len(layouts)
    for name, sizes in zip(GROUPS, ({0, 4}, {0, 8}, {0, 4}), strict=True):
        assert set(getattr(layouts, name).tolist()) == sizes
    for row in range(len(layouts)):
        assert layouts.row(row).world_size == 8


def test_any_group_that_nests_may_be_named() -> None:
    layouts = enumerate_layouts(ask(1, defers=False, zero_stage=3, shard_params=4, reshard_after_forward=2))
    assert len(layouts)
    assert set(layouts.reshard_after_forward.tolist()) == {2}
    assert set(layouts.dp_shard.tolist()) == {8}


@pytest.mark.parametrize(("pp", "defers"), [(1, False), (2, True), (2, False)])
def test_what_is_left_out_is_never_better(pp: int, defers: bool) -> None:
    """Of all nested groups that end where a level does: each has a layout in the space that takes no more time, and no
    more memory."""
    request = ask(pp, defers)
    layouts = enumerate_layouts(request)
    like = layouts.row(0).model_copy(update=dict.fromkeys(GROUPS, 0))
    replicas = 8 // pp
    every = []
    for shard, stage, params, optim, again in product((1, 2, 4, 8), (1, 2, 3), (0, 4), (0, replicas), (0, 4)):
        groups = {"shard_params": params, "shard_optim": optim, "reshard_after_forward": again}
        degrees = {"dp_shard": shard, "dp_replicate": replicas // shard, "zero_stage": stage}
        try:
            every.append(Layout.load(like.model_dump(exclude={"edp"}) | degrees | groups, "a test"))
        except InvalidSpec:
            continue
    names = {layouts.schedule_name(row) for row in range(len(layouts))}
    assert names == {"1f1b"}
    tried = price_plain(request, Layouts.from_rows([(layout, "1f1b") for layout in every]))
    own = price_plain(request, layouts)
    assert len(every) > len(layouts)
    for index, layout in enumerate(every):
        no_slower = own.step_time_s <= tried.step_time_s[index] * (1.0 + 1e-9)
        no_larger = own.peak_claim_bytes <= tried.peak_claim_bytes[index] * (1.0 + 1e-9)
        assert (no_slower & no_larger).any(), layout
