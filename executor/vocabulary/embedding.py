"""The embedding split over ranks: each looks up its own rows' tokens.

VOCAB_IN_F makes a rank's part [B, T, H], zero for other ranks' tokens; SUM_EMBEDDED adds the parts on the first stage's
rank. BROADCAST_GRADIENT brings that stage's input gradient to all; VOCAB_IN_B adds it to the rows looked up.

Source: Yeung, Qi, Lin, Wan 2024, "Balancing Pipeline Parallelism with Vocabulary Parallelism", section 4 (input layer).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from executor.clock import PassClock
from executor.vocabulary.collectives import Collectives, Coming, empty_like_hidden
from executor.vocabulary.rows import Rows


class SplitEmbedding:
    """Passes on ``rows``. ``root``: the first stage's pipeline rank. ``tokens``: [B, T] by micro-batch, this step's."""

    def __init__(self, rows: Rows, collectives: Collectives, root: int, clock: PassClock) -> None:
        self.rows, self.collectives, self.root, self.clock = rows, collectives, root, clock
        self.tokens: tuple[Tensor, ...] = ()
        self._parts: dict[int, Tensor] = {}
        self._sums: dict[int, Coming] = {}
        self._taken_in: dict[int, Tensor] = {}
        self._gradients: dict[int, Coming] = {}

    def look_up(self, rank: int, microbatch: int) -> None:
        """VOCAB_IN_F."""
        with self.clock.passing(f"{rank}VOCAB_IN_F{microbatch}", 1):
            rows, held = self.rows.find(self.tokens[microbatch])
            part = F.embedding(rows, self.rows.weight)
            self._parts[microbatch] = part.masked_fill_(~held[..., None], 0)

    def add_parts(self, _stage: int, microbatch: int) -> None:
        """SUM_EMBEDDED."""
        coming = self.collectives.add_onto(self._parts.pop(microbatch), self.root)
        if self.collectives.rank == self.root:
            self._sums[microbatch] = coming

    def take(self, microbatch: int) -> Tensor:
        """What the first stage takes in, a leaf."""
        return self._sums.pop(microbatch).take().requires_grad_()

    def give_gradient(self, microbatch: int, gradient: Tensor) -> None:
        """The gradient of what ``take`` gave."""
        self._taken_in[microbatch] = gradient

    def share_gradient(self, _stage: int, microbatch: int) -> None:
        """BROADCAST_GRADIENT."""
        if self.collectives.rank == self.root:
            gradient = self._taken_in.pop(microbatch).contiguous()
        else:
            gradient = empty_like_hidden(self.tokens[microbatch], self.rows.hidden_size, self.rows.compute)
        self._gradients[microbatch] = self.collectives.broadcast(gradient, self.root)

    def add_gradient(self, rank: int, microbatch: int) -> None:
        """VOCAB_IN_B."""
        gradient = self._gradients.pop(microbatch).take()
        with self.clock.passing(f"{rank}VOCAB_IN_B{microbatch}", 1):
            rows, held = self.rows.find(self.tokens[microbatch])
            total = self.rows.gradient()
            total.index_add_(0, rows[held], gradient[held].to(total.dtype))
