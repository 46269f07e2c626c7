"""The picture of the cluster: ranks on their axes, devices in their nodes."""

from __future__ import annotations

import numpy as np
import pytest
from planned import CLUSTER, count_boxes, planned

from costmodel.layouts import Layouts
from costmodel.schema.layout import AXES
from costmodel.schema.plan import Plan
from planner.request import build_request
from planner.search.space import enumerate_layouts
from ui import charts
from ui.figures.mesh import axes_of, coordinates, group_of, level_between, nodes_of
from ui.figures.packing import pack_cluster


@pytest.fixture(scope="module")
def dense() -> Plan:
    return planned("llama-3.1-70b", 64, tp=4, pp=2, dp_shard=4, dp_replicate=2, zero_stage=1)


@pytest.fixture(scope="module")
def experts() -> Plan:
    return planned("mixtral-8x7b", 32, tp=2, pp=2, ep=4, dp_shard=8, runtime="megatron", zero_stage=1)


def test_ranks_stand_on_each_axis_as_they_are_priced(dense: Plan) -> None:
    row = Layouts.from_rows([(dense.layout, "1f1b")])
    ranks = np.arange(dense.world_size)
    for axis, places in coordinates(dense.layout).items():
        if axis in dense.layout.order:
            assert places.tolist() == (ranks // row.stride(axis)[0] % getattr(dense.layout, axis)).tolist()


@pytest.mark.parametrize(("model", "gpus"), [("llama-8b", 16), ("mixtral-8x7b", 16)])
def test_every_group_of_the_space_lies_at_the_stride_that_is_priced(model: str, gpus: int) -> None:
    request = build_request(model, gpus, runtime="megatron", seq_len=4096, global_batch_size=64)
    layouts = enumerate_layouts(request)
    columns = [getattr(layouts, axis) for axis in (*AXES, "ep", "etp", "order")]
    _, rows = np.unique(np.stack(columns), axis=1, return_index=True)
    assert 1 in layouts.order[rows]
    for row in rows:
        layout, one = layouts.row(int(row)), layouts.take(np.array([row]))
        for axis in axes_of(layout):
            stride = one.stride(axis)[0]
            assert group_of(layout, axis).tolist() == [stride * place for place in range(getattr(layout, axis))]


def test_groups_of_an_axis_share_out_all_ranks(experts: Plan) -> None:
    layout = experts.layout
    assert axes_of(layout) == ["tp", "dp_shard", "pp", "ep", "edp"]
    stage = coordinates(layout)["pp"]
    for axis in axes_of(layout):
        groups = {tuple(group_of(layout, axis, rank).tolist()) for rank in range(layout.world_size)}
        assert {len(group) for group in groups} == {getattr(layout, axis)}
        assert sorted(rank for group in groups for rank in group) == list(range(layout.world_size))
        if axis != "pp":
            assert all(len(set(stage[list(group)].tolist())) == 1 for group in groups)


def test_a_group_talks_over_the_level_that_joins_it(dense: Plan) -> None:
    levels = [level.name for level in dense.cluster.spec.levels]
    joined = {
        axis: level_between(dense.cluster, dense.layout, group_of(dense.layout, axis)).name for axis in ("tp", "pp")
    }
    assert joined == {"tp": levels[0], "pp": levels[1]}


def test_the_first_pipeline_ranks_nodes_come_first() -> None:
    plan = planned("llama-3.1-70b", None, cluster=CLUSTER, tp=4, pp=6, dp_shard=4, zero_stage=1, first_group=1)
    assert [group.device for group in nodes_of(plan.cluster, plan.layout)] == ["a100-80g"] * 8 + ["h100"] * 4


def test_devices_lie_apart_inside_their_nodes() -> None:
    plan = planned("llama-3.1-70b", None, cluster=CLUSTER, tp=4, pp=6, dp_shard=4, zero_stage=1, first_group=1)
    packed = pack_cluster(nodes_of(plan.cluster, plan.layout), plan.cluster.spec.network)
    left, bottom = np.array(packed.devices).T
    assert len(left) == 96
    apart = np.maximum(abs(left[:, None] - left), abs(bottom[:, None] - bottom))
    assert (apart[~np.eye(96, dtype=bool)] >= 1.0 - 1e-9).all()
    right, top = left + 1, bottom + 1
    inside = {
        (name, int(((left >= x) & (right <= x + width) & (bottom >= y) & (top <= y + height)).sum()))
        for name, x, y, width, height in packed.boxes
    }
    assert inside == {("nvlink-3", 8), ("nvlink-4", 8), ("leaf", 32), ("spine", 96)}


@pytest.mark.parametrize("axis", ["tp", "pp", "dp_shard", "dp_replicate"])
def test_squares_are_shaded_by_place_and_one_group_is_outlined(dense: Plan, axis: str) -> None:
    figure = charts.cluster(dense, axis)
    degree = getattr(dense.layout, axis)
    squares = {trace.name: count_boxes(trace) for trace in figure.data if trace.name}
    assert squares.pop(f"the {axis} group of rank 0") == degree
    assert squares == {f"{axis} {place}": dense.world_size // degree for place in range(degree)}
