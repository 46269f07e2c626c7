"""When nothing fits: how far off the nearest layout is, and what would make it fit."""

from __future__ import annotations

from dataclasses import replace

from costmodel.catalog.runtimes import load_runtime
from costmodel.memory import claim_budget_bytes
from costmodel.schema.errors import Infeasible, InvalidSpec
from planner.constraints import check_runtime, shown
from planner.constraints.words import options_of, words_of
from planner.problem import Problem
from planner.request import Request
from planner.search.best_first import search
from planner.search.run import Outcome
from planner.search.space import enumerate_space

LARGEST_FACTOR = 64
"""How many times the cluster is tried at most."""

ANY_GAP = 0.99
"""Gap of the trial searches: any layout that fits will do."""

WIDEST = "megatron"
"""The runtime whose file declares the most techniques."""

PATIENCE_S = 2.0
"""Seconds for each of them."""

FARTHEST = 16
"""How many nodes, or devices of a lone node, away another count is looked for."""


def explain_infeasible(request: Request, problem: Problem, outcome: Outcome) -> Infeasible:
    """The error to raise: an empty space names what empties it, a full memory the smallest need and the way out."""
    name, devices = request.model.name, request.cluster.num_devices
    if not len(outcome.space):
        return Infeasible(
            f"no layout of {name} exists on {devices} {request.device.name} with global batch"
            f" {request.workload.global_batch_size} and sequence {request.workload.seq_len}"
            + said_constraints(request),
            _loosened(request),
            "degrees must multiply to the number of devices and divide heads, batch and sequence;"
            + _said_counts(request),
        )
    budget = claim_budget_bytes(problem.setting, request.fit_probability)
    layout = outcome.space.row(outcome.least_row)
    in_gib = problem.setting.runtime.memory.fragmentation / 2**30
    short, room = outcome.least_bytes * in_gib, max(budget, 0.0) * in_gib
    nearest = f"tp {layout.tp}, pp {layout.pp}, cp {layout.cp}, dp {layout.dp}, zero {layout.zero_stage}"
    if outcome.least_bytes > budget:
        message = (
            f"{name} does not fit on {devices} {request.device.name}: the leanest layout ({nearest}) needs at least"
            f" {short:.1f} GiB reserved a device, and {room:.1f} GiB keep P(fits) at"
            f" {request.fit_probability:.2f}"
        )
    else:
        message = (
            f"{name} does not fit on {devices} {request.device.name}: layouts come as low as {short:.1f} GiB on"
            f" average, but no placement keeps every stage inside {room:.1f} GiB reserved"
        )
    other = _other_runtime(request)
    wider = "" if other is None else f"with --runtime {other} a layout fits; else "
    return Infeasible(message + said_constraints(request), _reasons(outcome), wider + _way_out(request))


def _loosened(request: Request) -> list[str]:
    """What each constraint alone keeps out: layouts that there would be without it."""
    looser: list[tuple[str, Request]] = []
    for name, value in request.fixed.items():
        fixed = {key: kept for key, kept in request.fixed.items() if key != name}
        looser.append((f"--fix {name}={shown(value)}", replace(request, fixed=fixed)))
    for name, limit in request.limits.items():
        limits = {key: kept for key, kept in request.limits.items() if key != name}
        said = f"--limit {name}={limit.words}" if limit.words else f"what --forbid says of {name}"
        looser.append((said, replace(request, limits=limits)))
    for name in sorted(request.forbidden):
        looser.append((f"--forbid {name}", replace(request, forbidden=request.forbidden - {name})))
    found = [(said, len(enumerate_space(one))) for said, one in looser]
    return [f"without {said} there are {number:,} layouts" for said, number in found if number]


def _said_counts(request: Request) -> str:
    near = _near_counts(request)
    counts = f" layouts exist on {' and '.join(map(str, near))} devices;" if near else ""
    return f"{counts} relax --fix and --forbid, or change --gpus or --global-batch-size"


def _reasons(outcome: Outcome) -> list[str]:
    return [
        f"{count:,} layout{'' if count == 1 else 's'} ruled out by {rule}"
        for rule, count in outcome.pruned.items()
        if count
    ]


def said_constraints(request: Request) -> str:
    """`` under --fix tp=8, --forbid pp``, or nothing."""
    said = options_of(words_of(request))
    return f" under {', '.join(said)}" if said else ""


def _other_runtime(request: Request) -> str | None:
    """The runtime with most techniques, where that is another one and some layout fits with it."""
    if request.runtime.name == WIDEST:
        return None
    runtime = load_runtime(WIDEST, request.fit)
    other = replace(request, runtime=runtime, gap=ANY_GAP, time_limit_s=PATIENCE_S)
    try:
        check_runtime(request, runtime)
    except InvalidSpec:
        return None
    return WIDEST if search(other, Problem.from_request(other)).best is not None else None


def _way_out(request: Request) -> str:
    """The smallest multiple of the cluster, by doubling, on which some layout is found that fits."""
    nodes = request.cluster.groups[0].num_nodes
    factor = 2
    while factor <= LARGEST_FACTOR:
        larger = replace(_with_nodes(request, nodes * factor), gap=ANY_GAP, time_limit_s=PATIENCE_S)
        if search(larger, Problem.from_request(larger)).best is not None:
            return f"try --gpus {larger.cluster.num_devices}, a device with more memory, or a shorter --seq-len"
        factor *= 2
    return "a device with more memory, a shorter --seq-len, or fewer constraints"


def _near_counts(request: Request) -> list[int]:
    """The nearest device counts below and above that have any layout: whole nodes, or devices of a lone node."""
    group = request.cluster.groups[0]
    alone = group.num_nodes == 1
    here = group.levels[0].size if alone else group.num_nodes
    found = []
    for direction in (-1, 1):
        for step in range(1, FARTHEST + 1):
            near = here + direction * step
            if near < 1:
                break
            other = _with_node_of(request, near) if alone else _with_nodes(request, near)
            if len(enumerate_space(other)):
                found.append(other.cluster.num_devices)
                break
    return found


def _with_node_of(request: Request, devices: int) -> Request:
    """The request on one node with so many devices in its innermost level."""
    cluster = request.cluster
    group = cluster.groups[0]
    inner = group.levels[0].model_copy(update={"size": devices})
    alone = group.model_copy(update={"levels": (inner, *group.levels[1:])})
    return replace(request, cluster=cluster.model_copy(update={"groups": (alone,)}))


def _with_nodes(request: Request, nodes: int) -> Request:
    """The request on as many nodes, under one level between them: enough for what exists and for what fits."""
    cluster = request.cluster
    group = cluster.groups[0].model_copy(update={"num_nodes": nodes})
    between = cluster.levels[-1].model_copy(update={"name": "between nodes", "size": nodes})
    network = (between,) if nodes > 1 else ()
    return replace(request, cluster=cluster.model_copy(update={"groups": (group,), "network": network}))
