"""Units of slots: the common frame of Hanayo, Chimera and BitPipe.

A copy of the model is S = p·v stages, one stage's F or B fills one slot, and micro-batch j of a unit runs

    F of stage s in slot s + 2j        B of stage s in slot 2S - 1 - s + 2j

so on a rank, slots of one parity take the F of some chunks and the B of others, those of the other parity the rest,
and where v is even (one copy, zigzag, p micro-batches a unit) or p is even (two copies, p/2 micro-batches each a unit)
both parities are full without a collision. The next unit starts 2S slots later, exactly where this one leaves off.

With e = 2(p - 1) for one copy and p - 2 for two, u = m/p units and F the time of all of a rank's layers, the bubble is

    e·F / v             for B = F: the two ends of the step
    (u + 1)·e·F / v     for B = 2F: F and B no longer fit one slot, and each unit waits anew

Between p - e/2v and p micro-batches are alive on a rank. Micro-batches missing from the last unit leave slots empty.
With the backward split (2BP) and F = I the slots fit again.
"""

from __future__ import annotations

from costmodel.placement import mirrored
from costmodel.schema.schedule import Pass, PassKind


def packed_units(
    pp: int, num_microbatches: int, vpp: int, stage_to_rank: tuple[int, ...], copies: int
) -> list[list[Pass]]:
    """The passes of each rank in order of their slots; ``stage_to_rank`` is that of the first copy, the second (if
    ``copies`` is 2) runs the other way.

    Micro-batches p·k … p·k + p - 1 are unit k; with two copies the first half of them crosses the first.
    """
    stages = pp * vpp
    slots: list[list[tuple[int, Pass]]] = [[] for _ in range(pp)]
    placement = stage_to_rank if copies == 1 else mirrored(stage_to_rank, pp)
    for start in range(0, num_microbatches, pp):
        size = min(pp, num_microbatches - start)
        first = size if copies == 1 else (size + 1) // 2
        for at in range(size):
            copy, j = (0, at) if at < first else (1, at - first)
            slot = 2 * stages * (start // pp) + 2 * j
            for stage in range(stages):
                rank = placement[copy * stages + stage]
                number, microbatch = copy * stages + stage, start + at
                slots[rank].append((slot + stage, Pass(PassKind.FORWARD, number, microbatch)))
                slots[rank].append((slot + 2 * stages - 1 - stage, Pass(PassKind.BACKWARD, number, microbatch)))
    return [[step for _, step in sorted(order)] for order in slots]
