"""Frozen passes in a pipeline's bubbles: the encoders of a diffusion model, run ahead for the next step's data.

A frozen model is a chain of pieces without a backward; whoever runs it for a micro-batch needs nothing from other
ranks. So every micro-batch of the next step goes to one rank as a whole: the rank with the most idle time left takes
the next one, and its pieces go into the rank's idle spans in order, each into the first span from the last piece's on
that it fits. What fits nowhere stands at the end of the rank's order.

Source: Tian, Jia, Zheng, Wu, Wang 2024, "DiffusionPipe: Training Large Diffusion Models with Efficient Pipelines",
section 5 (there a piece may also be split over idle ranks by samples; here the micro-batch is the smallest part).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import isfinite

from costmodel.schema.errors import InvalidSpec
from costmodel.schema.schedule import Pass, PassKind, Schedule
from planner.simulator.simulate import simulate
from planner.simulator.times import StageTimes

_ROUNDING = 1e-9
"""Seconds by which a span may seem too short."""


def fill_bubbles(schedule: Schedule, times: StageTimes, piece_s: Sequence[float]) -> Schedule:
    """``schedule`` with FROZEN_F passes for all of its micro-batches, its own passes in unchanged order.

    ``times``: the stages' times, by which the bubbles are found. ``piece_s``: seconds of each frozen piece for one
    micro-batch. Raises InvalidSpec when a piece takes a negative or no finite time, or the order cannot run.
    """
    for index, seconds in enumerate(piece_s):
        if not (isfinite(seconds) and seconds >= 0):
            raise InvalidSpec(f"piece_s[{index}] = {seconds:g}: a frozen piece takes a finite time from 0")
    spans = _idle_spans(schedule, times)
    whole_s = sum(piece_s)
    left_s = [sum(own) for own in spans]
    placed: list[list[tuple[int, Pass]]] = [[] for _ in spans]
    reached = [0] * len(spans)
    for microbatch in range(schedule.num_microbatches):
        rank = max(range(len(spans)), key=lambda each: left_s[each])
        left_s[rank] -= whole_s
        for piece, seconds in enumerate(piece_s):
            reached[rank] = _take(spans[rank], reached[rank], seconds)
            placed[rank].append((reached[rank], Pass(PassKind.FROZEN_FORWARD, piece, microbatch)))
    orders = tuple(_merged(order, own) for order, own in zip(schedule.orders, placed, strict=True))
    return replace(schedule, name=f"{schedule.name}+frozen", orders=orders)


def _idle_spans(schedule: Schedule, times: StageTimes) -> list[list[float]]:
    """[rank][position in its order]: idle seconds before the pass there; the last span ends with the makespan."""
    simulation = simulate(schedule, times)
    start_s, finish_s = simulation.start_s.tolist(), simulation.finish_s.tolist()
    begin_s, end_s = min(start_s), max(finish_s)
    spans, at = [], 0
    for order in schedule.orders:
        own, now_s = [], begin_s
        for _ in order:
            own.append(start_s[at] - now_s)
            now_s = finish_s[at]
            at += 1
        own.append(end_s - now_s)
        spans.append(own)
    return spans


def _take(spans: list[float], first: int, seconds: float) -> int:
    """The first span from ``first`` on with ``seconds`` left, which then has less; the last one when none has."""
    for index in range(first, len(spans)):
        if spans[index] >= seconds - _ROUNDING:
            spans[index] -= seconds
            return index
    return len(spans) - 1


def _merged(order: tuple[Pass, ...], placed: list[tuple[int, Pass]]) -> tuple[Pass, ...]:
    """``order`` with each placed pass before the position given; positions don't fall."""
    merged: list[Pass] = []
    at = 0
    for before, step in placed:
        merged += order[at:before]
        at = before
        merged.append(step)
    return (*merged, *order[at:])
