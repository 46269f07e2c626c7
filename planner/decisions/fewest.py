"""The fewest devices that end a run in time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from math import ceil, inf

from costmodel.flops import estimate_model_flops
from costmodel.gemm import peak_flops_per_s
from costmodel.schema.errors import Infeasible
from planner.decisions.critical_batch import estimate_tokens
from planner.decisions.curve import Curve, Point, choose, find_point
from planner.decisions.question import Ask, Find, Question
from planner.decisions.training import count_steps
from planner.decisions.units import amount, duration
from planner.request import Request
from planner.search.run import Progress
from planner.search.space import enumerate_layouts

MOST_DEVICES = 65_536
"""Where the search for enough devices ends, unless a cluster file ends it sooner."""

BETWEEN = 8
"""Numbers searched, at most, between the last doubling that is too slow and the first that is not."""

COUNTED = 256
"""Numbers whose layouts are counted, at most, to choose them."""

NO_FASTER = 2
"""So many doublings in a row that are no faster than an earlier one end the search: the batch is spread out."""


def find_fewest(
    find: Find,
    ask: Ask,
    node: int,
    most: int | None,
    question: Question,
    on_progress: Callable[[Progress], None] | None = None,
) -> Curve:
    """Doubles the nodes until the deadline is met, then tries whole nodes in between, fewest first.

    It starts where the model's FLOPs at the datasheet's peak would just be done in time: fewer devices cannot. Time
    does not fall evenly with the number of devices, so no bisection: of the numbers in between, the ``BETWEEN`` with
    the most layouts are searched in turn. ``node``: devices in a node; ``most``: how many there are.
    Raises Infeasible, with the fastest found, where no number up to the limit is in time.
    """
    limit = min(most or MOST_DEVICES, MOST_DEVICES)
    points: dict[int, Point] = {}

    def in_time(devices: int, asking: Ask = ask) -> bool:
        points[devices] = find_point(find, asking, devices, question, on_progress)
        return choose([points[devices]], question) is not None

    floor, interrupted = 1, False
    try:
        floor = _least_devices(_first_request(ask, node, limit), question)
        tried = _doublings(node, floor, limit, points)
        enough = next((devices for devices in tried if in_time(devices)), None)
        if enough is None:
            raise _out_of_reach(points, floor, limit, question)
        for devices in _between(ask, max([floor - 1, *(n for n in points if n < enough)]), enough, node):
            if in_time(devices, _hurried(ask, question)):
                break
    except KeyboardInterrupt:
        interrupted = True
        if not any(point.plan for point in points.values()):
            raise
    ordered = tuple(points[devices] for devices in sorted(points))
    return Curve(ordered, interrupted, choose(ordered, question))


def _hurried(ask: Ask, question: Question) -> Ask:
    """``ask`` for layouts whose run would be in time if nothing ever failed: the rest need not be told apart."""
    assert question.deadline_s is not None
    deadline_s = question.deadline_s

    def asking(devices: int | None, batch: int | None) -> Request:
        request = ask(devices, batch)
        step_tokens = request.workload.tokens_per_step
        asked_tokens = step_tokens if batch is None else ask(devices, None).workload.tokens_per_step
        return replace(request, within_s=deadline_s / count_steps(question, step_tokens, asked_tokens)[1])

    return asking


def _first_request(ask: Ask, node: int, limit: int) -> Request:
    """Some request, for its model, workload and device: of as few nodes as fixed degrees take."""
    devices = node
    while True:
        try:
            return ask(min(devices, limit), None)
        except Infeasible:
            if devices >= limit:
                raise
            devices *= 2


def _least_devices(request: Request, question: Question) -> int:
    """Model FLOPs of the run ÷ (peak · deadline), rounded up; of a vanishing batch where the batch is open."""
    assert question.tokens is not None
    assert question.deadline_s is not None
    workload, tokens = request.workload, question.tokens
    if question.critical_batch_tokens is not None:
        tokens = estimate_tokens(tokens, 0.0, workload.tokens_per_step, question.critical_batch_tokens)
    flops = estimate_model_flops(request.model, workload) * tokens / workload.tokens_per_step
    return ceil(flops / peak_flops_per_s(request.device, workload.precision) / question.deadline_s)


def _doublings(node: int, floor: int, limit: int, points: Mapping[int, Point]) -> Iterator[int]:
    """1, 2, 4, … node, 2 nodes, 4 nodes, … from ``floor`` on, the limit last; ends where more devices do not help."""
    inside = [1 << power for power in range((node - 1).bit_length())]
    beyond = [node << power for power in range(limit.bit_length()) if node << power < limit]
    best_s, no_faster = inf, 0
    for devices in [*inside, *beyond, limit]:
        if not floor <= devices <= limit:
            continue
        yield devices
        plan = points[devices].plan
        time_s = inf if plan is None else points[devices].figures[0]
        no_faster = 0 if time_s < best_s else no_faster + 1
        best_s = min(best_s, time_s)
        if best_s < inf and no_faster >= NO_FASTER:
            return


def _between(ask: Ask, above: int, below: int, node: int) -> list[int]:
    """Of the numbers strictly between two, devices of one node or whole nodes, those that have the most layouts."""
    step = 1 if below <= node else node
    every = range((above // step + 1) * step, below, step)
    layouts = {devices: _count_layouts(ask, devices) for devices in every[:: ceil(len(every) / COUNTED) or 1]}
    richest = sorted((devices for devices in layouts if layouts[devices]), key=lambda devices: -layouts[devices])
    return sorted(richest[:BETWEEN])


def _count_layouts(ask: Ask, devices: int) -> int:
    try:
        return len(enumerate_layouts(ask(devices, None)))
    except Infeasible:
        return 0


def _out_of_reach(points: Mapping[int, Point], floor: int, limit: int, question: Question) -> Infeasible:
    assert question.tokens is not None
    assert question.deadline_s is not None
    asked = f"{amount(question.tokens)} tokens in {duration(question.deadline_s)}"
    hint = "a later --deadline, fewer --tokens, a faster --gpu, a larger --global-batch-size or --critical-batch"
    found = [point for point in points.values() if point.plan is not None]
    if not points:
        return Infeasible(f"{asked} need at least {floor:,} GPUs at their peak, and {limit:,} are the most", hint=hint)
    if not found:
        reasons = [f"{point.devices:,} GPUs: {point.why_not}" for point in points.values()]
        return Infeasible(f"{asked} are out of reach: no plan was found on up to {limit:,} GPUs", reasons, hint)
    fastest = min(found, key=lambda point: point.figures[0])
    return Infeasible(
        f"{asked} are out of reach: the fastest found takes {duration(fastest.figures[0])}, on"
        f" {fastest.devices:,} GPUs of up to {max(points):,} tried",
        hint=hint,
    )
