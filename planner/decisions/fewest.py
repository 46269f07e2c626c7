"""The fewest devices that end a run in time."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

from costmodel.schema.errors import Infeasible
from planner.decisions.critical_batch import estimate_tokens
from planner.decisions.curve import Curve, Point, find_point
from planner.decisions.in_time import InTime
from planner.decisions.out_of_reach import explain_out_of_reach, refuse_too_few
from planner.decisions.peak import estimate_least_device_s
from planner.decisions.question import Ask, Find, Question
from planner.request import Request
from planner.search.run import Progress
from planner.sizes import Sizes

MOST_DEVICES = 65_536
"""Where the search for enough devices ends, unless a cluster file ends it sooner."""


def find_fewest(
    find: Find,
    ask: Ask,
    sizes: Sizes,
    question: Question,
    on_progress: Callable[[Progress], None] | None = None,
) -> Curve:
    """Doubles the nodes until a run is in time, then decides every smaller number of whole nodes, fewest first.

    It starts where the model's FLOPs at the datasheet's peak would just be done in time: fewer devices cannot. Time
    does not fall evenly with the number of devices, so no bisection; most numbers have no layout or are too slow by
    their floors. Where the batch size is open, numbers between doublings are decided at the batch that is in time on
    the doubling. The answer's plan is then searched as ``plan --gpus`` does.
    Raises Infeasible, with the fastest found and the batch that would do, where no doubling is in time.
    """
    limit = min(sizes.most or MOST_DEVICES, MOST_DEVICES // sizes.unit * sizes.unit)
    decided = InTime(find, ask, question, on_progress)
    floor, chosen, interrupted = 1, None, False
    try:
        first = _first_request(ask, sizes.unit, limit)
        floor = _least_devices(first, question)
        batch = first.workload.global_batch_size
        doublings = [devices for devices in sizes.doublings(limit, batch) if devices >= floor]
        if not doublings:
            raise refuse_too_few(question, floor, limit)
        enough = next((devices for devices in doublings if decided.decide(devices)), None)
        if enough is None:
            raise explain_out_of_reach(decided, doublings)
        if decided.is_open:
            decided.batch = decided.in_time[enough].workload.global_batch_size
        fewest = next(devices for devices in sizes.up_to(enough) if devices >= floor and decided.decide(devices))
        chosen = _searched_whole(decided, fewest)
    except KeyboardInterrupt:
        interrupted = True
    if chosen is None and decided.in_time:
        devices = min(decided.in_time)
        chosen = Point(devices, decided.in_time[devices])
    of_which = "" if decided.batch is None else f" at {decided.batch:,} sequences a step"
    known = f"Ruled out so far{of_which}" if interrupted else f"Smaller numbers are ruled out{of_which}"
    said = f"{known}: {_say_decided(decided, floor, chosen)}"
    return Curve(() if chosen is None else (chosen,), interrupted, chosen, said)


def _searched_whole(decided: InTime, devices: int) -> Point:
    """The answer as a single search gives it, unless that is late: ``--robust`` may name a slower layout."""
    point = find_point(decided.find, decided.ask, devices, decided.question, decided.on_progress)
    if point.plan is not None and point.figures[0] <= decided.deadline_s:
        return point
    return Point(devices, decided.in_time[devices])


def _first_request(ask: Ask, unit: int, limit: int) -> Request:
    """Some request, for its model, workload and devices: of as few nodes as fixed degrees take."""
    devices = unit
    while True:
        try:
            return ask(min(devices, limit), None)
        except Infeasible:
            if devices >= limit:
                raise
            devices *= 2


def _least_devices(request: Request, question: Question) -> int:
    """Device seconds of the run at the peak ÷ deadline, rounded up; of a vanishing batch where the batch is open."""
    assert question.tokens is not None
    assert question.deadline_s is not None
    tokens = question.tokens
    if question.critical_batch_tokens is not None:
        tokens = estimate_tokens(tokens, 0.0, request.workload.tokens_per_step, question.critical_batch_tokens)
    return ceil(estimate_least_device_s(request, tokens) / question.deadline_s)


def _say_decided(decided: InTime, floor: int, chosen: Point | None) -> str:
    """What rules smaller numbers out; without an answer, any."""

    def smaller(some: set[int]) -> list[int]:
        return sorted(devices for devices in some if chosen is None or devices < chosen.devices)

    ruled_out = (
        f"fewer than {floor:,} GPUs at their peak",
        *(
            f"{len(smaller(some)):,} {how}"
            for some, how in (
                (decided.without, "without a layout that fits"),
                (decided.by_floor, "by the floor of all layouts"),
                (decided.by_search, "by a search"),
            )
            if smaller(some)
        ),
    )
    said = f"{', '.join(ruled_out)}."
    if left := smaller(decided.undecided):
        said += f" Not decided within --time-limit and --gap: {', '.join(f'{devices:,}' for devices in left)}."
    return said
