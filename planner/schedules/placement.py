"""Where stages live: rank of every stage, stages in model order, one copy after the other."""

from __future__ import annotations


def looped(pp: int, vpp: int) -> tuple[int, ...]:
    """Round and round: stage s on rank s mod p."""
    return tuple(stage % pp for stage in range(pp * vpp))


def zigzag(pp: int, vpp: int) -> tuple[int, ...]:
    """There and back: ranks 0…p-1, then p-1…0, and so on. Two stages a rank are a V, four a wave of two Vs."""
    return tuple(stage % pp if stage // pp % 2 == 0 else pp - 1 - stage % pp for stage in range(pp * vpp))
