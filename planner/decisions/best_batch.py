"""Which batch size ends a run soonest on a given number of devices, where a critical batch size is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction

from costmodel.schema.errors import Infeasible, SolverTimeout
from costmodel.schema.plan import Plan
from planner.decisions.critical_batch import estimate_tokens
from planner.decisions.peak import estimate_least_device_s
from planner.decisions.question import Ask, Find, Question
from planner.decisions.training import estimate_training
from planner.decisions.units import duration
from planner.request import Request
from planner.search.run import Progress

WORSE_IN_A_ROW = 2
"""Larger and smaller batches are tried until so many of them in a row did not end sooner."""

LARGEST = 4.0
"""Where nothing fits: batches are tried up to so many times the larger of the asked and the critical one."""

BETWEEN = (Fraction(3, 4), Fraction(3, 2))
"""Parts of the best power of two that are tried last."""


@dataclass
class _Trials:
    """The batches tried on one number of devices: their plans, and the errors of those that have none."""

    find: Find
    ask: Ask
    devices: int | None
    question: Question
    on_progress: Callable[[Progress], None] | None
    asked: Request
    plans: dict[int, Plan] = field(default_factory=dict)
    failures: dict[int, Infeasible | SolverTimeout] = field(default_factory=dict)

    def time_s(self, batch: int) -> float:
        """Time of the run with so many sequences a step, infinite where no plan is found."""
        if batch not in self.plans and batch not in self.failures:
            try:
                request = self.asked if batch == self.asked_batch else self.ask(self.devices, batch)
                plan = self.find(request, self.on_progress)
                training = estimate_training(plan, self.question, self.asked.workload.tokens_per_step)
                self.plans[batch] = plan.model_copy(update={"training": training})
            except (Infeasible, SolverTimeout) as error:
                self.failures[batch] = error
        return _time_s(self.plans[batch]) if batch in self.plans else float("inf")

    def improves(self, batch: int) -> bool:
        """Try a batch; whether its run ends before those of all that were tried earlier."""
        before_s = self.best_s
        return self.time_s(batch) < before_s

    @property
    def asked_batch(self) -> int:
        return self.asked.workload.global_batch_size

    @property
    def best_s(self) -> float:
        return min(map(_time_s, self.plans.values()), default=float("inf"))

    def least_s(self, batch: int) -> float:
        """What no layout can beat: the run's model FLOPs at the datasheet's peak of all devices."""
        workload, question = self.asked.workload, self.question
        assert question.tokens is not None
        assert question.critical_batch_tokens is not None
        step_tokens = float(batch * workload.seq_len)
        tokens = estimate_tokens(question.tokens, step_tokens, workload.tokens_per_step, question.critical_batch_tokens)
        return estimate_least_device_s(self.asked, tokens) / self.asked.cluster.num_devices


def find_best_batch(
    find: Find,
    ask: Ask,
    devices: int | None,
    question: Question,
    on_progress: Callable[[Progress], None] | None = None,
) -> Plan:
    """The plan and batch size with the shortest run: min over B of S(B) · step(B) / goodput.

    Batches are the asked one times powers of two, and 3/4 and 3/2 of the best of those. Either way ends after
    ``WORSE_IN_A_ROW`` that were no better: halving the batch nearly doubles the steps, below some size of it a step
    hardly gets shorter, and above the critical one tokens grow with it. The way up ends at the latest where the run's
    FLOPs alone, at the datasheet's peak, take longer than the best run.
    ``question.tokens`` are those of the batch asked for. Raises what the search of that batch raised where none fits.
    """
    trials = _Trials(find, ask, devices, question, on_progress, ask(devices, None))
    asked = trials.asked_batch
    critical = (question.critical_batch_tokens or 0.0) / trials.asked.workload.seq_len
    trials.time_s(asked)
    larger, worse = 2 * asked, 0
    while worse < WORSE_IN_A_ROW and trials.least_s(larger) < trials.best_s:
        if not trials.plans and larger > LARGEST * max(asked, critical):
            break
        worse = 0 if trials.improves(larger) or not trials.plans else worse + 1
        larger *= 2
    smaller, worse = asked, 0
    while worse < WORSE_IN_A_ROW and smaller % 2 == 0:
        smaller //= 2
        worse = 0 if trials.improves(smaller) else worse + 1
    if not trials.plans:
        raise trials.failures[asked]
    best = _best(trials)
    for part in BETWEEN:
        between = best * part
        if between.denominator == 1 and trials.least_s(int(between)) < trials.best_s:
            trials.time_s(int(between))
    best = _best(trials)
    plan = trials.plans[best]
    return plan.model_copy(update={"notes": (_said(trials, best), *plan.notes)})


def _best(trials: _Trials) -> int:
    return min(trials.plans, key=trials.time_s)


def _time_s(plan: Plan) -> float:
    assert plan.training is not None
    return plan.training.time_s.mean


def _said(trials: _Trials, best: int) -> str:
    others = ", ".join(
        f"{batch:,} ({duration(trials.time_s(batch))})" for batch in sorted(trials.plans) if batch != best
    )
    tried = f"; others take longer: {others}" if others else ""
    return f"A batch of {best:,} sequences ends the run soonest, in {duration(trials.time_s(best))}{tried}."
