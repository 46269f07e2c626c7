"""Layout: every degree of one way to spread a model over devices, refused when it contradicts itself."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, computed_field, model_validator

from costmodel.schema.base import Spec

AXES = ("tp", "cp_ulysses", "cp_ring", "dp_shard", "dp_replicate", "pp")
"""Mesh axes in the default order, innermost (nearest devices) first."""

EXPERT_AXES = ("etp", "ep", "edp", "pp")

RecomputePolicy = Literal["none", "selective", "full"]

OffloadTarget = Literal["host", "nvme"]
"""Where saved activations wait outside the device: in host memory, or on the node's drives."""

SavedDtype = Literal["as-computed", "int8"]
"""How saved activations are kept: as they were computed, or in 8 bits with a scale for each block."""

OptimizerFormat = Literal["fp32", "int8", "fp8", "low-rank", "bf16"]
"""How the optimizer's moments are kept: in fp32, in 8 bits by blocks or groups, projected to a low rank, or in bf16."""


class Layout(Spec):
    """One layout. World = pp · dp_replicate · dp_shard · cp_ring · cp_ulysses · tp; etp · ep · edp = world / pp.

    ``zero_stage``: 0 nothing, 1 optimizer state, 2 and gradients, 3 and parameters, split over dp_shard × cp.
    ``shard_params``, ``shard_grads``, ``shard_optim``: over how many of a stage's data- and context-parallel ranks each
    is split where that is not what ``zero_stage`` says, nested and nearest ranks first; 0: as ``zero_stage`` says.
    ``reshard_after_forward``: at stage 3, over how many ranks gathered parameters stay split between forward and
    backward; 0: over all that share them, 1: they stay whole.
    ``optimizer_format``: how the optimizer's moments are kept.
    ``optimizer_offload``: share of the optimizer state and its update that lives on the host.
    ``vocab_parallel``: embedding and head are split over all pipeline ranks.
    ``frozen_fill``: frozen parts run in the pipeline's bubbles for the next step, not before the pipeline for this one.
    ``first_group``: of a cluster of several kinds of node, the group that holds the first pipeline ranks.
    ``order``, ``expert_order``: mesh axes, innermost first.
    """

    tp: PositiveInt = 1
    pp: PositiveInt = 1
    vpp: PositiveInt = 1
    cp_ring: PositiveInt = 1
    cp_ulysses: PositiveInt = 1
    ep: PositiveInt = 1
    etp: PositiveInt = 1
    dp_replicate: PositiveInt = 1
    dp_shard: PositiveInt = 1
    micro_batch_size: PositiveInt = 1
    num_microbatches: PositiveInt = 1
    zero_stage: Literal[0, 1, 2, 3] = 0
    shard_params: NonNegativeInt = 0
    shard_grads: NonNegativeInt = 0
    shard_optim: NonNegativeInt = 0
    reshard_after_forward: NonNegativeInt = 0
    sequence_parallel: bool = True
    vocab_parallel: bool = False
    frozen_fill: bool = False
    first_group: NonNegativeInt = 0
    optimizer_format: OptimizerFormat = "fp32"
    optimizer_offload: Annotated[float, Field(ge=0, le=1)] = 0.0
    order: tuple[str, ...] = AXES
    expert_order: tuple[str, ...] = EXPERT_AXES

    @model_validator(mode="after")
    def _consistent(self) -> Layout:
        ranks = self.tp * self.cp * self.dp
        if ranks % (self.ep * self.etp):
            raise ValueError(f"ep {self.ep} · etp {self.etp} must divide tp · cp · dp = {ranks}")
        if sorted(self.order) != sorted(AXES):
            raise ValueError(f"order must name each of {', '.join(AXES)} once")
        if sorted(self.expert_order) != sorted(EXPERT_AXES):
            raise ValueError(f"expert_order must name each of {', '.join(EXPERT_AXES)} once")
        return self

    @model_validator(mode="after")
    def _nested(self) -> Layout:
        """Shard groups divide each other, from parameters' up to all ranks, and exist at the stage that splits them."""
        ranks, usual = self.dp * self.cp, self.dp_shard * self.cp
        least = {"reshard_after_forward": 3, "shard_params": 3, "shard_grads": 2, "shard_optim": 1}
        for name, stage in least.items():
            if getattr(self, name) and self.zero_stage < stage:
                raise ValueError(f"{name} {getattr(self, name)} needs zero_stage {stage}, not {self.zero_stage}")
        near = [(name, getattr(self, name)) for name in ("reshard_after_forward", "shard_params")]
        far = [(name, getattr(self, name)) for name in ("shard_grads", "shard_optim")]
        chains = [[*near, *far, ("dp · cp", ranks)]]
        if not self.shard_grads:
            chains = [[*near, ("dp_shard · cp", usual)], [("dp_shard", self.dp_shard), far[1], ("dp · cp", ranks)]]
        for chain in chains:
            for (inner, size), (outer, larger) in pairwise([(name, size) for name, size in chain if size]):
                if larger % size:
                    raise ValueError(f"{inner} {size} must divide {outer} {larger}: shard groups are nested")
        return self

    @property
    def cp(self) -> int:
        return self.cp_ring * self.cp_ulysses

    @property
    def dp(self) -> int:
        return self.dp_replicate * self.dp_shard

    @property
    def world_size(self) -> int:
        return self.pp * self.dp * self.cp * self.tp

    @property
    def parallelism(self) -> str:
        """Which kinds of it split the model: ``tp+pp``, …; ``dp`` where none does."""
        degrees = {"tp": self.tp, "pp": self.pp, "cp": self.cp, "ep": self.ep}
        return "+".join(name for name, degree in degrees.items() if degree > 1) or "dp"

    @computed_field  # type: ignore[prop-decorator]
    @property
    def edp(self) -> int:
        """Data-parallel degree of the experts: what ep and etp leave of a stage's ranks."""
        return self.tp * self.cp * self.dp // (self.ep * self.etp)

    @model_validator(mode="before")
    @classmethod
    def _drop_derived(cls, data: object) -> object:
        if isinstance(data, dict) and "edp" in data:
            given = dict(data)
            edp = given.pop("edp")
            if edp is not None:
                layout = cls.model_validate(given)
                if layout.edp != edp:
                    raise ValueError(f"edp {edp} contradicts tp · cp · dp / (ep · etp) = {layout.edp}")
            return given
        return data
