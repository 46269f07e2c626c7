"""Layouts and Assignment: columns of degrees, and beside them how many layers each pipeline rank holds.

One layout is one row. Every cost function takes these and returns columns by NumPy broadcasting, so one
layout and a million are priced by the same code.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Self, cast, get_args

import numpy as np
from numpy.typing import NDArray

from costmodel.schedules import SCHEDULES
from costmodel.schema.errors import InvalidSpec
from costmodel.schema.layout import (
    AXES,
    EXPERT_AXES,
    Layout,
    OffloadTarget,
    OptimizerFormat,
    RecomputePolicy,
    SavedDtype,
)

IntColumn = NDArray[np.int64]
Column = NDArray[np.float64]
BoolColumn = NDArray[np.bool_]
OffloadShare = Literal["none", "hidden", "all"]

ORDERS: tuple[tuple[str, ...], ...] = (AXES, ("tp", "cp_ulysses", "cp_ring", "pp", "dp_shard", "dp_replicate"))
"""Mesh orders that are searched, innermost axis first: pipeline outermost, or data parallel outermost."""

SCHEDULE_CODES: tuple[str, ...] = tuple(SCHEDULES)
"""Schedules that the closed forms know; a column holds the position in this tuple."""


OPTIMIZER_FORMATS: tuple[OptimizerFormat, ...] = get_args(OptimizerFormat)
"""Formats of the optimizer's moments; a column holds the position in this tuple."""

FLAGS = ("sequence_parallel", "vocab_parallel", "frozen_fill")
"""Columns that hold yes or no."""


