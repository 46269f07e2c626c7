"""When nothing fits over unlike groups: what stands in the way, and whether one of them alone would do."""

from __future__ import annotations

from math import gcd

from costmodel.schema.errors import Infeasible
from planner.request import Request
from planner.search.groups.alone import groups_alone
from planner.search.groups.best_first import MixedOutcome
from planner.search.groups.space import is_tried
from planner.search.infeasible import said_constraints
from planner.search.reasons import layout_line
from planner.stage_ends import most_stages


def explain_mixed(request: Request, outcome: MixedOutcome, held: float) -> Infeasible:
    """The error to raise. ``held``: the largest share of the layers for which any layout's ranks have the memory."""
    name, devices, under = request.model.name, request.devices_said, said_constraints(request)
    if not len(outcome.layouts):
        common = gcd(*(group.num_devices for group in request.cluster.unlike_groups))
        schedules = ", ".join(name for name in request.runtime.schedules if is_tried(name))
        message = (
            f"no layout of {name} exists on {devices} with global batch {request.workload.global_batch_size} and"
            f" sequence {request.workload.seq_len}{under}: a stage's tp · cp · dp must divide {common}, there must be"
            f" no more than {most_stages(request.model, request.runtime)} stages, and schedules are {schedules}"
        )
    elif held < 1.0:
        message = f"{name} does not fit on {devices}: the leanest layout has room for {held:.0%} of its layers" + under
    else:
        message = f"{name} does not fit on {devices}: no placement keeps every stage inside its device" + under
    reasons = [f"{count} layouts ruled out by {rule}" for rule, count in outcome.pruned.items() if count]
    return Infeasible(message, reasons, _way_out(request))


def _way_out(request: Request) -> str:
    for one in groups_alone(request):
        if one.best is not None:
            return f"the {one.devices} alone can: {one.best.step_time_s:.2f} s a step, {layout_line(one.best)}"
    return "devices with more memory, a shorter --seq-len, or fewer constraints"
