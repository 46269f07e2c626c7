"""When no number of devices is in time: how far off the fastest run is, and which batch would do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import inf

from costmodel.schema.errors import Infeasible
from planner.decisions.curve import Point, find_point
from planner.decisions.in_time import InTime
from planner.decisions.question import Question
from planner.decisions.units import amount, duration
from planner.request import Request

LARGER = (2, 4, 8, 16)
"""Times the asked batch: what is tried for a batch that would do."""

HINT = "a later --deadline, fewer --tokens, a faster --gpu"


def refuse_too_few(question: Question, floor: int, limit: int) -> Infeasible:
    """Of a run whose FLOPs alone need more devices than there are."""
    return Infeasible(
        f"{_asked(question)} need at least {floor:,} GPUs at their peak, and {limit:,} are the most", hint=HINT
    )


def explain_out_of_reach(decided: InTime, tried: Sequence[int]) -> Infeasible:
    """The error of a deadline that none of the numbers ``tried``, rising, meets: the fastest run found, what is proven
    of all of them, and where the batch was given the least of ``LARGER`` with which one of them is in time.

    A first look at each of them says which may be fastest, and that one is searched.
    """
    asked = _asked(decided.question)
    points = [_look(decided, devices) for devices in tried if devices not in decided.without]
    found = [point for point in points if point.plan is not None]
    if not found:
        reasons = [*_say_tried(decided, tried), *(f"{point.devices:,} GPUs: {point.why_not}" for point in points)]
        return Infeasible(f"{asked} are out of reach: no plan was found on up to {tried[-1]:,} GPUs", reasons, HINT)
    searched = _look(decided, min(found, key=_time_s).devices, enough_s=0.0)
    fastest = min((point for point in (*found, searched) if point.plan is not None), key=_time_s)
    looks = ", ".join(f"{duration(_time_s(point))} on {point.devices:,}" for point in found)
    reasons = [*_say_tried(decided, tried), f"found at a first look: {looks} GPUs"]
    return Infeasible(
        f"{asked} are out of reach: the fastest run found takes {duration(_time_s(fastest))}, on"
        f" {fastest.devices:,} GPUs",
        reasons,
        f"{_say_larger(decided, tried, fastest.devices)}{'more GPUs, ' if fastest.devices == tried[-1] else ''}{HINT}",
    )


def _look(decided: InTime, devices: int, enough_s: float = inf) -> Point:
    """The first layout that a search finds whose step takes no more than ``enough_s``, or the best."""

    def ask(devices: int | None, batch: int | None) -> Request:
        return replace(decided.ask(devices, batch), enough_s=enough_s, top=0, robust=False)

    return find_point(decided.find, ask, devices, decided.question, decided.on_progress)


def _say_tried(decided: InTime, tried: Sequence[int]) -> list[str]:
    sorts = (
        ("proven too slow", decided.by_floor | decided.by_search),
        ("without a layout that fits", decided.without),
        ("not decided within --time-limit and --gap", decided.undecided),
    )
    named = ((how, [f"{devices:,}" for devices in tried if devices in some]) for how, some in sorts)
    return [f"{how}: {', '.join(numbers)} GPUs" for how, numbers in named if numbers]


def _say_larger(decided: InTime, tried: Sequence[int], known: int) -> str:
    """The least batch of ``LARGER`` that is found to be in time on some of ``tried``, if any and if it was given.
    ``known``: a number for which a request can be made."""
    if decided.question.critical_batch_tokens is not None:
        return ""
    asked = decided.ask(known, None).workload.global_batch_size
    for batch in (times * asked for times in LARGER):
        larger = decided.at_batch(batch)
        devices = next((devices for devices in tried if larger.decide(devices)), None)
        if devices is not None:
            return (
                f"--global-batch-size {batch} is in time on {devices:,} GPUs, where so large a batch learns as much"
                " from a token (--critical-batch); or "
            )
    return ""


def _asked(question: Question) -> str:
    assert question.tokens is not None
    assert question.deadline_s is not None
    return f"{amount(question.tokens)} tokens in {duration(question.deadline_s)}"


def _time_s(point: Point) -> float:
    return point.figures[0]