@dataclass(frozen=True)
class Layouts:
    """Columns of equal length, one per degree or choice of ``Layout``.

    ``order`` indexes ORDERS, ``schedule`` SCHEDULE_CODES, ``optimizer_format`` OPTIMIZER_FORMATS.
    """

    tp: IntColumn
    pp: IntColumn
    vpp: IntColumn
    cp_ring: IntColumn
    cp_ulysses: IntColumn
    ep: IntColumn
    etp: IntColumn
    dp_replicate: IntColumn
    dp_shard: IntColumn
    micro_batch_size: IntColumn
    num_microbatches: IntColumn
    zero_stage: IntColumn
    shard_params: IntColumn
    shard_grads: IntColumn
    shard_optim: IntColumn
    reshard_after_forward: IntColumn
    sequence_parallel: IntColumn
    vocab_parallel: IntColumn
    frozen_fill: IntColumn
    first_group: IntColumn
    optimizer_format: IntColumn
    optimizer_offload: Column
    order: IntColumn
    schedule: IntColumn

    def __len__(self) -> int:
        return len(self.tp)

    @property
    def cp(self) -> IntColumn:
        return self.cp_ring * self.cp_ulysses

    @property
    def dp(self) -> IntColumn:
        return self.dp_replicate * self.dp_shard

    @property
    def edp(self) -> IntColumn:
        return self.tp * self.cp * self.dp // (self.ep * self.etp)

    @property
    def vocab_over(self) -> IntColumn:
        """Pipeline ranks that share the vocabulary: 1 where each of the model's ends is whole."""
        return np.where(self.vocab_parallel > 0, self.pp, 1)

    @property
    def world_size(self) -> IntColumn:
        return self.pp * self.dp * self.cp * self.tp

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_] | slice | Sequence[int]) -> Self:
        """The rows that an index, mask or slice selects."""
        return replace(self, **{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    @classmethod
    def concatenate(cls, parts: Sequence[Layouts]) -> Layouts:
        return cls(
            **{field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)}
        )

    @classmethod
    def from_rows(cls, rows: Iterable[tuple[Layout, str]]) -> Layouts:
        """Columns from (layout, schedule name) pairs. Raises InvalidSpec for an order or schedule not known here."""
        pairs = list(rows)
        columns: dict[str, Any] = {}
        for field in fields(cls):
            if field.name == "order":
                columns[field.name] = np.array([_code(ORDERS, layout.order, "order") for layout, _ in pairs], np.int64)
            elif field.name == "schedule":
                columns[field.name] = np.array([_code(SCHEDULE_CODES, name, "schedule") for _, name in pairs], np.int64)
            elif field.name == "optimizer_format":
                codes = [_code(OPTIMIZER_FORMATS, layout.optimizer_format, field.name) for layout, _ in pairs]
                columns[field.name] = np.array(codes, np.int64)
            else:
                dtype = np.float64 if field.name == "optimizer_offload" else np.int64
                columns[field.name] = np.array([getattr(layout, field.name) for layout, _ in pairs], dtype)
        return cls(**columns)

    def row(self, index: int) -> Layout:
        """One row as the validated object that a plan carries."""
        values = {
            name: getattr(self, name)[index].item()
            for name in Layout.model_fields
            if name not in ("order", "expert_order")
        }
        values |= {name: bool(values[name]) for name in FLAGS}
        values["optimizer_format"] = OPTIMIZER_FORMATS[values["optimizer_format"]]
        return Layout(**values, order=ORDERS[int(self.order[index])], expert_order=EXPERT_AXES)

    def schedule_name(self, index: int) -> str:
        return SCHEDULE_CODES[int(self.schedule[index])]

    def stride(self, axis: str) -> IntColumn:
        """Distance in ranks between neighbours on a mesh axis: the product of the degrees inside it."""
        if axis in ("etp", "ep", "edp"):
            sizes = {"etp": np.ones_like(self.tp), "ep": self.etp, "edp": self.etp * self.ep}
            return self._past_pipeline(axis, sizes[axis])
        strides = np.empty((len(ORDERS), len(self)), np.int64)
        for code, order in enumerate(ORDERS):
            inner = order[: order.index(axis)]
            strides[code] = np.prod([getattr(self, name) for name in inner], axis=0, initial=1) if inner else 1
        return cast(IntColumn, np.take_along_axis(strides, self.order[None, :], axis=0)[0])

    def _past_pipeline(self, axis: str, stride: IntColumn) -> IntColumn:
        """Expert axes share the stage's ranks; where pp lies inside dp, edp steps over it."""
        if axis != "edp":
            return stride
        return np.where(self.order == 1, stride * np.where(stride >= self.tp * self.cp, self.pp, 1), stride)


def _code(known: Sequence[object], value: object, field: str) -> int:
    if value not in known:
        raise InvalidSpec(
            f"layout.{field} = {value!r} is not one that is priced", f"one of {', '.join(map(str, known))}"
        )
    return known.index(value)


@dataclass(frozen=True)
class Policy:
    """What happens to one layer's saved activations between forward and backward.

    ``offload``: how much of what recomputation leaves waits outside the device: nothing; as much as the layer's own
    passes hide the copies of, a share of its own for each kind of layer and split; or all of it. ``offload_to``: where.
    ``saved_dtype``: in how many bits what is saved is kept.
    """

    recompute: RecomputePolicy
    offload: OffloadShare = "none"
    offload_to: OffloadTarget = "host"
    saved_dtype: SavedDtype = "as-computed"

    @property
    def name(self) -> str:
        """``none``, ``selective``, ``none+offload``, ``none+int8+hidden-offload-nvme``."""
        parts: list[str] = [self.recompute]
        if self.saved_dtype != "as-computed":
            parts.append(self.saved_dtype)
        if self.offload != "none":
            parts.append("hidden-" * (self.offload == "hidden") + "offload" + "-nvme" * (self.offload_to == "nvme"))
        return "+".join(parts)


def _offloads(target: OffloadTarget, dtype: SavedDtype, recomputes: Sequence[RecomputePolicy]) -> list[Policy]:
    """All of it before the hidden share: where everything hides the two are the same, and the first stands for both.

    Exposed copy time is convex and piecewise linear in the share, its one kink where the copy takes as long as what
    hides it: layers that keep all, send the hidden share or send all span every mix of shares. Of a fully recomputed
    layer only its input is left, which hides as a rule.
    """
    shares: tuple[OffloadShare, ...] = ("all", "hidden")
    return [
        Policy(recompute, share, target, dtype)
        for recompute in recomputes
        for share in shares[: 1 if recompute == "full" else 2]
    ]


POLICIES: tuple[Policy, ...] = (
    Policy("none"),
    Policy("selective"),
    Policy("full"),
    *_offloads("host", "as-computed", ("none", "selective", "full")),
    Policy("none", saved_dtype="int8"),
    Policy("selective", saved_dtype="int8"),
    *_offloads("host", "int8", ("none", "selective")),
    *_offloads("nvme", "as-computed", ("none", "selective", "full")),
    *_offloads("nvme", "int8", ("none", "selective")),
)
"""Per-layer choices, in the order of every policy axis; an axis may end where the rest is not in question."""


@dataclass(frozen=True)
class Assignment:
    """Layers on pipeline ranks. A *slot* stands for one rank or for several equal ones.

    ``counts``: [n, S, K, P] layers of kind k under policy p on slot s, all of the rank's chunks together; the policy
    axis may end after the last that any layer follows.
    ``rank``: [n, S] the pipeline rank of the slot (the first of those it stands for).
    ``multiplicity``: [n, S] how many ranks it stands for (0: padding).
    ``embedding``, ``head``: [n, S] whether the slot holds the input embedding, the output head.
    """

    counts: Column
    rank: IntColumn
    multiplicity: IntColumn
    embedding: BoolColumn
    head: BoolColumn

    def on_axis(self, num_policies: int) -> Assignment:
        """The same with a policy axis that ends at ``num_policies``, where it is longer."""
        if self.counts.shape[3] <= num_policies:
            return self
        assert not self.counts[..., num_policies:].any(), "layers under a policy that is not priced"
        return replace(self, counts=self.counts[..., :num_policies])

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_] | slice | Sequence[int]) -> Assignment:
        return Assignment(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})
