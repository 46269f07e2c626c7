"""The optimizer step: the workload's optimizer over DTensors and plain tensors, and clipping by the global norm."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from costmodel.schema.workload import Workload
from executor.apply import ParallelModel
from executor.eight_bit import EightBitAdamW

LEARNING_RATE = 1e-3
WEIGHT_DECAY = 0.1
ADAM_BETAS = (0.9, 0.95)
MOMENTUM = 0.9
LARGEST_NORM = 1.0


def build_optimizer(
    parallel: ParallelModel, workload: Workload, learning_rate: float = LEARNING_RATE
) -> torch.optim.Optimizer:
    """``workload.optimizer`` over this rank's parameters, its moments in the plan's format; matrices decay, gains and
    biases do not.

    Betas, decay and clipping are those of Touvron et al., LLaMA (2023), section 2.3.
    """
    groups: dict[tuple[Any, bool], list[torch.nn.Parameter]] = defaultdict(list)
    for _, parameter in parallel.named_parameters():
        mesh = parameter.device_mesh if isinstance(parameter, DTensor) else None
        groups[mesh, parameter.ndim > 1].append(parameter)  # one fused call cannot mix meshes
    options = [
        {"params": group, "weight_decay": WEIGHT_DECAY if decays else 0.0} for (_, decays), group in groups.items()
    ]
    if workload.optimizer == "adamw" and parallel.plan.layout.optimizer_format == "int8":
        return EightBitAdamW(options, lr=learning_rate, betas=ADAM_BETAS)
    if workload.optimizer == "adamw":
        return torch.optim.AdamW(options, lr=learning_rate, betas=ADAM_BETAS)
    return torch.optim.SGD(
        options, lr=learning_rate, momentum=MOMENTUM if workload.optimizer == "sgd-momentum" else 0.0
    )


def clip_gradients(parallel: ParallelModel, largest_norm: float = LARGEST_NORM) -> torch.Tensor:
    """Scale all gradients so that their norm over the whole model is at most ``largest_norm``; return the norm before.

    norm² = Σ over ranks and parameters of |local gradient|² / (holders of the same part), in float64.
    """
    gradients = [(parameter.grad, holders) for parameter, holders in parallel.parameters_and_holders()]
    square = torch.zeros((), dtype=torch.float64, device=parallel.device)
    for gradient, holders in gradients:
        if gradient is not None:
            norm = torch.linalg.vector_norm(_local(gradient), dtype=torch.float64)
            square += norm.square() / holders
    dist.all_reduce(square)
    norm = square.sqrt()
    scale = (largest_norm / (norm + 1e-6)).clamp(max=1.0)
    for gradient, _ in gradients:
        if gradient is not None:
            _local(gradient).mul_(scale.to(gradient.dtype))
    return norm


def _local(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
