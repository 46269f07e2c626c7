"""Plan: the artifact. Versioned JSON that is complete enough to run, re-price and explain with nothing else."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    computed_field,
    model_validator,
)

from costmodel.schema.base import Spec
from costmodel.schema.cluster import ClusterSpec, DeviceSpec, NodeGroup
from costmodel.schema.layout import Layout, OffloadTarget, RecomputePolicy, SavedDtype
from costmodel.schema.model import ModelSpec
from costmodel.schema.prediction import Prediction, Probability
from costmodel.schema.runtime import Runtime
from costmodel.schema.schedule import Schedule
from costmodel.schema.training import Training
from costmodel.schema.workload import Workload

SCHEMA_VERSION: Literal[1] = 1


class PlanCluster(Spec):
    """The machine as planned for: device name and count beside the whole description.

    ``device``, ``device_spec``: of the first group of nodes; ``other_specs``: of the further unlike groups, in order.
    """

    device: str
    num_devices: PositiveInt
    groups: tuple[NodeGroup, ...]
    spec: ClusterSpec
    device_spec: DeviceSpec
    other_specs: tuple[DeviceSpec, ...] = ()

    @model_validator(mode="after")
    def _has_every_device(self) -> PlanCluster:
        groups, specs = self.spec.unlike_groups, (self.device_spec, *self.other_specs)
        if len(specs) not in (1, len(groups)):
            raise ValueError(f"other_specs has {len(specs) - 1} devices, the cluster {len(groups) - 1} further groups")
        return self

    @property
    def counts(self) -> tuple[tuple[int, str], ...]:
        """How many of which device: ``((32, "h100"), (64, "a100-80g"))``."""
        if not self.other_specs:
            return ((self.num_devices, self.device),)
        specs = (self.device_spec, *self.other_specs)
        groups = self.spec.unlike_groups
        return tuple((group.num_devices, spec.name) for group, spec in zip(groups, specs, strict=True))


class Pipeline(Spec):
    """The order of passes. ``layers_per_stage``: per virtual stage; 0 where an end of the model is a stage of
    its own. ``passes``: {rank: "0F0 0F1 0B0 …"}.

    ``copies``: whole models that run through the ranks; ``num_stages``, ``stage_to_rank`` and ``layers_per_stage``
    count the stages of all of them.
    """

    schedule: str
    num_stages: PositiveInt
    stage_to_rank: tuple[int, ...]
    layers_per_stage: tuple[NonNegativeInt, ...]
    passes: dict[str, str]
    copies: PositiveInt = 1

    @property
    def layers_of_copy(self) -> tuple[int, ...]:
        """``layers_per_stage`` of one copy of the model."""
        return self.layers_per_stage[: self.num_stages // self.copies]


class PlanLayer(Spec):
    """One layer. ``offload``: share of what it saves that waits in ``offload_to``; ``saved_dtype``: how it is kept."""

    index: int
    kind: str
    stage: int
    recompute: RecomputePolicy = "none"
    offload: Annotated[float, Field(ge=0, le=1)] = 0.0
    offload_to: OffloadTarget = "host"
    saved_dtype: SavedDtype = "as-computed"


class TensorPlacement(Spec):
    """Where one tensor lies: for every mesh axis of more than one rank a DTensor placement, ``Shard(d)``, ``Replicate``
    or ``Partial`` (summands that are still to be added). ``shape``: of the whole tensor, and of activations of the
    micro-batches that all ranks work on at a time.
    """

    tensor: str
    shape: tuple[PositiveInt, ...]
    placements: dict[str, str]


class Relaxation(Spec):
    """One way in which the bound is looser than the truth."""

    name: str
    effect: str


class Certificate(Spec):
    """What was searched and how far the answer can be from the best one.

    gap = (best - lower bound) / best. ``proven``: the gap is within what was asked; ``bounded``: every candidate was
    settled, but the bounds leave more than that open; ``stopped``: a limit came first; ``given``: nothing was searched.
    ``solver``: integer programs solved, by the status that the solver left each with; of one stopped by its limit the
    bound counts, not the answer. Whether the plan fits is no part of the proof: ``prediction.memory`` says that.
    """

    status: Literal["proven", "bounded", "stopped", "given"]
    gap: Annotated[float, Field(ge=0, le=1)] | None
    lower_bound_s: NonNegativeFloat | None
    considered: NonNegativeInt
    evaluated: NonNegativeInt
    pruned: dict[str, NonNegativeInt]
    solver: dict[str, NonNegativeInt] = {}
    relaxations: tuple[Relaxation, ...] = ()
    wall_s: NonNegativeFloat


class Alternative(Spec):
    """A layout that lost: in one line, with what makes it worse."""

    line: str
    step_time_s: PositiveFloat
    memory_bytes: NonNegativeFloat
    reason: str


class Robustness(Spec):
    """How a plan was chosen under what is not known of the model's figures, and what that costs.

    ``quantile_s``: that quantile of step time over the draws; ``fits_probability``: the mean of P(fits) over them;
    ``fastest_*``: the same of the fastest plan by mean. ``candidates``: plans compared, over the same draws.
    """

    draws: PositiveInt
    quantile: Probability
    candidates: PositiveInt
    quantile_s: PositiveFloat
    fits_probability: Probability
    fastest_step_time_s: PositiveFloat
    fastest_quantile_s: PositiveFloat
    fastest_fits_probability: Probability


class PlanConstraints(Spec):
    """What the user took out of the search's hands, as words of the command line.

    ``fix``: ``tp=8``, ``recompute.0-3=full``; ``limit``: ``pp=2..``; ``forbid``: techniques, schedules and ``vpp=3``;
    ``free_bytes``: memory of each device held free, which the device's own figure leaves out already.
    """

    fix: tuple[str, ...] = ()
    limit: tuple[str, ...] = ()
    forbid: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    schedules: tuple[str, ...] = ()
    free_bytes: NonNegativeFloat = 0.0
    fit_probability: Annotated[float, Field(gt=0, lt=1)] = 0.95


class Plan(Spec):
    """Everything about one answer. ``training``: a whole run of it, where asked. ``robust``: how it was chosen,
    where not the fastest by mean was asked for.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    model: ModelSpec
    cluster: PlanCluster
    workload: Workload
    runtime: str
    runtime_spec: Runtime
    calibration: str | None = None
    layout: Layout
    pipeline: Pipeline
    layers: tuple[PlanLayer, ...]
    tensors: tuple[TensorPlacement, ...] = ()
    prediction: Prediction
    certificate: Certificate
    alternatives: tuple[Alternative, ...] = ()
    notes: tuple[str, ...] = Field(default=())
    training: Training | None = None
    constraints: PlanConstraints = PlanConstraints()
    robust: Robustness | None = None

    @model_validator(mode="after")
    def _whole(self) -> Plan:
        if len(self.layers) != self.model.num_layers:
            raise ValueError(f"layers has {len(self.layers)} entries, the model {self.model.num_layers} layers")
        if self.layout.world_size != self.cluster.num_devices:
            raise ValueError(
                f"layout needs {self.layout.world_size} ranks, cluster has {self.cluster.num_devices} devices"
            )
        if len(self.pipeline.layers_per_stage) != self.pipeline.num_stages:
            raise ValueError("pipeline.layers_per_stage must have one entry per stage")
        self._check_copies()
        placed = Counter(layer.stage for layer in self.layers)
        stages = dict(enumerate(self.pipeline.layers_of_copy))
        if placed != Counter(stages):
            raise ValueError(
                f"layers puts {dict(sorted(placed.items()))} layers on the stages, pipeline.layers_per_stage {stages}"
            )
        if sorted(self.pipeline.passes, key=int) != [str(rank) for rank in range(self.layout.pp)]:
            raise ValueError(f"pipeline.passes must have one entry per pipeline rank 0..{self.layout.pp - 1}")
        return self

    def _check_copies(self) -> None:
        """Every copy holds the same layers; ``layers`` places those of the first."""
        pipeline = self.pipeline
        if pipeline.num_stages % pipeline.copies:
            raise ValueError(f"pipeline.num_stages = {pipeline.num_stages} must divide into {pipeline.copies} copies")
        first = pipeline.layers_of_copy
        if pipeline.layers_per_stage != first * pipeline.copies:
            raise ValueError("pipeline.layers_per_stage must be the same for every copy")
        if not all(first[1:-1]):
            raise ValueError(
                f"pipeline.layers_per_stage = {list(first)}: only the first and the last may hold no layer"
            )

    def schedule(self) -> Schedule:
        """The order of passes as data."""
        pipeline = self.pipeline
        return Schedule.from_text(
            pipeline.schedule,
            self.layout.num_microbatches,
            pipeline.stage_to_rank,
            pipeline.passes,
            pipeline.copies,
        )

    @computed_field  # type: ignore[prop-decorator]
    @property
    def world_size(self) -> int:
        return self.layout.world_size

    @model_validator(mode="before")
    @classmethod
    def _drop_derived(cls, data: object) -> object:
        return {key: value for key, value in data.items() if key != "world_size"} if isinstance(data, dict) else data
