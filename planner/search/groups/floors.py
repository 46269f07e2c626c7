"""Time floors over unlike groups: what no placement of a layout beats, whatever memory it has.

A layer's worth is its least time in the mean group, so that groups and kinds of layer compare. A rank of group g takes
at most max_k c_k / t_gk of worth a second. Everything the runtime may hide is taken as hidden.
"""

from __future__ import annotations

import numpy as np

from costmodel.dataparallel import estimate_step_extras
from costmodel.layer_table import PricedLayers
from costmodel.layouts import Column
from costmodel.state import estimate_local_params
from planner.search.bounds import fewest_layers, mean_rank
from planner.search.groups.rows import MixedRows


def least_times_s(table: PricedLayers, policies: tuple[int, ...], num_kinds: int) -> Column:
    """[n, K] one layer's forward and cheapest backward."""
    return np.asarray(table.forward[:, :num_kinds] + table.backward[:, :num_kinds][:, :, list(policies)].min(axis=2))


def end_times_s(table: PricedLayers, num_kinds: int) -> Column:
    """[n, 2] forward and backward of embedding and head."""
    return np.asarray(table.forward[:, num_kinds:] + table.backward[:, num_kinds:, 0])


def estimate_after_s(rows: MixedRows, policies: tuple[int, ...]) -> Column:
    """[n] seconds after the passes that no placement avoids: some rank holds the mean rank's parameters at least, in
    whichever group that takes least, and hides no more than it could behind all layers under their slowest policy.
    """
    problem = rows.problem
    kinds, all_layers = problem.num_kinds, float(len(problem.kinds))
    after = []
    for table in rows.tables:
        assignment = mean_rank(table, problem.kinds, kinds, 0)
        params = estimate_local_params(table.setting, rows.layouts, assignment)
        slowest = table.backward[:, :, list(policies)].max(axis=2)
        forward_s = all_layers * table.forward[:, :kinds].max(axis=1) + table.forward[:, kinds:].sum(axis=1)
        backward_s = all_layers * slowest[:, :kinds].max(axis=1) + table.backward[:, kinds:, 0].sum(axis=1)
        # Any range of layers is open to any rank.
        fewest = fewest_layers(table, problem.kinds, shift=all_layers)
        extras = estimate_step_extras(
            table.setting, table.network, rows.layouts, params, assignment.rank, fewest,
            forward_s[:, None], backward_s[:, None], table.frozen.ahead_s,
            hiding_layers=np.full((len(rows), 1), all_layers),
        )  # fmt: skip
        after.append(extras.exposed_s[:, 0])
    return np.asarray(np.min(after, axis=0))


def estimate_floor_s(rows: MixedRows, policies: tuple[int, ...], after_s: Column) -> Column:
    """[n] seconds that no placement beats, whatever memory it has: all ranks of all groups busy all the time.

    (T / m) · sum_r rate_r >= worth of all layers + sum_ends end_s · rate of its rank.
    """
    problem = rows.problem
    kinds, every = problem.num_kinds, np.arange(len(rows))
    least_s = np.stack([least_times_s(table, policies, kinds) for table in rows.tables], axis=1)
    ends_s = np.stack([end_times_s(table, kinds) for table in rows.tables], axis=1)
    worth = layer_worth(rows, least_s)
    rate = (worth[:, None, :] / least_s).max(axis=2)
    number = np.bincount(problem.kinds, minlength=kinds)
    first, last = rows.layouts.first_group, rows.last_group
    needed = worth @ number
    needed += ends_s[every, first, 0] * rate[every, first] + ends_s[every, last, 1] * rate[every, last]
    makespan_s = rows.layouts.num_microbatches * needed / (rate * rows.ranks).sum(axis=1)
    return np.asarray((makespan_s + after_s) * (1.0 + rows.jitter))


def layer_worth(rows: MixedRows, least_s: Column) -> Column:
    """[n, K] from [n, G, K]: seconds on the mean rank."""
    share = rows.ranks / rows.layouts.pp[:, None]
    return np.asarray(np.einsum("ngk,ng->nk", least_s, share))
