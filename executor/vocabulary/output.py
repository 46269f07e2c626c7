"""Output layer and loss split over ranks: each makes the logits of its own rows.

N tokens of a micro-batch, H hidden, V_r rows of rank r, X [N, H] what the last stage put out (BROADCAST_HIDDEN):

    VOCAB_F         logits Z_r = X W_rᵀ; of each token max_r = max Z_r, sum_r = Σ exp(Z_r - max_r), and the logit of its
                    target where r holds that row, else 0
    SUM_STATISTICS  these of all ranks to all: max = max_r max_r, sum = Σ_r sum_r · exp(max_r - max); then
                    loss = max + log sum - target,
                    softmax = exp(Z_r - max_r) · scale_r with scale_r = exp(max_r - max) / sum
    VOCAB_B         D_r = softmax - onehot(target); gradients D_rᵀ X of the rows and D_r W_r of X, whose parts
                    SUM_VOCAB_GRADIENT adds on the last stage's rank

With VOCAB_W in VOCAB_B's place VOCAB_F makes exp(Z_r - max_r) W_r as well. Times scale_r, less the target's row, it is
rank r's part of the input gradient: the parts are added as soon as the statistics have met, beside whatever pass runs
then, and VOCAB_W makes D_rᵀ X when there is time.

Statistics and loss are at least float32; gradients are those of the mean over tokens and micro-batches.
Source: Yeung, Qi, Lin, Wan 2024, "Balancing Pipeline Parallelism with Vocabulary Parallelism", section 4, algorithms 1
and 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.futures import Future, collect_all

from executor.clock import PassClock
from executor.vocabulary.collectives import Collectives, Coming, empty_like_hidden, second_group
from executor.vocabulary.rows import Rows


@dataclass
class _Logits:
    """What one micro-batch keeps here between its passes.

    ``hidden``: X; ``numerators`` [N, V_r]: exp(Z_r - max_r); ``statistics`` [3, N]: max_r, sum_r, target's logit;
    ``product`` [N, H]: numerators · W_r where VOCAB_F makes it; ``gathered`` [p, 3, N]: statistics of all ranks.
    """

    hidden: Tensor
    numerators: Tensor
    statistics: Tensor
    product: Tensor | None = None
    gathered: Coming | None = None

    def scale(self) -> tuple[Tensor, Tensor]:
        """(scale_r, loss), [N] each; the gathered statistics must be there."""
        assert self.gathered is not None
        maxima, sums, targets = self.gathered.tensor.unbind(1)
        maximum = maxima.amax(0)
        total = (sums * (maxima - maximum).exp()).sum(0)
        return (self.statistics[0] - maximum).exp() / total, maximum + total.log() - targets.sum(0)


class SplitOutput:
    """Passes on ``rows``. ``root``: the last stage's pipeline rank. ``joint_product``: VOCAB_F makes the input
    gradient as well.

    ``targets``: [B, T] by micro-batch, this step's. ``losses``: of its micro-batches, each the mean over tokens /
    micro-batches; on the last stage's rank only.
    """

    def __init__(
        self, rows: Rows, collectives: Collectives, root: int, clock: PassClock, *, joint_product: bool
    ) -> None:
        self.rows, self.collectives, self.root, self.clock = rows, collectives, root, clock
        # Issued when statistics arrive, which is not in the order of the other collectives.
        self.products = Collectives(second_group(collectives.group)) if joint_product else None
        self.targets: tuple[Tensor, ...] = ()
        self.losses: list[Tensor] = []
        self._put_out: dict[int, Tensor] = {}
        self._hidden: dict[int, Coming] = {}
        self._logits: dict[int, _Logits] = {}
        self._parts: dict[int, Tensor] = {}
        self._gradients: dict[int, Coming] = {}
        self._issued: dict[int, Future[None]] = {}
        self._last_issued: Future[None] | None = None

    def give(self, microbatch: int, hidden: Tensor) -> None:
        """What the last stage put out, [B, T, H]."""
        self._put_out[microbatch] = hidden

    def share_hidden(self, _stage: int, microbatch: int) -> None:
        """BROADCAST_HIDDEN."""
        if self.collectives.rank == self.root:
            hidden = self._put_out.pop(microbatch).contiguous()
        else:
            hidden = empty_like_hidden(self.targets[microbatch], self.rows.hidden_size, self.rows.compute)
        self._hidden[microbatch] = self.collectives.broadcast(hidden, self.root)

    def forward(self, rank: int, microbatch: int) -> None:
        """VOCAB_F."""
        hidden = self._hidden.pop(microbatch).take().flatten(0, 1)
        with self.clock.passing(f"{rank}VOCAB_F{microbatch}", 1):
            weight = self.rows.weight
            logits = hidden @ weight.t()
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            rows, held = self.rows.find(self.targets[microbatch].flatten())
            target = logits.gather(1, rows[:, None])[:, 0].where(held, 0)
            maximum = logits.amax(1)
            numerators = logits.sub_(maximum[:, None]).exp_()
            statistics = torch.stack((maximum, numerators.sum(1), target))
            kept = self._logits[microbatch] = _Logits(hidden, numerators, statistics)
            if self.products is not None:
                kept.product = numerators.to(weight.dtype) @ weight

    def share_statistics(self, _stage: int, microbatch: int) -> None:
        """SUM_STATISTICS; with a joint product its sum as well, which waits for them and not for the passes."""
        kept = self._logits[microbatch]
        kept.gathered = self.collectives.gather(kept.statistics)
        if self.products is not None:
            arriving = kept.gathered.work.get_future()
            if self._last_issued is not None:  # ranks must issue the sums in one order
                arriving = collect_all([self._last_issued, arriving])
            self._last_issued = arriving.then(lambda _: self._add_products(microbatch, kept))
            self._issued[microbatch] = self._last_issued

    def backward(self, rank: int, microbatch: int) -> None:
        """VOCAB_B."""
        kept = self._take_logits(microbatch)
        with self.clock.passing(f"{rank}VOCAB_B{microbatch}", 1):
            self._parts[microbatch] = self._add_weight_gradient(kept, microbatch) @ self.rows.weight

    def add_parts(self, _stage: int, microbatch: int) -> None:
        """SUM_VOCAB_GRADIENT."""
        coming = self.collectives.add_onto(self._parts.pop(microbatch), self.root)
        if self.collectives.rank == self.root:
            self._gradients[microbatch] = coming

    def weight_gradient(self, rank: int, microbatch: int) -> None:
        """VOCAB_W."""
        kept = self._take_logits(microbatch)
        with self.clock.passing(f"{rank}VOCAB_W{microbatch}", 1):
            self._add_weight_gradient(kept, microbatch)

    def take_gradient(self, microbatch: int) -> Tensor:
        """The gradient [B, T, H] of what the last stage put out; on its rank only."""
        if (issued := self._issued.pop(microbatch, None)) is not None:
            issued.wait()
        return self._gradients.pop(microbatch).take().view(*self.targets[microbatch].shape, -1)

    def wait(self) -> None:
        """Until all collectives of the step have ended."""
        for issued in self._issued.values():
            issued.wait()
        self._issued.clear()
        self._last_issued = None
        if self.products is not None:
            self.products.wait()

    def _take_logits(self, microbatch: int) -> _Logits:
        kept = self._logits.pop(microbatch)
        assert kept.gathered is not None
        kept.gathered.take()
        return kept

    def _add_weight_gradient(self, kept: _Logits, microbatch: int) -> Tensor:
        """Add D_rᵀ X, keep the loss, return D_r [N, V_r]."""
        scale, losses = kept.scale()
        if self.collectives.rank == self.root:
            self.losses.append(losses.mean() / len(self.targets))
        rows, held = self.rows.find(self.targets[microbatch].flatten())
        gradient = kept.numerators.mul_(scale[:, None])
        gradient.scatter_add_(1, rows[:, None], -held[:, None].to(gradient.dtype))
        narrowed = gradient.mul_(self._share(gradient)).to(self.rows.compute)
        total = self.rows.gradient()
        total += narrowed.t() @ kept.hidden
        return narrowed

    def _add_products(self, microbatch: int, kept: _Logits) -> None:
        """Make this rank's part of the input gradient and add the ranks'; the statistics are there."""
        product, kept.product = kept.product, None
        assert product is not None
        assert self.products is not None
        scale, _ = kept.scale()
        rows, held = self.rows.find(self.targets[microbatch].flatten())
        product.mul_(scale[:, None]).sub_(self.rows.weight[rows].masked_fill_(~held[:, None], 0))
        coming = self.products.add_onto(product.mul_(self._share(product)), self.root)
        if self.collectives.rank == self.root:
            self._gradients[microbatch] = coming

    def _share(self, by_token: Tensor) -> float:
        """A token's share of the loss."""
        return 1 / (len(by_token) * len(self.targets))
