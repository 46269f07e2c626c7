"""Placement: one layout made concrete - which stage holds each layer, and what becomes of its activations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from costmodel.layouts import POLICIES, Assignment
from costmodel.schedules import SCHEDULES
from costmodel.schema.layout import Layout
from costmodel.schema.plan import Plan
from costmodel.stages import Stages, resembling, stages_of
from planner.layer_policies import policies_of


@dataclass(frozen=True)
class Placement:
    """``layers_per_stage``: per virtual stage of one copy of the model, in model order. ``policies``: per layer, index
    into POLICIES. ``schedule``: a name that the cost model has a form for.
    """

    layout: Layout
    schedule: str
    layers_per_stage: tuple[int, ...]
    policies: tuple[int, ...]

    @property
    def stages(self) -> Stages:
        """Where the stages live, those of all copies."""
        return stages_of(self.schedule, self.layout.pp, self.layout.vpp)

    @property
    def stage_of_layer(self) -> list[int]:
        """The first copy's stage of every layer."""
        return [stage for stage, length in enumerate(self.layers_per_stage) for _ in range(length)]

    def stage_counts(
        self, kinds: list[int], num_kinds: int, num_policies: int = len(POLICIES)
    ) -> np.ndarray[tuple[int, int, int], np.dtype[np.float64]]:
        """[stages, K, P] layers of each kind under each policy on each virtual stage of one copy."""
        counts = np.zeros((len(self.layers_per_stage), num_kinds, num_policies))
        np.add.at(counts, (self.stage_of_layer, kinds, list(self.policies)), 1.0)
        return counts

    def assignment(self, kinds: list[int], num_kinds: int, num_policies: int = len(POLICIES)) -> Assignment:
        """The placement as one row of an Assignment: a slot per pipeline rank, the stages of all copies there."""
        stages, pp = self.stages, self.layout.pp
        own = self.stage_counts(kinds, num_kinds, num_policies)
        counts = np.zeros((pp, num_kinds, num_policies))
        np.add.at(counts, list(stages.stage_to_rank), np.tile(own, (stages.copies, 1, 1)))
        return Assignment(
            counts=counts[None],
            rank=np.arange(pp)[None],
            multiplicity=np.ones((1, pp), np.int64),
            embedding=stages.embedding[None],
            head=stages.head[None],
        )

    @classmethod
    def from_plan(cls, plan: Plan) -> Placement:
        """Raises InvalidSpec for a policy, or a placement of stages, that the cost model does not price."""
        form = _form_of(plan)
        return cls(plan.layout, form, plan.pipeline.layers_of_copy, policies_of(plan, form))


def _form_of(plan: Plan) -> str:
    """The plan's schedule, or for an order that has no name of its own one with stages in the same places."""
    if plan.pipeline.schedule in SCHEDULES:
        return plan.pipeline.schedule
    schedule, layout = plan.schedule(), plan.layout
    return resembling(schedule.stage_to_rank, layout.pp, layout.vpp, schedule.splits_backward)
