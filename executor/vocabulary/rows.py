"""Rows: which of the vocabulary a rank holds, in the type that products are made in."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from executor.vocabulary.part import local_gradient


class Rows:
    """A rank's rows of one matrix [V, H]. ``first``: the first row's number; ``weight``: the rows' values."""

    def __init__(self, parameter: Tensor, rank: int, compute: torch.dtype) -> None:
        assert isinstance(parameter, DTensor)
        self.parameter, self.compute = parameter, compute
        per_rank = -(-parameter.shape[0] // parameter.device_mesh.size())
        self.first = rank * per_rank
        self.hidden_size = parameter.shape[1]
        self.refresh()

    def refresh(self) -> None:
        """Read the parameter again, which the optimizer has changed."""
        self.weight = self.parameter.detach().to_local().to(self.compute)

    def find(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Of each of ``tokens`` its row here and whether it has one; row 0 where it has none."""
        rows = tokens - self.first
        held = (rows >= 0) & (rows < len(self.weight))
        return rows.where(held, 0), held

    def gradient(self) -> Tensor:
        """[V_r, H], to be added to."""
        return local_gradient(self.parameter)
