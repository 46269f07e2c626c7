"""Times of passes that are not a stage's own: vocabulary parts and frozen pieces."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike, NDArray

from costmodel.schema.errors import InvalidSpec

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class VocabTimes:
    """Seconds per micro-batch of one rank's part, shape ``[..., num_ranks]`` or a scalar; the last four ``[...]``.

    embed_forward_s   VOCAB_IN_F
    embed_backward_s  VOCAB_IN_B
    forward_s         VOCAB_F
    backward_s        VOCAB_B
    weight_grad_s     VOCAB_W
    embedded_s        the collective that sums the looked-up tokens
    statistics_s      the collective in which the statistics of the logits meet
    vocab_gradient_s  the collective that sums the input gradients
    broadcast_s       delay of the last stage's activation to all other ranks' VOCAB_F, and of the first stage's
                      gradient to their VOCAB_IN_B; it occupies no link

    Collectives of one kind run one after the other, beside compute. Raises InvalidSpec as StageTimes does.
    """

    embed_forward_s: Array | float = 0.0
    embed_backward_s: Array | float = 0.0
    forward_s: Array | float = 0.0
    backward_s: Array | float = 0.0
    weight_grad_s: Array | float = 0.0
    embedded_s: Array | float = 0.0
    statistics_s: Array | float = 0.0
    vocab_gradient_s: Array | float = 0.0
    broadcast_s: Array | float = 0.0

    def __post_init__(self) -> None:
        columns = {field.name: checked_column(field.name, getattr(self, field.name)) for field in fields(self)}
        scalars = {
            name: columns.pop(name) for name in ("embedded_s", "statistics_s", "vocab_gradient_s", "broadcast_s")
        }
        try:
            shape = np.broadcast_shapes((1,), *(column.shape for column in columns.values()))
            batch = np.broadcast_shapes(shape[:-1], *(column.shape for column in scalars.values()))
        except ValueError:
            raise InvalidSpec("times of vocabulary passes don't fit together", "give [..., num_ranks] each") from None
        for name, column in columns.items():
            object.__setattr__(self, name, np.broadcast_to(column, (*batch, shape[-1])))
        for name, column in scalars.items():
            object.__setattr__(self, name, np.broadcast_to(column, batch))

    @property
    def num_ranks(self) -> int:
        """1 when all ranks are alike."""
        return int(np.shape(self.forward_s)[-1])

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return np.shape(self.forward_s)[:-1]

    def passes(self) -> tuple[Array, ...]:
        """By kind, in PassKind's order."""
        columns = (
            self.embed_forward_s, self.embed_backward_s, self.forward_s, self.backward_s, self.weight_grad_s
        )  # fmt: skip
        return tuple(np.asarray(column) for column in columns)

    def joints(self) -> tuple[Array, ...]:
        """By product: embedded, statistics, vocab_gradient."""
        return tuple(np.asarray(each) for each in (self.embedded_s, self.statistics_s, self.vocab_gradient_s))


@dataclass(frozen=True, eq=False)
class FrozenTimes:
    """Seconds per micro-batch of each piece of a frozen model, shape ``[..., num_pieces]``; ``edge_s``
    ``[..., num_pieces - 1]`` or a scalar: delay from piece k to k + 1 when they run on different ranks.

    Raises InvalidSpec as StageTimes does.
    """

    forward_s: Array
    edge_s: Array | float = 0.0

    def __post_init__(self) -> None:
        forward, edge = checked_column("forward_s", self.forward_s), checked_column("edge_s", self.edge_s)
        try:
            batch = np.broadcast_shapes(forward.shape[:-1], edge.shape[:-1])
            pieces = forward.shape[-1] if forward.shape else 1
            object.__setattr__(self, "forward_s", np.broadcast_to(forward, (*batch, pieces)))
            object.__setattr__(self, "edge_s", np.broadcast_to(edge, (*batch, pieces - 1)))
        except ValueError:
            raise InvalidSpec(
                f"times of frozen pieces don't fit together: forward_s {forward.shape}, edge_s {edge.shape}",
                "give [..., num_pieces] and [..., num_pieces - 1]",
            ) from None

    @property
    def num_pieces(self) -> int:
        return int(np.shape(self.forward_s)[-1])

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return np.shape(self.forward_s)[:-1]


def checked_column(name: str, value: ArrayLike, what: str = "a time") -> Array:
    """``value`` as an array. Raises InvalidSpec for ``what`` is negative or not finite."""
    column = np.asarray(value, dtype=np.float64)
    if column.size and not (column.min() >= 0.0 and column.max() < np.inf):
        bad = ~(np.isfinite(column) & (column >= 0))
        raise InvalidSpec(f"{name} has the value {column[bad].flat[0]:g}; {what} is finite and not negative")
    return column
