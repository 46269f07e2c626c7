"""Model states over the data-parallel ranks: FSDP2 for what is sharded or cast, a plain gradient mean for the rest.

| zero_stage | parameters | gradients |
|---|---|---|
| 3 | gathered for each use, freed after forward | reduce-scattered after every micro-batch |
| 2 | gathered once a step | reduce-scattered after every micro-batch |
| 1 | gathered once a step | whole until the last micro-batch, then reduce-scattered |
| 0 | whole | whole, averaged after the last micro-batch |

dp_replicate > 1 beside a sharded stage is HSDP. With ``reshard_after_forward`` = k, parameters at stage 3 stay split
over k near ranks from forward to backward (``executor/second_shards.py``); with 1 they stay whole. Under a pipeline
PyTorch's runtime reduces once a step whatever the stage. Parameters stored in another type than they compute in (bf16
over fp32 masters) are always FSDP's, over a shard axis of one rank if need be, since FSDP does the casting.
Source: Rajbhandari et al., ZeRO (2020), section 5; Zhao et al., PyTorch FSDP (2023).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from costmodel.schema.workload import Workload
from executor.buckets import sum_over
from executor.second_shards import split_between_passes

_TORCH_DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Numerics:
    """Types of stored parameters, of compute, and of the gradient reduction."""

    stored: torch.dtype
    compute: torch.dtype
    reduce: torch.dtype

    @classmethod
    def of(cls, workload: Workload) -> Numerics:
        """What ``workload`` asks for: masters are stored if it keeps them, parameters otherwise."""
        compute = _TORCH_DTYPES[workload.precision]
        stored = (
            torch.float32
            if workload.master_dtype == "fp32" or compute is torch.float32
            else _TORCH_DTYPES[workload.param_dtype]
        )
        return cls(
            stored, compute, torch.float32 if compute is torch.float32 else _TORCH_DTYPES[workload.grad_reduce_dtype]
        )

    @classmethod
    def all_in(cls, dtype: torch.dtype) -> Numerics:
        return cls(dtype, dtype, dtype)


@dataclass(frozen=True)
class Sharding:
    """How one plan keeps model states over ``mesh`` (its axes dp_replicate and dp_shard)."""

    mesh: DeviceMesh
    zero_stage: int
    numerics: Numerics
    between: int = 0
    """``Layout.reshard_after_forward``."""

    @property
    def uses_fsdp(self) -> bool:
        return self.mesh["dp_shard"].size() > 1 or self.numerics.stored is not self.numerics.compute

    def shard(self, *modules: nn.Module) -> None:
        """Make ``modules`` one FSDP group: gathered together, reduced together. No-op for plain replication."""
        if not self.uses_fsdp:
            return
        hybrid = self.mesh["dp_replicate"].size() > 1
        mesh = self.mesh["dp_replicate", "dp_shard"] if hybrid else self.mesh["dp_shard"]
        fully_shard(
            list(modules) if len(modules) > 1 else modules[0],
            mesh=mesh,
            reshard_after_forward=self.zero_stage == 3 and self.between != 1,
            mp_policy=MixedPrecisionPolicy(param_dtype=self.numerics.compute, reduce_dtype=self.numerics.reduce),
        )
        if 1 < self.between < self.mesh["dp_shard"].size():
            first = modules[0]
            assert isinstance(first, FSDPModule)
            split_between_passes(first, mesh, self.between)

    def before_microbatch(self, module: nn.Module, *, is_last: bool) -> None:
        """Tell FSDP what the coming micro-batch (of a step without pipeline) gathers, reduces and frees."""
        if isinstance(module, FSDPModule):
            module.set_reshard_after_backward(is_last or self.zero_stage == 3)
            module.set_requires_gradient_sync(is_last or self.zero_stage >= 2)

    def settle_gradients(self, module: nn.Module) -> None:
        """After the last micro-batch: sum what tensor parallelism left partial, so that gradients lie as parameters do.

        FSDP has done so.
        """
        if self.uses_fsdp:
            return
        for parameter in module.parameters():
            gradient = parameter.grad
            if (
                isinstance(gradient, DTensor)
                and isinstance(parameter, DTensor)
                and gradient.placements != parameter.placements
            ):
                parameter.grad = gradient.redistribute(placements=parameter.placements)

    def average_gradients(self, module: nn.Module) -> None:
        """Average settled gradients over replicas. FSDP has done so."""
        axis = self.mesh["dp_replicate"]
        if self.uses_fsdp or axis.size() == 1:
            return
        gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
        local = [gradient.to_local() if isinstance(gradient, DTensor) else gradient for gradient in gradients]
        sum_over(axis.get_group(), local, 1 / axis.size())
