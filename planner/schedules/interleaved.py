"""Interleaved 1F1B: each rank holds v chunks, the stages rank + p·chunk, and takes micro-batches in rounds.

A round is p micro-batches where m is a multiple of p; else the m micro-batches are shared out over max(1, m div p)
rounds, sizes differing by one at most, so every round has at least p unless m < p. Within a round forwards take chunk
after chunk, backwards from the last chunk to the first. Warm-up is 2(p - rank - 1) + (v - 1)·g forwards, g the size of
the first round, so min(2(p - rank - 1) + (v - 1)·g + 1, m·v) chunks are alive at most. Bubble over ideal time:
(p - 1) / (m·v) where m is a multiple of p.

Source: Narayanan et al. 2021, "Efficient Large-Scale Language Model Training on GPU Clusters Using Megatron-LM",
section 2.2 and figure 4. Megatron-Core's microbatch_group_size_per_vp_stage and PyTorch's rounds are g; both need
rounds of one size (Megatron-Core lets the last be shorter), and where PyTorch has them the order is the same.
"""

from __future__ import annotations

from itertools import chain

from costmodel.schema.schedule import Pass, PassKind, passes
from planner.schedules.rounds import rounds


def interleaved_1f1b(pp: int, num_microbatches: int, vpp: int) -> list[list[Pass]]:
    """The passes of each rank in order; ``vpp`` stages a rank."""
    groups = rounds(num_microbatches, pp)
    units = [(chunk, microbatch) for group in groups for chunk in range(vpp) for microbatch in group]
    ahead = (vpp - 1) * len(groups[0])
    return [_rank_order(units, pp, vpp, rank, min(2 * (pp - rank - 1) + ahead, len(units))) for rank in range(pp)]


def _rank_order(units: list[tuple[int, int]], pp: int, vpp: int, rank: int, warmup: int) -> list[Pass]:
    """``units``: (chunk, micro-batch) of every forward."""
    microbatches = [microbatch for _, microbatch in units]
    forwards = passes(PassKind.FORWARD, [rank + pp * chunk for chunk, _ in units], microbatches)
    backwards = passes(PassKind.BACKWARD, [rank + pp * (vpp - 1 - chunk) for chunk, _ in units], microbatches)
    in_turn = chain.from_iterable(zip(forwards[warmup:], backwards, strict=False))
    return [*forwards[:warmup], *in_turn, *backwards[len(units) - warmup :]]
