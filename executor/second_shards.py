"""Second shards: between forward and backward, parameters split over nearer ranks than those that own them.

``fully_shard(reshard_after_forward=k)`` makes two process groups for every module that it is called on. Here all
modules share one pair, set on what ``fully_shard`` built: this file is the one that knows its private fields.
Source: Wang et al. 2023 (ZeRO++), section 3.2; PyTorch, torch/distributed/fsdp/_fully_shard.
"""

from __future__ import annotations

from functools import cache

import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.fsdp._fully_shard._fsdp_common import HSDPMeshInfo


def split_between_passes(module: FSDPModule, mesh: DeviceMesh, num_ranks: int) -> None:
    """Keep from forward to backward a ``num_ranks``-th of the parameters of ``module`` itself, split over neighbours.

    ``mesh``: one that holds all ranks, those that share a shard innermost. ``module`` was sharded with
    ``reshard_after_forward=True`` and has no DTensors of its own.
    """
    info = _between(mesh.device_type, tuple(mesh.mesh.flatten().tolist()), num_ranks)
    for group in module._get_fsdp_state()._fsdp_param_groups:
        group.post_forward_mesh_info = info
        for parameter in group.fsdp_params:
            parameter.post_forward_mesh_info = info
            whole = torch.empty(parameter._orig_size, device="meta")
            parameter._init_sharded_post_forward_param_metadata(whole)


@cache
def _between(device_type: str, ranks: tuple[int, ...], num_ranks: int) -> HSDPMeshInfo:
    mesh = DeviceMesh(device_type, torch.tensor(ranks).reshape(-1, num_ranks))
    return HSDPMeshInfo(mesh, shard_mesh_dim=1, replicate_mesh_dim=0)
