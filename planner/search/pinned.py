"""Layers that the user pins: kinds of their own in the search, with one cost whatever policy it tries on them.

The search counts equal layers. A pinned layer equals only others with the same pin, so they become a kind of their own.
Its costs under the policies that the pin rules out are those of one that it admits: choosing a policy then means
choosing an admitted one, and neither bounds nor mixes need to know. What is dealt to layers is translated back.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np

from costmodel.even_split import counts_per_rank
from costmodel.layer_table import PricedLayers
from costmodel.layers import LayerCosts
from costmodel.layouts import POLICIES, SCHEDULE_CODES, Column, Policy
from costmodel.schema.errors import InvalidSpec
from costmodel.schema.model import LayerRun
from costmodel.stages import stages_of
from planner.constraints import Pinned, shown
from planner.problem import Problem
from planner.request import Request
from planner.search.policies import OFFLOAD_VALUES

_BY_POLICY = (
    "recompute_s", "offload_s", "narrow_s", "saved_bytes", "host_bytes", "nvme_bytes", "working_bytes", "pending_bytes",
    "sent_bytes",
)  # fmt: skip
"""Columns of LayerCosts with a policy axis, the third."""


def with_pins(request: Request, problem: Problem, allowed: tuple[int, ...]) -> Problem:
    """The problem that is searched: pinned layers are kinds of their own, stages as long as the user says.

    ``allowed``: policies that the request admits at all. Raises InvalidSpec where the pins leave a layer none of them.
    """
    lengths = tuple(request.fixed.get("layers_per_stage", ()))
    if not request.pins:
        return replace(problem, pinned=Pinned(lengths=lengths)) if lengths else problem
    model = request.model
    kinds: dict[tuple[int, tuple[int, ...]], str] = {}
    names = []
    for layer, kind in enumerate(model.layer_kinds()):
        admitted = _admitted(request, layer, allowed)
        names.append(kinds.setdefault((kind, admitted), f"{model.kinds[kind].name} {len(kinds)}"))
    split = model.model_copy(
        update={
            "kinds": tuple(model.kinds[kind].model_copy(update={"name": name}) for (kind, _), name in kinds.items()),
            "runs": tuple(LayerRun(kind=name, count=1) for name in names),
        }
    )
    axis = range(problem.setting.num_policies)
    instead = tuple(tuple(policy if policy in admitted else admitted[0] for policy in axis) for _, admitted in kinds)
    setting, *others = (replace(one, model=split) for one in problem.settings)
    return replace(problem, setting=setting, others=tuple(others), pinned=Pinned(instead, lengths))


def _admitted(request: Request, layer: int, allowed: tuple[int, ...]) -> tuple[int, ...]:
    """Of the allowed policies, those that the layer's pins admit."""
    pins = [pin for pin in request.pins if pin.first <= layer <= pin.last]

    def value(key: str, policy: Policy) -> Any:
        return policy.recompute if key == "recompute" else OFFLOAD_VALUES[policy.offload]

    admitted = tuple(policy for policy in allowed if all(value(pin.key, POLICIES[policy]) == pin.value for pin in pins))
    if not admitted:
        said = ", ".join(f"--fix {pin}={shown(pin.value)}" for pin in pins)
        raise InvalidSpec(
            f"{said}: with the other constraints, layer {layer} is left no policy",
            f"policies are {', '.join(POLICIES[policy].name for policy in allowed)}",
        )
    return admitted


def pin_costs(layers: PricedLayers, pinned: Pinned) -> PricedLayers:
    """The layer table with what pins rule out replaced by what they admit."""
    if not pinned.instead:
        return layers
    return replace(layers, costs=_pin(layers.costs, pinned))


def _pin(costs: LayerCosts, pinned: Pinned) -> LayerCosts:
    table = np.array(pinned.instead)

    def moved(name: str) -> Column:
        column: Column = getattr(costs, name)
        changed = column.copy()
        for kind, policies in enumerate(table):
            changed[:, kind] = column[:, kind][:, policies]
        return changed

    return LayerCosts(
        **{
            field.name: moved(field.name) if field.name in _BY_POLICY else getattr(costs, field.name)
            for field in fields(LayerCosts)
        }
    )


def floor_of_lengths_s(problem: Problem, layers: PricedLayers, policies: tuple[int, ...]) -> Column:
    """[n] seconds of all passes that no placement of the pinned stages beats: those of the busiest rank, each layer
    under its fastest policy.

    T >= (m / copies) max_r w_r, w_r one micro-batch through all of rank r's stages, those of all copies.
    """
    layouts, kinds = layers.layouts, problem.num_kinds
    layer_s = layers.forward[:, :kinds] + layers.backward[:, :kinds][:, :, list(policies)].min(axis=2)
    ends_s = layers.forward[:, kinds:] + layers.backward[:, kinds:, 0]
    floor_s = np.zeros(len(layouts))
    keys = np.stack([layouts.schedule, layouts.pp, layouts.vpp], axis=1)
    for key in np.unique(keys, axis=0):
        rows = (keys == key).all(axis=1)
        stages = stages_of(SCHEDULE_CODES[key[0]], int(key[1]), int(key[2]))
        counts = counts_per_rank(problem.kinds, kinds, problem.pinned.lengths, stages.stage_to_rank)
        ends = np.stack([stages.embedding, stages.head]).astype(np.float64)
        floor_s[rows] = (layer_s[rows] @ counts.T + ends_s[rows] @ ends).max(axis=1) / stages.copies
    return np.asarray(floor_s * layouts.num_microbatches)
