"""Vocabulary parallelism on 1F1B: embedding and output layer split over all pipeline ranks, each part's passes placed.

Without it the last rank computes the logits and the first holds the embedding while the others wait. Split, every rank
runs a p-th of both for every micro-batch. The logits' parts meet in collectives between the last stage's forward and
its backward, so the backward of every micro-batch comes later by as many cycles as there are barriers:

    vocab-1  VOCAB_F (logits) - statistics meet - VOCAB_B (both gradients) - input gradients meet - backward
    vocab-2  VOCAB_F (logits, and the input gradient up to the statistics) - both meet at once - backward;
             VOCAB_W (weight gradient) follows when there is time

The order is that of one micro-batch's passes repeated every cycle of F + B: F on rank r at r·F, VOCAB_F on all ranks
after the last of these, backward of the last rank k cycles later (k = 2 or 1), that of rank r after (p - 1 - r)·B more.
So rank r keeps min(p - r + k, m) micro-batches alive: k more than 1F1B.

Source: Yeung, Qi, Lin, Wan 2024, "Balancing Pipeline Parallelism with Vocabulary Parallelism", sections 4 and 5.
"""

from __future__ import annotations

from costmodel.schema.schedule import Pass, PassKind

_F, _B = 1, 2
"""Forward and backward of a rank's layers in some unit; only the order of passes comes from it."""


def one_f_one_b_vocab_1(pp: int, num_microbatches: int, vpp: int = 1) -> list[list[Pass]]:
    """1F1B with two barriers between forward and backward; one stage a rank."""
    del vpp
    return [_rank_order(pp, num_microbatches, rank, 2) for rank in range(pp)]


def one_f_one_b_vocab_2(pp: int, num_microbatches: int, vpp: int = 1) -> list[list[Pass]]:
    """1F1B with one barrier between forward and backward; one stage a rank."""
    del vpp
    return [_rank_order(pp, num_microbatches, rank, 1) for rank in range(pp)]


def _rank_order(pp: int, num_microbatches: int, rank: int, barriers: int) -> list[Pass]:
    cycle = _F + _B
    logits = pp * _F
    backward = logits + barriers * cycle
    closing = PassKind.VOCAB_BACKWARD if barriers == 2 else PassKind.VOCAB_WEIGHT_GRAD
    block = (
        (-cycle, PassKind.VOCAB_IN_FORWARD),
        (rank * _F, PassKind.FORWARD),
        (logits, PassKind.VOCAB_FORWARD),
        (logits + cycle, closing),
        (backward + (pp - 1 - rank) * _B, PassKind.BACKWARD),
        (backward + pp * _B, PassKind.VOCAB_IN_BACKWARD),
    )
    timed = [
        (start + cycle * microbatch, at, Pass(kind, rank, microbatch))
        for microbatch in range(num_microbatches)
        for at, (start, kind) in enumerate(block)
    ]
    return [step for *_, step in sorted(timed)]
