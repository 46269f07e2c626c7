"""Bytes on a rank over time: weights, gathered weights, activations.

    weights       of all the rank's stages, all the time; gathered_bytes more from UNSHARD's start to RESHARD
    activations   from the start of F to the end of B; recomputed_bytes more from the start of B
    under a split backward a ``residual`` share of both stays from the end of I to the end of W
    vocabulary    logits and their statistics, from the start of VOCAB_F to the end of VOCAB_B or VOCAB_W

Leaves out: gradients and optimizer state, which don't move within a step; buffers of messages; what frozen pieces keep.
Source: Qi et al. 2023, "Zero Bubble Pipeline Parallelism", section 2.3 (what stays from I to W).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np

from costmodel.schema.errors import InvalidSpec
from planner.simulator.columns import (
    BACKWARD,
    FORWARD,
    INPUT_GRAD,
    RESHARD,
    UNSHARD,
    VOCAB_BACKWARD,
    VOCAB_FORWARD,
    VOCAB_WEIGHT_GRAD,
    WEIGHT_GRAD,
    Index,
)
from planner.simulator.graph import PassGraph
from planner.simulator.side_times import checked_column
from planner.simulator.times import Array

_STARTS, _ENDS = 0, 1


@dataclass(frozen=True, eq=False)
class StageMemory:
    """Bytes per stage, shape ``[num_stages]`` or scalars; activations are those of one micro-batch.

    weight_bytes      the stage's parameters as they are kept all step
    gathered_bytes    what UNSHARD adds to them
    activation_bytes  kept from the forward pass
    recomputed_bytes  recomputed by the backward pass
    residual          share of both that a split backward keeps from I to W, 0 to 1
    vocab_bytes       per rank, shape ``[num_ranks]`` or a scalar: kept from VOCAB_F on

    Raises InvalidSpec for a negative or non-finite size, or a share above 1.
    """

    weight_bytes: Array | float = 0.0
    gathered_bytes: Array | float = 0.0
    activation_bytes: Array | float = 0.0
    recomputed_bytes: Array | float = 0.0
    residual: Array | float = 1.0
    vocab_bytes: Array | float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            checked_column(field.name, getattr(self, field.name), "a size")
        most = float(np.max(self.residual))
        if most > 1.0:
            raise InvalidSpec(f"residual has the value {most:g}; it is a share, 0 to 1")


@dataclass(frozen=True, eq=False)
class RankMemory:
    """What one rank holds from each moment on; shapes ``[moments]``, moments ascending."""

    when_s: Array
    weight_bytes: Array
    activation_bytes: Array

    @cached_property
    def total_bytes(self) -> Array:
        return self.weight_bytes + self.activation_bytes

    @property
    def peak_bytes(self) -> float:
        return float(self.total_bytes.max())

    @property
    def peak_at_s(self) -> float:
        """The first moment at which the peak is reached."""
        return float(self.when_s[self.total_bytes.argmax()])


def rank_memory(graph: PassGraph, start_s: Array, finish_s: Array, rank: int, sizes: StageMemory) -> RankMemory:
    """The curve of ``rank`` from the start and end of every pass."""
    columns = graph.columns
    works = np.flatnonzero(columns.rank[columns.owner] == rank)
    owner, kind, stage = columns.owner[works], columns.work_kind[works], columns.work_stage[works]
    activation, recomputed, residual, weight, gathered = (
        np.broadcast_to(np.asarray(getattr(sizes, name), dtype=np.float64), (graph.num_stages,))
        for name in ("activation_bytes", "recomputed_bytes", "residual", "weight_bytes", "gathered_bytes")
    )
    vocab = np.broadcast_to(np.asarray(sizes.vocab_bytes, dtype=np.float64), (graph.num_ranks,))[rank]
    whole = activation + recomputed
    held = (
        (FORWARD, _STARTS, activation),
        (BACKWARD, _STARTS, recomputed),
        (INPUT_GRAD, _STARTS, recomputed),
        (BACKWARD, _ENDS, -whole),
        (INPUT_GRAD, _ENDS, -(1.0 - residual) * whole),
        (WEIGHT_GRAD, _ENDS, -residual * whole),
        (VOCAB_FORWARD, _STARTS, vocab),
        (VOCAB_BACKWARD, _ENDS, -vocab),
        (VOCAB_WEIGHT_GRAD, _ENDS, -vocab),
    )
    moments: list[tuple[Index, Array, Array, Array]] = []
    for code, side, change in held:
        at = kind == code
        amount = change[stage[at]] if isinstance(change, np.ndarray) else np.full(int(at.sum()), change)
        when_s = (finish_s if side else start_s)[owner[at]]
        moments.append((2 * owner[at] + side, when_s, amount, np.zeros(len(amount))))
    changes = np.flatnonzero((kind == UNSHARD) | (kind == RESHARD))
    gathers, drops, dropped = (changes[part] for part in _gathers(kind[changes], stage[changes]))
    moments.append((2 * owner[gathers], start_s[owner[gathers]], np.zeros(len(gathers)), gathered[stage[gathers]]))
    # What is dropped without having been used is there first.
    when_s = np.maximum(finish_s[owner[drops]], finish_s[owner[dropped]])
    moments.append((2 * owner[drops] + 1, when_s, np.zeros(len(drops)), -gathered[stage[drops]]))

    # At one moment what ends is counted before what starts after it, in the rank's own order.
    turn, when_s, alive, weights = (np.concatenate(parts) for parts in zip(*moments, strict=True))
    by_time = np.lexsort((turn, when_s))
    base = float(weight[columns.home == rank].sum())
    return RankMemory(
        np.insert(when_s[by_time], 0, 0.0),
        np.insert(base + np.cumsum(weights[by_time]), 0, base),
        np.insert(np.cumsum(alive[by_time]), 0, 0.0),
    )


def _gathers(kind: Index, stage: Index) -> tuple[list[int], list[int], list[int]]:
    """Numbers of UNSHARDs, and of RESHARDs with the UNSHARD whose gather each drops."""
    gathers: list[int] = []
    drops: list[int] = []
    dropped: list[int] = []
    held: dict[int, int] = {}
    for at, (code, owner) in enumerate(zip(kind.tolist(), stage.tolist(), strict=True)):
        if code == UNSHARD:
            held[owner] = at
            gathers.append(at)
        else:
            drops.append(at)
            dropped.append(held.pop(owner))
    return gathers, drops, dropped
