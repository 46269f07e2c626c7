"""1F1B: a warm-up of p - rank forwards, then one backward and one forward in turn, then the backwards left.

At most min(p - rank, m) micro-batches are alive on a rank. Bubble over ideal time: (p - 1) / m.

Source: Narayanan et al. 2021, "Memory-Efficient Pipeline-Parallel DNN Training", section 3.2 (PipeDream-Flush).
"""

from __future__ import annotations

from itertools import chain, repeat

from costmodel.schema.schedule import Pass, PassKind, passes


def one_f_one_b(pp: int, num_microbatches: int, vpp: int = 1) -> list[list[Pass]]:
    """The passes of each rank in order; one stage a rank."""
    del vpp
    return [_rank_order(pp, num_microbatches, rank) for rank in range(pp)]


def _rank_order(pp: int, num_microbatches: int, rank: int) -> list[Pass]:
    warmup = min(pp - rank, num_microbatches)
    forwards, backwards = (
        passes(kind, repeat(rank), range(num_microbatches)) for kind in (PassKind.FORWARD, PassKind.BACKWARD)
    )
    in_turn = chain.from_iterable(zip(backwards, forwards[warmup:], strict=False))
    return [*forwards[:warmup], *in_turn, *backwards[num_microbatches - warmup :]]
