"""Micro-batches in rounds of nearly equal size."""

from __future__ import annotations

from itertools import pairwise


def rounds(num_microbatches: int, least: int) -> list[range]:
    """As many rounds of at least ``least`` as there can be (one, if there are fewer micro-batches than that), sizes
    differing by one at most, larger ones first.
    """
    count = max(1, num_microbatches // least)
    size, longer = divmod(num_microbatches, count)
    starts = [size * at + min(at, longer) for at in range(count + 1)]
    return [range(start, end) for start, end in pairwise(starts)]
