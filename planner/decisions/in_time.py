"""Is a number of devices in time? Bounds answer no, the first layout that is fast enough answers yes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import inf

from costmodel.schema.errors import Infeasible, SolverTimeout
from costmodel.schema.plan import Plan
from planner.decisions.curve import find_run, with_about
from planner.decisions.failures import estimate_goodput
from planner.decisions.question import Ask, Find, Question
from planner.decisions.training import count_steps, estimate_training
from planner.request import Request
from planner.search.floor import estimate_step_floor_s
from planner.search.run import Progress

SLACK = 0.002
"""How far goodput on one number of devices may be off that of a plan on another: a layout decides how many steps the
interval between checkpoints is rounded to, and hardly more."""

SURE = 0.95
"""Goodput to begin with: a faster step is looked for where this was too much."""


@dataclass
class InTime:
    """The numbers of devices that were decided: ``in_time`` with the plan that shows it.

    ``without``: on which no layout exists or fits by its floor; ``by_floor``, ``by_search``: of which every layout that
    fits is proven too slow, by its floor or by a search; ``undecided``: of which a search found nothing in time and
    proved nothing, within its time limit or gap.
    ``batch``: the global batch size that is decided for; None: that asked for or, where it is open, the best.
    """

    find: Find
    ask: Ask
    question: Question
    on_progress: Callable[[Progress], None] | None = None
    batch: int | None = None
    in_time: dict[int, Plan] = field(default_factory=dict)
    without: set[int] = field(default_factory=set)
    by_floor: set[int] = field(default_factory=set)
    by_search: set[int] = field(default_factory=set)
    undecided: set[int] = field(default_factory=set)
    asked_step_tokens: int | None = None

    def at_batch(self, batch: int) -> InTime:
        """The same question of another global batch size, nothing of it decided."""
        return InTime(self.find, self.ask, self.question, self.on_progress, batch)

    def decide(self, devices: int) -> bool:
        """Whether a run on so many is found that is in time by its mean."""
        if devices in self.without | self.by_floor | self.by_search | self.undecided:
            return False
        return devices in self.in_time or self._decide(devices)

    @property
    def is_open(self) -> bool:
        """Whether every batch size is tried."""
        return self.question.critical_batch_tokens is not None and self.batch is None

    @property
    def deadline_s(self) -> float:
        assert self.question.deadline_s is not None
        return self.question.deadline_s

    def _decide(self, devices: int) -> bool:
        say = with_about(self.on_progress, f"{devices:,} GPUs")
        try:
            if self.is_open:
                return self._judge(devices, find_run(self.find, self._ask_in_time, devices, self.question, say))
            request = self._ask_in_time(devices, self.batch)
            floor_s = estimate_step_floor_s(request)
            if floor_s < request.within_s:
                return self._judge(devices, self._find(request, say))
            (self.without if floor_s == inf else self.by_floor).add(devices)
        except SolverTimeout:
            self.undecided.add(devices)
        except Infeasible:
            self.by_search.add(devices)
        return False

    def _find(self, request: Request, say: Callable[[Progress], None] | None) -> Plan:
        """The first layout that is fast enough, with its run, or else the fastest."""
        plan = self._run(request, say)
        if plan.certificate.status == "stopped" and _time_s(plan) > self.deadline_s:
            # Failures take more than they were thought to.
            enough_s = plan.prediction.step_time_s.mean * self.deadline_s / _time_s(plan)
            plan = self._run(replace(request, enough_s=(1.0 - SLACK) * enough_s), say)
        return plan

    def _run(self, request: Request, say: Callable[[Progress], None] | None) -> Plan:
        plan = self.find(request, say)
        return plan.model_copy(update={"training": estimate_training(plan, self.question, self.asked_step_tokens)})

    def _judge(self, devices: int, plan: Plan) -> bool:
        if _time_s(plan) <= self.deadline_s:
            self.in_time[devices] = plan
            return True
        bound_s = plan.certificate.lower_bound_s or 0.0
        least_s = _time_s(plan) * bound_s / plan.prediction.step_time_s.mean
        (self.by_search if least_s > self.deadline_s else self.undecided).add(devices)
        return False

    def _ask_in_time(self, devices: int | None, batch: int | None) -> Request:
        """The request for layouts whose run may be in time: the rest need not be told apart, nor what is so surely.
        What is said of a plan beside its figures is left out, and where the batch is open all of them are compared."""
        request = self.ask(devices, batch)
        step_tokens = request.workload.tokens_per_step
        if self.asked_step_tokens is None:
            self.asked_step_tokens = self.ask(devices, None).workload.tokens_per_step
        step_s = self.deadline_s / count_steps(self.question, step_tokens, self.asked_step_tokens)[1]
        least, most = self._goodput(request.cluster.num_devices)
        enough_s = 0.0 if self.is_open else least * step_s
        return replace(request, within_s=most * step_s, enough_s=enough_s, top=0)

    def _goodput(self, devices: int) -> tuple[float, float]:
        """Between what and what it lies on so many devices: near that of another number's plan, failures as they are
        on this one; up to 1 where there is no plan yet."""
        plan = next(iter(self.in_time.values()), None)
        if plan is None:
            return SURE, 1.0
        there = plan.cluster.model_copy(update={"num_devices": devices})
        share = estimate_goodput(plan.model_copy(update={"cluster": there}), self.question.reliability).share
        return share - SLACK, min(share + SLACK, 1.0)


def _time_s(plan: Plan) -> float:
    assert plan.training is not None
    return plan.training.time_s.mean
