"""Numbers in 8 bits: blocks of neighbours, each with a scale of its own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

LARGEST = 127


@dataclass(frozen=True)
class Narrow:
    """``values`` [blocks, block] int8 and ``scales`` [blocks, 1] fp32; value · scale is the number."""

    values: Tensor
    scales: Tensor

    def wide(self, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        """The numbers again, without what filled the last block."""
        numbers = (self.values.to(self.scales.dtype) * self.scales).to(dtype)
        return numbers.flatten()[: shape.numel()].view(shape)


def narrow(tensor: Tensor, block: int) -> Narrow:
    """Round to the nearest of 255 evenly spaced numbers from -a to a, a the largest absolute value of a block.

    No number is off by more than a / 254.
    Source: Pan et al. 2021 (Mesa), section 3; Dettmers et al. 2022, section 2.1.
    """
    blocks = in_blocks(tensor.detach(), block).float()
    scales = blocks.abs().amax(dim=1, keepdim=True) / LARGEST
    values = (blocks / scales.clamp(min=torch.finfo(scales.dtype).tiny)).round_().to(torch.int8)
    return Narrow(values, scales)


def in_blocks(tensor: Tensor, block: int) -> Tensor:
    """[blocks, block]: the numbers in order, the last block filled with zeros."""
    flat = tensor.flatten()
    return F.pad(flat, (0, -flat.numel() % block)).view(-1, block)
