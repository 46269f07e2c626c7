"""Pipelines over several unlike groups of nodes: every rank priced in the group where it lies.

Groups lie one after the other along the pipeline, the layout's ``first_group`` first, and no stage straddles two: with
R = tp · cp · dp ranks a stage, a group of n devices holds n / R stages. A row is priced once for each group, as if the
whole pipeline lay there; of every rank the columns of its own group are kept. What differs from the pipelines of one
group is the sends where two groups meet: they cross the outermost shared level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np

from costmodel.dataparallel import StepExtras
from costmodel.layer_table import PricedLayers, price_layers
from costmodel.layouts import Assignment, Column, Layouts
from costmodel.memory import MemoryColumns
from costmodel.pipeline import estimate_busy_share, estimate_makespan_s
from costmodel.price import Priced, price
from costmodel.rank_work import RankWork
from costmodel.schedules import SCHEDULES
from costmodel.schema.cluster import ClusterSpec
from costmodel.schema.errors import InvalidSpec
from costmodel.schema.layout import AXES, Layout
from costmodel.sends import estimate_send_s
from planner.problem import Problem
from planner.simulator import StageTimes

Ranked = TypeVar("Ranked", RankWork, StepExtras, MemoryColumns)


def group_of_ranks(cluster: ClusterSpec, layout: Layout) -> tuple[int, ...]:
    """The unlike group in which each pipeline rank lies. Raises InvalidSpec where a stage would straddle two."""
    groups = cluster.unlike_groups
    if layout.first_group >= len(groups):
        raise InvalidSpec(
            f"first_group {layout.first_group}: {cluster.name} has {len(groups)} kinds of node, counted from 0"
        )
    if len(groups) == 1:
        return (0,) * layout.pp
    each = layout.tp * layout.cp * layout.dp
    homes: list[int] = []
    for index in range(len(groups)):
        at = (layout.first_group + index) % len(groups)
        if groups[at].num_devices % each:
            raise InvalidSpec(
                f"a stage of tp · cp · dp = {each} devices does not divide the {groups[at].num_devices}"
                f" {groups[at].device}",
                "no stage may straddle two kinds of node",
            )
        homes += [at] * (groups[at].num_devices // each)
    assert len(homes) == layout.pp, "the layout is not of this cluster's world"
    return tuple(homes)


def can_mix(schedule: str) -> bool:
    """Whether a schedule is planned over unlike groups: one stage a rank, one copy, whole ends, and an order that does
    not follow the times of a mean rank, as there is none."""
    from planner.schedules import SCHEDULES as KINDS

    form = SCHEDULES[schedule]
    return form.copies == 1 and form.barriers == 0 and bool(form.allows(4, 8, 1)) and not KINDS[schedule].heeds_times


def check_mixed(cluster: ClusterSpec, layout: Layout, schedule: str) -> None:
    """Raises InvalidSpec for a layout that does not lie on a cluster's kinds of node, or is not priced over several."""
    group_of_ranks(cluster, layout)
    if len(cluster.unlike_groups) == 1:
        return
    if not can_mix(schedule) or layout.vpp > 1:
        known = ", ".join(name for name in SCHEDULES if can_mix(name))
        stages = f"schedule {schedule!r} with {layout.vpp} stages a rank"
        raise InvalidSpec(f"{stages} is not priced over several kinds of node", f"one stage a rank, and one of {known}")
    if layout.order != AXES:
        raise InvalidSpec(
            f"order {','.join(layout.order)}: over several kinds of node the pipeline is outermost", ",".join(AXES)
        )


def price_groups(problem: Problem, layouts: Layouts) -> tuple[PricedLayers, ...]:
    """The layer tables of some rows, one for every unlike group."""
    pairs = zip(problem.settings, problem.networks, strict=True)
    return tuple(price_layers(setting, network, layouts) for setting, network in pairs)


def price_rows(problem: Problem, layouts: Layouts, assignment: Assignment) -> Priced:
    """Closed-form price of rows; over unlike groups of one row, with a slot for every rank."""
    if not problem.others:
        return price(price_layers(problem.setting, problem.network, layouts), assignment)
    homes, tables = group_of_ranks(problem.cluster, layouts.row(0)), price_groups(problem, layouts)
    parts = [price(table, assignment) for table in tables]
    return join_priced(parts, homes, estimate_edges(tables, homes))


