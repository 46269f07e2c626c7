"""Frozen passes: a model without a backward, run piece by piece in a pipeline's bubbles.

``FrozenPasses.run`` is what ``Pipeline.follow`` takes for FROZEN_F; ``planner.schedules.bubble_filling`` places the
passes. A micro-batch's pieces run on one rank, in a step before the one that uses the result.

Source: Tian, Jia, Zheng, Wu, Wang 2024, "DiffusionPipe: Training Large Diffusion Models with Efficient Pipelines",
section 5.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from executor.clock import PassClock


class FrozenPasses:
    """A frozen model's ``pieces``, each taking what the one before gives out."""

    def __init__(self, pieces: Sequence[Callable[[Tensor], Tensor]], clock: PassClock) -> None:
        self.pieces, self.clock = tuple(pieces), clock
        self._inputs: tuple[Tensor, ...] = ()
        self._between: dict[int, Tensor] = {}
        self._results: dict[int, Tensor] = {}

    def begin(self, inputs: Sequence[Tensor]) -> None:
        """Take what the first piece takes in, by micro-batch; before the step that runs the passes."""
        self._inputs = tuple(inputs)

    @torch.no_grad()
    def run(self, piece: int, microbatch: int) -> None:
        """Run one piece for one micro-batch."""
        taken = self._between.pop(microbatch) if piece else self._inputs[microbatch]
        with self.clock.passing(f"{piece}FROZEN_F{microbatch}", 1):
            given = self.pieces[piece](taken)
        kept = self._results if piece == len(self.pieces) - 1 else self._between
        kept[microbatch] = given

    def take_results(self) -> dict[int, Tensor]:
        """The last step's results by micro-batch: those whose passes ran on this rank."""
        results, self._results = self._results, {}
        return results
