"""A scaling curve: the best layout on each of several numbers of GPUs, and what the run would take there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from costmodel.schema.errors import Infeasible, SolverTimeout
from costmodel.schema.plan import Plan
from costmodel.schema.training import Training
from planner.decisions.best_batch import find_best_batch
from planner.decisions.less_memory import with_memory_share
from planner.decisions.question import Ask, Find, Question
from planner.decisions.training import estimate_training
from planner.decisions.units import duration
from planner.search.run import Progress


@dataclass(frozen=True)
class Point:
    """One number of devices: the plan with its training, or a sentence that says why there is none.

    ``memory_share``: of each device's memory, in which the plan was searched.
    """

    devices: int
    plan: Plan | None = None
    why_not: str | None = None
    memory_share: float = 1.0

    @property
    def answer(self) -> tuple[Plan, Training]:
        """The plan and its run, of a point that has them."""
        assert self.plan is not None
        assert self.plan.training is not None
        return self.plan, self.plan.training

    @property
    def figures(self) -> tuple[float, float, float]:
        """Time of the run, its device hours, bytes on the fullest device: what a choice weighs."""
        plan, training = self.answer
        return training.time_s.mean, training.device_hours, plan.prediction.memory.peak_bytes_per_device


@dataclass(frozen=True)
class Curve:
    """Points by rising number of devices. ``interrupted``: it was stopped before the last.

    ``chosen``: the point that answers the question, None where none does. ``said``: what is known of other numbers.
    """

    points: tuple[Point, ...]
    interrupted: bool = False
    chosen: Point | None = None
    said: str | None = None

    @property
    def found(self) -> list[Point]:
        """The points that have a plan."""
        return [point for point in self.points if point.plan is not None]


def find_point(
    find: Find,
    ask: Ask,
    devices: int,
    question: Question,
    on_progress: Callable[[Progress], None] | None = None,
) -> Point:
    """What the search finds on so many devices, or why it finds nothing. Raises InvalidSpec for a number that fills no
    nodes; fixed degrees that do not divide it are a reason."""

    try:
        return Point(devices, find_run(find, ask, devices, question, with_about(on_progress, f"{devices:,} GPUs")))
    except (Infeasible, SolverTimeout) as error:
        return Point(devices, why_not=error.message)


def with_about(on_progress: Callable[[Progress], None] | None, about: str) -> Callable[[Progress], None] | None:
    """``on_progress``, told which of several searches it hears of; tells it that this one begins."""
    if on_progress is None:
        return None
    on_progress(Progress(0, 0, None, None, about))
    return lambda progress: on_progress(replace(progress, about=about))


def find_run(
    find: Find,
    ask: Ask,
    devices: int | None,
    question: Question,
    on_progress: Callable[[Progress], None] | None = None,
) -> Plan:
    """The plan on so many devices with its training; where a critical batch size is given, at the best batch too.

    Raises as the search, ``build_request`` and ``estimate_goodput`` do.
    """
    if question.critical_batch_tokens is not None:
        return find_best_batch(find, ask, devices, question, on_progress)
    plan = find(ask(devices, None), on_progress)
    return plan.model_copy(update={"training": estimate_training(plan, question)})


def scan(
    find: Find,
    ask: Ask,
    counts: Sequence[int],
    question: Question,
    on_progress: Callable[[Progress], None] | None = None,
    memory_shares: Sequence[float] = (1.0,),
) -> Curve:
    """One search per number of devices, all else equal, the global batch included: strong scaling.

    With several ``memory_shares``, falling, one for each of them, until none fits; those that change nothing are left
    out.

    An interruption (Ctrl-C) ends the scan and keeps what was found. Raises InvalidSpec, before any search, for a number
    that fills no nodes; KeyboardInterrupt where nothing was found before it.
    """
    for count in counts:
        with suppress(Infeasible):
            ask(count, None)
    points: list[Point] = []
    interrupted = False
    try:
        for count in counts:
            for share in memory_shares:
                point = find_point(find, with_memory_share(ask, share), count, question, on_progress)
                if share == memory_shares[0] or (point.plan is not None and point.figures != points[-1].figures):
                    points.append(replace(point, memory_share=share))
                if point.plan is None:
                    break
    except KeyboardInterrupt:
        interrupted = True
        if not any(point.plan for point in points):
            raise
    return Curve(tuple(points), interrupted, choose(points, question))


def choose(points: Iterable[Point], question: Question) -> Point | None:
    """With a deadline the fewest devices that meet it; else, with a price, the cheapest run; else the fastest."""
    found = [point for point in points if point.plan is not None]
    if question.deadline_s is not None:
        deadline_s = question.deadline_s
        return next((point for point in found if point.figures[0] <= deadline_s), None)
    axis = 1 if any(point.answer[1].cost is not None for point in found) else 0
    return min(found, key=lambda point: point.figures[axis], default=None)


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """The points that no other equals or beats in time, device hours and memory at once."""
    found = [point for point in points if point.plan is not None]
    return [one for one in found if not any(_dominates(other.figures, one.figures) for other in found)]


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(mine <= theirs for mine, theirs in zip(one, other, strict=True))


def check_answered(curve: Curve, question: Question) -> None:
    """Raises Infeasible, with what comes nearest, where no point has a plan or none meets the deadline."""
    found = curve.found
    if not found:
        reasons = [f"{point.devices:,} GPUs: {point.why_not}" for point in curve.points]
        raise Infeasible("no plan was found on any of these numbers of GPUs", reasons, "try more of them")
    if curve.chosen is None:
        assert question.deadline_s is not None
        fastest = min(found, key=lambda point: point.figures[0])
        raise Infeasible(
            f"none of these numbers of GPUs trains in {duration(question.deadline_s)}: the fastest,"
            f" {fastest.devices:,} GPUs, takes {duration(fastest.figures[0])}",
            hint="more GPUs, a later --deadline, or a larger --global-batch-size",
        )
