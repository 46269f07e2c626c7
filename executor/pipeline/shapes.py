"""What comes in and goes out at a stage's ends."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class StageShapes:
    """One rank's micro-batch at a stage's ends: tokens [B, T], hidden [B, T / split, H], logits [B, T, V / split]."""

    tokens: tuple[int, int]
    hidden: tuple[int, int, int]
    logits: tuple[int, int, int]
    dtype: torch.dtype

    def ends(self, *, first: bool, last: bool) -> tuple[Tensor, Tensor]:
        """A stage's input and output as meta tensors."""
        hidden = torch.empty(self.hidden, dtype=self.dtype, device="meta", requires_grad=True)
        tokens = torch.empty(self.tokens, dtype=torch.int64, device="meta")
        logits = torch.empty(self.logits, dtype=self.dtype, device="meta", requires_grad=True)
        return tokens if first else hidden, logits if last else hidden
