"""Shard groups that the search tries: those that end where a level of the network does, where the runtime has them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from costmodel.layouts import IntColumn
from planner.constraints.rows import named_values
from planner.request import Request

Table = dict[str, IntColumn]

TECHNIQUES = {"shard_params": "params", "shard_optim": "optimizer", "reshard_after_forward": "secondary"}
"""Columns that are tried, and what a runtime calls them in ``StateRules.shard_groups``; later ones nest in earlier."""


def grow_shard_groups(request: Request, table: Table) -> Table:
    """The table with a column for each technique that the runtime has: 0, and every group size worth trying.

    Gradients are always split over dp_shard · cp. Parameters go over nearer ranks, and once more from forward to
    backward over nearer ones yet, in groups that fill a unit of some network level; optimizer state beyond its replica
    goes over all ranks. Left out, since other rows are never worse: parameters in either way where a pipeline keeps
    them gathered.
    """
    for name, technique in TECHNIQUES.items():
        if technique not in request.runtime.state.shard_groups:
            continue
        parts = [{**table, name: np.zeros_like(table["tp"])}]
        sizes = _sizes(request, name, table)
        for index, size in enumerate(sizes):
            keep = _legal(request, name, table, size)
            for earlier in sizes[:index]:
                keep &= size != earlier
            parts.append({key: column[keep] for key, column in {**table, name: size}.items()})
        table = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    return table


def _sizes(request: Request, name: str, table: Table) -> list[IntColumn]:
    """Columns of sizes to try, what the user names among them; 0 where there is none."""
    named = [np.full_like(table["tp"], value) for value in named_values(request, name)]
    if name == "shard_optim":
        return [*named, table["dp_replicate"] * table["dp_shard"] * _context(table)]
    stride = np.where(table["order"] == 1, table["tp"] * table["pp"], table["tp"])
    units = np.cumprod([level.size for level in request.cluster.levels]).tolist()
    return [*named, *(np.where((unit % stride == 0) & (unit > stride), unit // stride, 0) for unit in units)]


def _legal(request: Request, name: str, table: Table, size: IntColumn) -> NDArray[np.bool_]:
    rules = request.runtime.state
    around = table["dp_shard"] * (_context(table) if rules.shards_over_cp else 1)
    if name == "shard_optim":
        every = table["dp_replicate"] * table["dp_shard"] * _context(table)
        further = (size > around) & (size % around == 0) & (every % np.maximum(size, 1) == 0)
        return np.asarray((table["zero_stage"] >= 1) & further)
    deferred = (table["pp"] > 1) & rules.full_grads_under_pipeline
    own = table.get("shard_params", np.zeros_like(size))
    whole = np.where(own > 0, own, around) if name == "reshard_after_forward" else around
    nearer = (size > 0) & (size < whole) & (whole % np.maximum(size, 1) == 0)
    if name == "reshard_after_forward" and not rules.secondary_beside_tensor:
        nearer &= (table["tp"] == 1) | (size == 1)
    return np.asarray((table["zero_stage"] == 3) & ~deferred & nearer)


def _context(table: Table) -> IntColumn:
    return table["cp_ring"] * table["cp_ulysses"]
