"""The order of passes of a named schedule for one layout: those that heed times are built for the layout's own, and
frozen parts go into the bubbles that a placement's own times leave."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from costmodel.layer_table import PricedLayers
from costmodel.schema.schedule import PassKind, Schedule
from planner.schedules import SCHEDULES, PassTimes, build_schedule
from planner.schedules.bubble_filling import fill_bubbles
from planner.simulator import StageTimes

STEP = 0.02
"""Times are rounded to this share of a micro-batch's work, so that like layouts share an order."""


def build_order(layers: PricedLayers) -> Schedule:
    """The schedule of the one row in ``layers``. The same row gives the same object.

    Raises InvalidSpec where the schedule cannot do these sizes.
    """
    layouts = layers.layouts
    name, sizes = layouts.schedule_name(0), (int(layouts.pp[0]), int(layouts.num_microbatches[0]), int(layouts.vpp[0]))
    if not SCHEDULES[name].heeds_times:
        return build_schedule(name, *sizes)
    return build_schedule(name, *sizes, times=row_times(layers))


def with_frozen(schedule: Schedule, times: StageTimes) -> Schedule:
    """The order with frozen parts in its bubbles where ``times`` has any; its name stays."""
    if times.frozen is None:
        return schedule
    filled = fill_bubbles(schedule, times, times.frozen.forward_s.tolist())
    return replace(filled, name=schedule.name)


def without_frozen(schedule: Schedule) -> Schedule:
    """The order without frozen parts; the same object where there are none."""
    if PassKind.FROZEN_FORWARD not in schedule.kinds:
        return schedule
    orders = (tuple(step for step in order if step.kind is not PassKind.FROZEN_FORWARD) for order in schedule.orders)
    return replace(schedule, orders=tuple(orders))


def row_times(layers: PricedLayers) -> PassTimes:
    """F, I, W and delay of the mean rank with nothing recomputed, as shares of its work for one micro-batch, rounded.

    The choice of what is recomputed leaves the order as it is, so that one order bounds all choices.
    """
    model = layers.setting.model
    number = np.bincount(model.layer_kinds(), minlength=len(model.kinds)).astype(np.float64)
    weights = np.append(number, (1.0, 1.0))
    forward_s, backward_s = float(layers.forward[0] @ weights), float(layers.backward[0, :, 0] @ weights)
    weight_s = float(layers.weight_grad[0] @ weights)
    pp, work_s = int(layers.layouts.pp[0]), forward_s + backward_s
    shares = (
        forward_s / work_s,
        (backward_s - weight_s) / work_s,
        weight_s / work_s,
        float(layers.edge_s[0]) * pp / work_s,
    )
    return PassTimes(*(STEP * round(max(share, 0.0) / STEP) for share in shares))
