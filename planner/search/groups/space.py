"""The space over unlike groups of nodes: layouts whose stages divide every group, in every order of the groups."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from costmodel.layouts import Layouts
from costmodel.schedules import SCHEDULES
from planner.constraints.rows import admits, named_values
from planner.mixed import can_mix
from planner.request import Request
from planner.search.space import enumerate_layouts


def enumerate_mixed(request: Request) -> Layouts:
    """Of the request's space the layouts whose R = tp · cp · dp divides every group's devices, crossed with the group
    that comes first.

    What is left out: schedules that ``can_mix`` refuses, or of which no closed form says exactly what a rank keeps, as
    the bounds of ranks of unlike memory stand on it; data parallelism outermost, since a group's stages would no
    longer be neighbours; tensor parallelism wider than the narrowest node's innermost level, unless fixed.
    """
    groups = request.cluster.unlike_groups
    allowed = SCHEDULES if request.schedules is None else request.schedules
    names = tuple(name for name in allowed if is_tried(name))
    fixed = {key: value for key, value in request.fixed.items() if key != "first_group"}
    limits = {key: limit for key, limit in request.limits.items() if key != "first_group"}
    layouts = enumerate_layouts(replace(request, schedules=names, fixed=fixed, limits=limits))
    each = layouts.world_size // layouts.pp
    widest = min(int(group.levels[0].size) for group in groups)
    keep = (layouts.tp <= widest) | np.isin(layouts.tp, named_values(request, "tp"))
    keep &= (layouts.vpp == 1) & (layouts.order == 0)
    for group in groups:
        keep &= group.num_devices % each == 0
    layouts = layouts.take(keep)
    firsts = [first for first in range(len(groups)) if admits(request, "first_group", first)]
    orders = [replace(layouts, first_group=np.full(len(layouts), first, np.int64)) for first in firsts]
    return Layouts.concatenate(orders) if orders else layouts.take(slice(0))


def is_tried(schedule: str) -> bool:
    """Whether the search takes a schedule over unlike groups."""
    form = SCHEDULES[schedule]
    return can_mix(schedule) and form.least_in_flight is None and form.least_pending is None
