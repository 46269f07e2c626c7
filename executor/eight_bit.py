"""AdamW whose moments take 8 bits a number: blocks of neighbours share a scale, and a code names a point of [-1, 1].

Points lie densely near 0 and evenly within each power of ten, so that small numbers beside a large one keep one or two
digits. Both moments are widened, updated and rounded again in every step; a change of less than half the way to the
next point is lost.
Source: Dettmers et al. 2022, 8-bit Optimizers via Block-wise Quantization, sections 1.2 and 2.1.
Leaves out: stochastic rounding; tensors that are kept in fp32 because they are small or embeddings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from costmodel.moments import INT8_BLOCK
from executor.narrow import in_blocks

POWERS_OF_TEN = 7

MOMENTS = {"exp_avg": True, "exp_avg_sq": False}
"""Names of the moments, torch.optim.AdamW's, and whether they have a sign."""


@cache
def dynamic_points(*, signed: bool, device: torch.device) -> Tensor:
    """[256] the numbers that codes stand for, ascending: 0, 1, and in the i-th power of ten from below 2^i middles of
    even parts, with either sign, or twice as many without.
    """
    points = [0.0, 1.0]
    for power in range(POWERS_OF_TEN):
        parts = 2 ** (power + (not signed))
        middles = 0.1 + 0.9 * (torch.arange(parts, dtype=torch.float64) + 0.5) / parts
        scaled = (middles * 10.0 ** (power + 1 - POWERS_OF_TEN)).tolist()
        points += scaled + [-point for point in scaled] * signed
    return torch.tensor(sorted(points), dtype=torch.float32, device=device)


def encode(numbers: Tensor, *, signed: bool) -> tuple[Tensor, Tensor]:
    """(codes [blocks, block] uint8, scales [blocks, 1] fp32): of each number the nearest point times its block's scale.

    The scale is the number of largest size, with its sign, so that rounding again changes nothing. Without signs no
    positive number becomes 0, whose root an update would divide by.
    """
    blocks = in_blocks(numbers, INT8_BLOCK).float()
    scales = blocks.gather(1, blocks.abs().argmax(dim=1, keepdim=True))
    points = dynamic_points(signed=signed, device=numbers.device)
    between = (points[1:] + points[:-1]) / 2
    codes = torch.bucketize(blocks / torch.where(scales == 0, 1.0, scales), between, out_int32=True)
    if not signed:
        codes = torch.maximum(codes, (blocks > 0).int())
    return codes.to(torch.uint8), scales


def decode(codes: Tensor, scales: Tensor, like: Tensor, *, signed: bool) -> Tensor:
    """The numbers again, in the shape and type of ``like``."""
    numbers = dynamic_points(signed=signed, device=codes.device)[codes.int()] * scales
    return numbers.flatten()[: like.numel()].view(like.shape).to(like.dtype)


class EightBitAdamW(torch.optim.Optimizer):
    """torch.optim.AdamW with ``exp_avg`` and ``exp_avg_sq`` in 8 bits: 2 · (1 + 4 / 256) bytes a parameter.

    Blocks are of this rank's part of a parameter, so that layouts differ by rounding.
    """

    def __init__(
        self,
        parameters: Iterable[Any],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        loss = None if closure is None else closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(_local(parameter), _local(parameter.grad), self.state[parameter], group)
        return loss

    def wide_state(self, parameter: Tensor) -> dict[str, Tensor]:
        """What torch.optim.AdamW would keep of ``parameter``: its moments, laid out as it is, and the step."""
        state = self.state[parameter]
        wide = {"step": state["step"]}
        for name, signed in MOMENTS.items():
            wide[name] = torch.empty_like(parameter.detach())
            local = _local(wide[name])
            local.copy_(decode(state[f"{name}_codes"], state[f"{name}_scales"], local, signed=signed))
        return wide

    def take_wide_state(self, parameter: Tensor, wide: dict[str, Tensor]) -> None:
        """Set the state of ``parameter`` from what ``wide_state`` returns."""
        state = self.state[parameter]
        state["step"] = wide["step"]
        for name, signed in MOMENTS.items():
            state[f"{name}_codes"], state[f"{name}_scales"] = encode(_local(wide[name]), signed=signed)

    def _update(self, value: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
        """w -= lr · (wd · w + m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps)), m and v the running means of g and g²."""
        if not state:
            state["step"] = torch.zeros(())
            for name, signed in MOMENTS.items():
                state[f"{name}_codes"], state[f"{name}_scales"] = encode(torch.zeros_like(value), signed=signed)
        state["step"] += 1
        step, (first, second) = state["step"].item(), group["betas"]
        mean, square = (
            decode(state[f"{name}_codes"], state[f"{name}_scales"], value, signed=signed)
            for name, signed in MOMENTS.items()
        )
        mean.lerp_(gradient, 1 - first)
        square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        value.mul_(1 - group["lr"] * group["weight_decay"])
        norm = (square / (1 - second**step)).sqrt_().add_(group["eps"])
        value.addcdiv_(mean, norm, value=-group["lr"] / (1 - first**step))
        for (name, signed), moment in zip(MOMENTS.items(), (mean, square), strict=True):
            state[f"{name}_codes"], state[f"{name}_scales"] = encode(moment, signed=signed)


def _local(tensor: Tensor) -> Tensor:
    """This rank's part, sharing memory."""
    return tensor.detach().to_local() if isinstance(tensor, DTensor) else tensor.detach()
