"""VocabularyPart: a pipeline rank's rows of embedding and output layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard

from executor.buckets import sum_over


class VocabularyPart(nn.Module):
    """The rows of ``embed_tokens`` and ``lm_head`` that a pipeline rank holds, under the whole model's names.

    Weights are DTensors over ``mesh`` (the axis pp), split by rows into torch.chunk's parts; all ranks must hold equal
    weights.
    """

    embed_tokens: nn.Module
    lm_head: nn.Module

    def __init__(self, embed_tokens: nn.Module, lm_head: nn.Module, mesh: DeviceMesh) -> None:
        super().__init__()
        self.embed_tokens, self.lm_head = embed_tokens, lm_head
        for module in (embed_tokens, lm_head):
            module.register_parameter("weight", _own_rows(module.weight, mesh))

    def average_gradients(self, replicas: DeviceMesh) -> None:
        """Average over ranks with other data."""
        if replicas.size() > 1:
            gradients = [local_gradient(parameter) for parameter in self.parameters()]
            sum_over(replicas.get_group(), gradients, 1 / replicas.size())


def local_gradient(parameter: Tensor) -> Tensor:
    """This rank's rows of the gradient, zeros at first; what is added to them is added to ``parameter.grad``."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    gradient = parameter.grad
    assert isinstance(gradient, DTensor)
    return gradient.to_local()


def _own_rows(weight: Tensor, mesh: DeviceMesh) -> nn.Parameter:
    whole = weight.detach()
    rows = whole.chunk(mesh.size())[mesh.get_local_rank()].clone()
    split = DTensor.from_local(rows, mesh, [Shard(0)], run_check=False, shape=whole.shape, stride=whole.stride())
    return nn.Parameter(split, requires_grad=weight.requires_grad)
