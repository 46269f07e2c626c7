"""StageTimes: how long each pass of each stage takes, and how long what it sends is under way."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from costmodel.schema.errors import InvalidSpec
from planner.simulator.columns import Index
from planner.simulator.side_times import FrozenTimes, VocabTimes, checked_column

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class StageTimes:
    """Seconds per micro-batch, shape ``[..., num_stages]``; leading axes are one simulation each.

    forward_s      F
    input_grad_s   I
    weight_grad_s  W
    recompute_s    added to B, or to I when the backward is split: what was recomputed is kept from I to W
    edge_s         shape ``[..., num_stages - 1]`` or a scalar: delay of the activation from stage s to s + 1 and of its
                   gradient back, when the two live on different ranks; it occupies neither rank
    backward_s     a full B without its recomputation; None: input_grad_s + weight_grad_s
    overlap_s      an F of this stage side by side with another micro-batch's B, recomputation included; with an I it
                   takes what B takes more than I less. None: the sum of both parts
    gather_s       UNSHARD
    reduce_s       REDUCE_GRAD
    wire_s         as edge_s: how long the message occupies the link of its sender, and that of its receiver edge_s
                   later; messages of one rank over one level queue
    edge_level     shape ``[num_stages - 1]``, integers: the network level each edge crosses; None: all the same. A rank
                   has one link to every level
    vocab, frozen  times of vocabulary passes and of frozen pieces, for schedules that have them

    Scalars and single rows broadcast. Raises InvalidSpec for a negative or non-finite time, or shapes that don't fit.
    """

    forward_s: Array
    input_grad_s: Array
    weight_grad_s: Array
    recompute_s: Array | float = 0.0
    edge_s: Array | float = 0.0
    backward_s: Array | float | None = None
    overlap_s: Array | float | None = None
    gather_s: Array | float = 0.0
    reduce_s: Array | float = 0.0
    wire_s: Array | float = 0.0
    edge_level: Index | None = None
    vocab: VocabTimes | None = None
    frozen: FrozenTimes | None = None

    def __post_init__(self) -> None:
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        sides = [side for side in (given.pop("vocab"), given.pop("frozen")) if side is not None]
        level = given.pop("edge_level")
        columns = {name: checked_column(name, value) for name, value in given.items() if value is not None}
        edges = {name: columns.pop(name) for name in ("edge_s", "wire_s")}
        try:
            shape = np.broadcast_shapes(*(column.shape for column in columns.values()))
            num_stages = shape[-1] if shape else 1
            num_edges = max(num_stages - 1, 0)
            outer = [column.shape[:-1] for column in edges.values()]
            batch = np.broadcast_shapes(shape[:-1], *outer, *(side.batch_shape for side in sides))
            whole = {name: _spread(column, (*batch, num_stages)) for name, column in columns.items()}
            whole |= {name: _spread(column, (*batch, num_edges)) for name, column in edges.items()}
            if level is not None:
                object.__setattr__(self, "edge_level", np.broadcast_to(np.asarray(level, np.int64), num_edges))
        except ValueError:
            shapes = ", ".join(f"{name} {np.shape(value)}" for name, value in given.items() if value is not None)
            raise InvalidSpec(
                f"times of stages don't fit together: {shapes}",
                "give [..., num_stages] for each pass and [..., num_stages - 1] for edge_s, wire_s and edge_level",
            ) from None
        for name, column in whole.items():
            object.__setattr__(self, name, column)

    @property
    def num_stages(self) -> int:
        return int(self.forward_s.shape[-1])

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return self.forward_s.shape[:-1]

    @property
    def link_levels(self) -> tuple[int, ...] | None:
        """The level of every edge; None when no message occupies a link."""
        if not np.any(self.wire_s):
            return None
        return (0,) * (self.num_stages - 1) if self.edge_level is None else tuple(self.edge_level.tolist())

    def pass_table_s(self) -> Array:
        """Seconds by kind and stage, kinds in the order F, B, I, W; shape ``[..., 4, num_stages]``."""
        full = self.input_grad_s + self.weight_grad_s if self.backward_s is None else self.backward_s
        input_grad = self.input_grad_s + self.recompute_s
        table: Array = np.stack((self.forward_s, full + self.recompute_s, input_grad, self.weight_grad_s), axis=-2)
        return table

    def pair_s(self, forward: Index, backward: Index, full: Index) -> Array:
        """Seconds of pairs, ``[..., pairs]``: F of stages ``forward`` with B (where ``full``) or I of ``backward``."""
        forward_s, backward_s, input_grad_s, _ = np.moveaxis(self.pass_table_s(), -2, 0)
        alone = np.where(full, backward_s[..., backward], input_grad_s[..., backward])
        if self.overlap_s is None:
            return np.asarray(forward_s[..., forward] + alone)
        together = np.asarray(self.overlap_s)[..., forward]
        return np.asarray(np.maximum(together - (backward_s[..., backward] - alone), 0.0))

    @classmethod
    def uniform(
        cls,
        num_stages: int,
        forward_s: float,
        input_grad_s: float,
        weight_grad_s: float,
        edge_s: float = 0.0,
        **more: Any,
    ) -> StageTimes:
        """Every stage alike, every edge alike; ``more``: further fields."""
        ones = np.ones(num_stages)
        return cls(forward_s * ones, input_grad_s * ones, weight_grad_s * ones, edge_s=edge_s, **more)


def _spread(column: Array, shape: tuple[int, ...]) -> Array:
    """``np.broadcast_to``, for a few columns faster."""
    if column.shape == shape:
        return column
    return np.full(shape, column) if column.ndim == 0 and len(shape) == 1 else np.broadcast_to(column, shape)