@dataclass(frozen=True)
class Edges:
    """Sends between neighbouring ranks, [n, pp - 1]: ``busy_s`` in which the sender waits, ``edge_s`` beyond."""

    busy_s: Column
    edge_s: Column


def estimate_edges(tables: Sequence[PricedLayers], homes: tuple[int, ...]) -> Edges:
    """Inside a group as there; where two meet, over the outermost level, at the pace of the slower end."""
    inside = [(table.busy_s, table.edge_s) for table in tables]
    far_s = [
        estimate_send_s(
            table.setting, table.network, table.layouts, np.full(len(table.layouts), table.network.unit[-1])
        )
        for table in tables
    ]
    share = estimate_busy_share(tables[0].setting, tables[0].layouts)
    columns = []
    for here, there in pairwise(homes):
        if here == there:
            columns.append(inside[here])
        else:
            send_s = np.maximum(far_s[here], far_s[there])
            columns.append((send_s * share, send_s * (1.0 - share)))
    busy, edge = ([column[which] for column in columns] for which in (0, 1))
    return Edges(np.stack(busy, axis=1), np.stack(edge, axis=1))


def join_ranks(parts: Sequence[Ranked], homes: tuple[int, ...]) -> Ranked:
    """Of dataclasses of columns [n, pp, ...], one a group, each rank's from its own group; other fields from the
    first."""
    names = [field.name for field in fields(parts[0]) if isinstance(getattr(parts[0], field.name), np.ndarray)]
    changed: dict[str, Any] = {name: _join([getattr(part, name) for part in parts], homes) for name in names}
    return replace(parts[0], **changed)


def _join(columns: Sequence[Column], homes: tuple[int, ...]) -> Column:
    # What is alike on all ranks may stand there once.
    whole = [np.broadcast_to(column, (column.shape[0], len(homes), *column.shape[2:])) for column in columns]
    return np.moveaxis(np.stack(whole)[np.array(homes), :, np.arange(len(homes))], 0, 1)


def join_priced(parts: Sequence[Priced], homes: tuple[int, ...], edges: Edges) -> Priced:
    """One row, rank by rank from its own group; ``layers`` and what only they say stay the first group's."""
    work = join_ranks([part.work for part in parts], homes)
    none = np.zeros_like(edges.busy_s[:, :1])
    work = replace(
        work,
        sent_forward_s=np.concatenate([edges.busy_s, none], axis=1),
        sent_backward_s=np.concatenate([none, edges.busy_s], axis=1),
    )
    first = parts[0]
    makespan_s = estimate_makespan_s(
        first.layers.layouts,
        work.forward_pass_s,
        work.backward_pass_s,
        work.weight_grad_s,
        first.assignment.multiplicity,
        edges.edge_s.mean(axis=1),
    )
    memory = join_ranks([part.memory for part in parts], homes)
    return replace(
        first,
        work=work,
        extras=join_ranks([part.extras for part in parts], homes),
        memory=memory,
        claim_bytes=memory.claim,
        host_bytes=memory.host,
        nvme_bytes=memory.nvme,
        makespan_s=makespan_s,
    )


def join_times(parts: Sequence[StageTimes], homes: tuple[int, ...], edges: Edges | None) -> StageTimes:
    """Times of one stage a rank, each its own group's. ``parts``: without sends, which ``edges`` adds where given."""
    ranks = np.arange(len(homes))

    def joined(name: str) -> Column:
        return np.asarray(np.stack([getattr(part, name) for part in parts])[list(homes), ranks])

    forward_s, input_grad_s = joined("forward_s"), joined("input_grad_s")
    if edges is not None:
        forward_s[:-1] += edges.busy_s[0]
        input_grad_s[1:] += edges.busy_s[0]
    return StageTimes(
        forward_s=forward_s,
        input_grad_s=input_grad_s,
        weight_grad_s=joined("weight_grad_s"),
        recompute_s=joined("recompute_s"),
        edge_s=0.0 if edges is None else edges.edge_s[0],
    )
