"""Shard groups: over how many ranks parameters, gradients and optimizer state are each split, and how they nest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from costmodel.layouts import BoolColumn, Column, IntColumn, Layouts
from costmodel.ops import Setting


@dataclass(frozen=True)
class ShardGroups:
    """How many ranks split each kind of state of dense or of expert parameters, [n, 1], nested and nearest ranks first.

    params <= scattered <= reduced <= ranks, params <= optimizer, and between <= params.
    ``params``: stored parameters; 1: whole. ``between``: what of them stays from forward to backward: as ``params``, or
    in fewer parts that only near ranks have to gather. ``grads``: kept gradients. ``scattered``, ``reduced``: ranks
    among which gradients are scattered as they come, and before the update; shares are summed over what is left of
    ``ranks``, all that hold the same parameters. 1 where all get the whole sum. ``optimizer``: master weights, moments
    and the update.
    """

    params: Column
    between: Column
    grads: Column
    scattered: Column
    reduced: Column
    optimizer: Column
    ranks: Column


def shard_ranks(setting: Setting, layouts: Layouts) -> IntColumn:
    """[n] ranks over which dense state is split where the layout names no other number: dp_shard · cp."""
    return layouts.dp_shard * layouts.cp if setting.runtime.state.shards_over_cp else layouts.dp_shard


def keeps_full_grads(setting: Setting, layouts: Layouts) -> BoolColumn:
    """[n] whether unsharded gradients live through the step: stages 0 and 1, and 2 and 3 under some pipelines."""
    deferred = (layouts.pp > 1) & setting.runtime.state.full_grads_under_pipeline
    return np.asarray((layouts.zero_stage < 2) | deferred)


def reduces_far_once(setting: Setting, layouts: Layouts) -> BoolColumn:
    """[n] whether gradients cross their own shard group once a step, however often they are reduced inside it.

    So where optimizer state is split further than gradients, whose shards then add up until the update wants them; and
    where the runtime sums its replicas so. Source: Zhang et al. 2022 (MiCS), section 3.4.
    """
    further = layouts.shard_optim > np.maximum(layouts.shard_grads, shard_ranks(setting, layouts))
    return np.asarray((layouts.zero_stage >= 2) & (further | setting.runtime.state.sums_replicas_once))


def shard_groups(setting: Setting, layouts: Layouts) -> tuple[ShardGroups, ShardGroups]:
    """Of dense and of expert parameters.

    Stage 1 splits optimizer state, 2 gradients too, 3 parameters too, each over dp_shard · cp ranks unless
    ``shard_params``, ``shard_grads`` or ``shard_optim`` say another number. dp · cp ranks hold a dense parameter and
    edp an expert's: of g neighbours among the former, g · edp / (dp · cp) hold the same expert.
    Source: Rajbhandari et al. 2020 (ZeRO), section 5; Wang et al. 2023 (ZeRO++), section 3.2, for ``between``; Xu et
    al. 2025, Scaling Large Language Model Training on Frontier with Low-Bandwidth Partitioning, for three levels.
    """
    stage = layouts.zero_stage
    usual = shard_ranks(setting, layouts)

    def over(first_stage: int, own: IntColumn) -> IntColumn:
        return np.where(stage >= first_stage, np.where(own > 0, own, usual), 1)

    params = over(3, layouts.shard_params)
    between = np.where((layouts.reshard_after_forward > 0) & (stage >= 3), layouts.reshard_after_forward, params)
    whole_sums = (stage <= 1) & setting.runtime.state.all_reduces_grads
    scattered = np.where(whole_sums, 1, over(1, layouts.shard_grads))
    grads = np.where(keeps_full_grads(setting, layouts), 1, scattered)
    optimizer = over(1, layouts.shard_optim)
    reduced = np.where(whole_sums, 1, optimizer)
    every = layouts.dp * layouts.cp
    same_expert = layouts.edp / every

    def of_expert(size: IntColumn) -> Column:
        return np.where(size > 1, np.maximum(size * same_expert, 1.0), 1.0)

    sizes = (params, between, grads, scattered, reduced, optimizer)
    dense = [size.astype(np.float64)[:, None] for size in (*sizes, every)]
    expert = [size.astype(np.float64)[:, None] for size in (*map(of_expert, sizes), layouts.edp)]
    return ShardGroups(*dense), ShardGroups(*expert)
