"""PassTimes: how long the passes of a rank take, for the generators that heed it."""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass

from costmodel.schema.errors import InvalidSpec


@dataclass(frozen=True)
class PassTimes:
    """Times of all of a rank's layers for one micro-batch, alike on all ranks, in any one unit; a rank's stages share
    them equally.

    ``forward``, ``input_grad``, ``weight_grad``: F, I and W; ``comm``: the delay of an edge between two ranks, none
    inside a rank. Raises InvalidSpec for a time that is negative or not finite.
    """

    forward: float = 1.0
    input_grad: float = 1.0
    weight_grad: float = 1.0
    comm: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not (math.isfinite(value) and value >= 0):
                raise InvalidSpec(f"{name} = {value:g}: a time of a pass is finite and not negative")

    @property
    def work(self) -> float:
        """F + I + W."""
        return self.forward + self.input_grad + self.weight_grad

    @property
    def are_equal(self) -> bool:
        """Whether F = I = W and sends take no time, as the published orders assume."""
        return astuple(self) == (self.forward,) * 3 + (0.0,)


EQUAL_TIMES = PassTimes()
"""F = I = W = 1, no delay."""
