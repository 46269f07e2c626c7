"""Sharded parameters on the timeline: which passes gather a stage, drop it again, and reduce its gradients.

A stage is gathered one pass ahead of its use, so that the gather is under way beside that pass, and dropped as soon as
the rank turns to another stage, unless a weight gradient of the stage is still to come (PyTorch runs it on gathered
parameters). Meant for orders that use a stage in long stretches. Gradients are reduced once, right after the stage's
last pass of the step, while the rank goes on with other stages.

Source: Lamy-Poirier 2022, "Breadth-First Pipeline Parallelism"; Tang et al. 2024, "ZeroPP: Unleashing Exceptional
Parallelism Efficiency through Tensor-Parallelism-Free Methodology".
"""

from __future__ import annotations

from collections import Counter

from costmodel.schema.schedule import Pass, PassKind


def with_gathers(order: list[Pass]) -> list[Pass]:
    """One rank's order with UNSHARD, RESHARD and REDUCE_GRAD; ``order`` has F, B, I and W only."""
    uses: dict[int, list[int]] = {}
    for at, step in enumerate(order):
        uses.setdefault(step.stage, []).append(at)
    before: dict[int, list[Pass]] = {}
    after: dict[int, list[Pass]] = {}
    for stage, positions in uses.items():
        for start, end in _stretches(order, positions):
            before.setdefault(max(start - 1, 0), []).append(Pass(PassKind.UNSHARD, stage))
            after.setdefault(end, []).append(Pass(PassKind.RESHARD, stage))
        after[positions[-1]].append(Pass(PassKind.REDUCE_GRAD, stage))
    return [each for at, step in enumerate(order) for each in (*before.get(at, ()), step, *after.get(at, ()))]


def _stretches(order: list[Pass], positions: list[int]) -> list[tuple[int, int]]:
    """(first, last) position of each stretch in which one stage is held; ``positions``: where the stage is used."""
    found: list[tuple[int, int]] = []
    owed: Counter[PassKind] = Counter()
    start = positions[0]
    for at, after in zip(positions, [*positions[1:], len(order) + 1], strict=True):
        owed[order[at].kind] += 1
        whole = owed[PassKind.INPUT_GRAD] == owed[PassKind.WEIGHT_GRAD]
        if whole and after > at + 1:
            found.append((start, at))
            start = after
    return found
