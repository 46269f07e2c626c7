"""What constraints leave of a space is exactly the rows of the whole space that keep to them."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from costmodel.layouts import ORDERS, SCHEDULE_CODES, Layouts
from planner.constraints import read_constraints
from planner.request import Request, build_request
from planner.search.space import enumerate_layouts


def space(**options: Any) -> Request:
    return build_request("mixtral-8x7b", 16, runtime="megatron", seq_len=8192, global_batch_size=64, **options)


@pytest.fixture(scope="module")
def whole() -> Layouts:
    return enumerate_layouts(space())


def rows(layouts: Layouts) -> set[tuple[float, ...]]:
    return set(map(tuple, np.stack([getattr(layouts, one.name) for one in fields(Layouts)], axis=1).tolist()))


@pytest.mark.parametrize(
    ("options", "keeps"),
    [
        ({"limit": ["tp=2..4"]}, lambda t: (t.tp >= 2) & (t.tp <= 4)),
        ({"limit": ["pp=2..", "micro_batch_size=1/2"]}, lambda t: (t.pp >= 2) & (t.micro_batch_size <= 2)),
        ({"limit": ["cp=..2", "dp=4.."]}, lambda t: (t.cp <= 2) & (t.dp >= 4)),
        ({"fix": ["order=dp-outermost"]}, lambda t: t.order == ORDERS.index(ORDERS[1])),
        ({"fix": ["num_microbatches=8"]}, lambda t: t.num_microbatches == 8),
        ({"fix": ["optimizer_offload=1"]}, lambda t: t.optimizer_offload == 1),
        ({"fix": ["layers_per_stage=8/8/8/8"]}, lambda t: t.pp * t.vpp == 4),
        ({"forbid": ["zero_stage=1", "vpp=2"]}, lambda t: (t.zero_stage != 1) & (t.vpp != 2)),
        ({"forbid": ["expert-parallelism", "ring"]}, lambda t: (t.ep == 1) & (t.cp_ring == 1)),
        ({"forbid": ["1f1b"]}, lambda t: t.schedule != SCHEDULE_CODES.index("1f1b")),
        ({"limit": ["schedule=1f1b/interleaved-1f1b", "dp_replicate=1"]}, lambda t: t.dp_replicate == 1),
    ],
)  # fmt: skip
def test_rows_left(options: dict[str, Any], keeps: Any, whole: Layouts) -> None:
    mask = keeps(whole)
    if "schedule" in str(options):
        mask &= np.isin(whole.schedule, [SCHEDULE_CODES.index(one) for one in ("1f1b", "interleaved-1f1b")])
    assert mask.any()
    assert rows(enumerate_layouts(space(**options))) == rows(whole.take(mask))


def test_values_named_by_the_user_are_tried_though_none_would_be_unasked(whole: Layouts) -> None:
    assert not (whole.cp > 4).any()
    assert (enumerate_layouts(space(fix=["cp_ring=8"])).cp_ring == 8).all()
    assert not (whole.tp > 8).any()
    wide = enumerate_layouts(space(limit=["tp=8/16"]))
    assert set(wide.tp.tolist()) == {8, 16}


def test_nothing_asked_leaves_everything(whole: Layouts) -> None:
    assert read_constraints() == read_constraints(fix=[], document={}, origin="")
    assert len(whole) > 1000
