"""Problem: what stays the same while layouts are compared - the setting to price in and the network under it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import hypot

from costmodel.collectives import Network
from costmodel.layouts import POLICIES
from costmodel.ops import Setting
from costmodel.schema.cluster import ClusterSpec, DeviceSpec
from costmodel.schema.errors import InvalidSpec
from costmodel.schema.model import ModelSpec
from costmodel.schema.plan import Plan
from costmodel.schema.runtime import Runtime
from costmodel.schema.workload import Workload
from planner.constraints import Pinned
from planner.request import Request

UNCALIBRATED_CPU_SPREAD = 0.7
"""Spread of log step time on a processor that was never measured: clock, vector width and memory are all guesses."""


MOST_LAYERS = 4096

FREE = Pinned()


@dataclass(frozen=True)
class Problem:
    """A setting on a cluster. ``calibration`` names the file in use, if any.

    ``setting`` is that of the cluster's first group of nodes; ``others`` are those of its further unlike groups, which
    differ in device, host and size of a node, and in nothing else. ``pinned``: choices that the user made.
    """

    setting: Setting
    cluster: ClusterSpec
    calibration: str | None = None
    others: tuple[Setting, ...] = ()
    pinned: Pinned = FREE

    @cached_property
    def network(self) -> Network:
        return Network.from_cluster(self.cluster)

    @property
    def settings(self) -> tuple[Setting, ...]:
        """One for every unlike group of nodes."""
        return (self.setting, *self.others)

    @cached_property
    def networks(self) -> tuple[Network, ...]:
        """One for every unlike group: the levels inside its nodes, and the shared ones beyond."""
        if not self.others:
            return (self.network,)
        shared = self.cluster.network
        return tuple(Network.from_levels(group.levels + shared) for group in self.cluster.unlike_groups)

    @cached_property
    def kinds(self) -> list[int]:
        """The kind of every layer, in model order."""
        return self.setting.model.layer_kinds()

    @property
    def num_kinds(self) -> int:
        return len(self.setting.model.kinds)

    @classmethod
    def on(
        cls,
        cluster: ClusterSpec,
        device: DeviceSpec,
        model: ModelSpec,
        workload: Workload,
        runtime: Runtime,
        others: Sequence[DeviceSpec] = (),
    ) -> Problem:
        """A model's step on a cluster whose unlike groups have ``device`` and ``others``, in the cluster's order."""
        groups = cluster.unlike_groups if others else cluster.groups[:1]
        settings = tuple(
            Setting(
                model=model,
                device=one,
                workload=workload,
                runtime=runtime,
                host=group.host,
                devices_per_node=group.devices_per_node,
                shared_cores=cluster.shared_cores,
            )
            for one, group in zip((device, *others), groups, strict=True)
        )
        return cls(settings[0], cluster, others=settings[1:])

    @classmethod
    def from_request(cls, request: Request) -> Problem:
        """The runtime's spread grows where a processor was never measured; policies past the last one that the request
        may choose are not priced.

        Raises InvalidSpec for a model of more than MOST_LAYERS layers, or one that trains nothing.
        """
        from planner.search.policies import policy_sets

        if request.model.num_layers > MOST_LAYERS:
            raise InvalidSpec(
                f"{request.model.name} has {request.model.num_layers} layers; at most {MOST_LAYERS} are planned"
            )
        if request.model.trains == "frozen":
            raise InvalidSpec(f"{request.model.name} has trains = 'frozen': there is no training step to plan", "full")
        calibration = request.calibration
        spread = request.runtime.spread
        if calibration is None and request.device.vendor == "cpu":
            spread = hypot(spread, UNCALIBRATED_CPU_SPREAD)
        runtime = request.runtime.model_copy(update={"spread": spread})
        problem = cls.on(
            request.cluster, request.device, request.model, request.workload, runtime, request.other_devices
        )
        last = max(policy for one in policy_sets(request) for policy in one)
        name = None if calibration is None else f"{calibration.device} of {calibration.date}"
        return cls(problem.setting, problem.cluster, name, problem.others).on_axis(last + 1)

    def on_axis(self, num_policies: int = len(POLICIES)) -> Problem:
        """The problem with so many policies priced; by default with all, as a plan file is: sums then round alike."""
        setting, *others = (replace(one, num_policies=num_policies) for one in self.settings)
        return replace(self, setting=setting, others=tuple(others))

    @classmethod
    def from_plan(cls, plan: Plan) -> Problem:
        """The problem that a plan answers, from nothing but the plan."""
        spec, machine = plan.cluster.spec, plan.cluster
        problem = cls.on(spec, machine.device_spec, plan.model, plan.workload, plan.runtime_spec, machine.other_specs)
        return cls(problem.setting, spec, plan.calibration, problem.others)
