"""Where stages live: rank of every stage, stages in model order, one copy after the other."""

from __future__ import annotations


def looped(pp: int, vpp: int) -> tuple[int, ...]:
    """Round and round: stage s on rank s mod p."""
    return tuple(stage % pp for stage in range(pp * vpp))


def zigzag(pp: int, vpp: int) -> tuple[int, ...]:
    """There and back: ranks 0…p-1, then p-1…0, and so on. Two stages a rank are a V, four a wave of two Vs."""
    return tuple(stage % pp if stage // pp % 2 == 0 else pp - 1 - stage % pp for stage in range(pp * vpp))


def mirrored(stage_to_rank: tuple[int, ...], pp: int) -> tuple[int, ...]:
    """Two copies, the second from the other end: where the first has rank r the second has p - 1 - r."""
    return stage_to_rank + tuple(pp - 1 - rank for rank in stage_to_rank)
