"""The policy of every layer as a plan says it, and what a plan says as policies again."""

from __future__ import annotations

import numpy as np

from costmodel.layer_table import PricedLayers
from costmodel.layouts import POLICIES, Column, Layouts
from costmodel.schema.errors import InvalidSpec
from costmodel.schema.plan import Plan, PlanLayer
from planner.mixed import group_of_ranks, price_groups
from planner.problem import Problem


def offload_shares(layers: PricedLayers) -> Column:
    """[K, P] the share of what a layer keeps that leaves the device under each policy, of the one row in ``layers``."""
    costs, row = layers.costs, layers.index[0]
    away = (costs.host_bytes + costs.nvme_bytes)[row, :-2]
    return np.asarray(away / np.maximum(away + costs.saved_bytes[row, :-2], 1.0))


def policies_of(plan: Plan, form: str) -> tuple[int, ...]:
    """Of every layer the index into POLICIES; ``form``: the schedule that the plan's stages lie like.

    Raises InvalidSpec for what is not priced: a share of offload but none, all and the one that hides.
    """
    if not any(0 < layer.offload < 1 for layer in plan.layers):
        return tuple(_policy_of(layer, plan, None) for layer in plan.layers)
    problem = Problem.from_plan(plan)
    homes = group_of_ranks(problem.cluster, plan.layout)
    by_group = [offload_shares(one) for one in price_groups(problem, Layouts.from_rows([(plan.layout, form)]))]
    of_stage = [by_group[homes[rank]] for rank in plan.pipeline.stage_to_rank]
    return tuple(_policy_of(layer, plan, of_stage[layer.stage]) for layer in plan.layers)


def _policy_of(layer: PlanLayer, plan: Plan, shares: Column | None) -> int:
    kind = [one.name for one in plan.model.kinds].index(layer.kind)
    priced = {0.0, 1.0}
    for index, policy in enumerate(POLICIES):
        if (policy.recompute, policy.saved_dtype) != (layer.recompute, layer.saved_dtype):
            continue
        if policy.offload == "none":
            share = 0.0
        elif policy.offload_to != layer.offload_to:
            continue
        elif policy.offload == "hidden" and shares is not None:
            share = float(shares[kind, index])
        else:
            share = 1.0
        if share == layer.offload:
            return index
        priced.add(share)
    raise InvalidSpec(
        f"layers.{layer.index}: recompute {layer.recompute!r} with offload {layer.offload:g} to {layer.offload_to} and"
        f" saved_dtype {layer.saved_dtype!r} is not priced",
        f"offload is priced at {', '.join(f'{share:g}' for share in sorted(priced))} there",
    )
