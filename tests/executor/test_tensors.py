"""The executor's DTensors lie where the plan says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor

from costmodel.schema.layout import Layout
from executor.model import Layer
from executor.tensor_parallel import split_layer
from planner.problem import Problem
from planner.request import build_request
from planner.tensors import place_tensors


@pytest.fixture
def mesh() -> Iterator[DeviceMesh]:
    """One rank: placements do not depend on how many there are."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield init_device_mesh("cpu", (1,), mesh_dim_names=("tp",))
    finally:
        dist.destroy_process_group()


def test_matrices_of_a_layer(mesh: DeviceMesh) -> None:
    problem = Problem.from_request(build_request("tiny", 2, gpu="cpu", calibration="none"))
    model = problem.setting.model
    layer = Layer(model, model.kinds[0])
    split_layer(layer, mesh, sequence_parallel=True)
    held = {}
    for name, parameter in layer.named_parameters():
        if parameter.dim() == 2:
            assert isinstance(parameter, DTensor)
            (placement,) = parameter.placements
            assert placement.is_shard()
            held[name.split(".")[-2].removesuffix("_proj")] = f"Shard({placement.dim})"
    planned = {
        one.tensor.split(".")[-1]: one.placements["tp"]
        for one in place_tensors(problem.setting, Layout(tp=2))
        if one.tensor.startswith(f"{model.kinds[0].name}.")
    }
    assert held == planned
