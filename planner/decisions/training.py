"""A plan carried through a run: steps, time, device hours, cost."""

from __future__ import annotations

from math import ceil, erf, log, sqrt

from costmodel.schema.errors import Infeasible
from costmodel.schema.plan import Plan
from costmodel.schema.prediction import Interval
from costmodel.schema.training import Training
from planner.decisions.critical_batch import estimate_tokens
from planner.decisions.failures import WORTH_SAYING, estimate_goodput
from planner.decisions.question import Question
from planner.decisions.units import amount, duration
from planner.prediction import Z_90

UNIT_TOKENS = 1e12
"""What times and costs refer to where no number of tokens is given."""


def estimate_training(plan: Plan, question: Question, asked_batch_tokens: int | None = None) -> Training:
    """steps = tokens / tokens a step, rounded up; time = steps · step time / goodput; cost = devices · time · price.

    ``asked_batch_tokens``: the step that ``question.tokens`` refers to, by default the plan's own. Without a number of
    tokens, the figures are of 10¹². The time's interval is the step time's, and P(in time) that of a lognormal one.
    Leaves out: how far the number of failures may be off its mean.
    Raises as ``estimate_goodput``.
    """
    step_tokens, step_s = plan.workload.tokens_per_step, plan.prediction.step_time_s
    tokens, steps = count_steps(question, step_tokens, asked_batch_tokens or step_tokens)
    goodput = estimate_goodput(plan, question.reliability)
    per_step = steps / goodput.share
    time_s = Interval(mean=per_step * step_s.mean, low=per_step * step_s.low, high=per_step * step_s.high)
    hours = plan.cluster.num_devices * time_s.mean / 3600.0
    price = question.price_per_device_hour or plan.cluster.device_spec.price_per_hour
    return Training(
        tokens=tokens,
        steps=steps,
        time_s=time_s,
        device_hours=hours,
        price_per_device_hour=price,
        cost=None if price is None else hours * price,
        deadline_s=question.deadline_s,
        on_time_probability=None if question.deadline_s is None else on_time_probability(time_s, question.deadline_s),
        critical_batch_tokens=question.critical_batch_tokens,
        goodput=goodput,
    )


def count_steps(question: Question, step_tokens: int, asked_step_tokens: int) -> tuple[float, int]:
    """Tokens of the run at so many a step, and its steps; ``question.tokens`` are those at ``asked_step_tokens``."""
    tokens = question.tokens or UNIT_TOKENS
    if question.critical_batch_tokens is not None:
        tokens = estimate_tokens(tokens, step_tokens, asked_step_tokens, question.critical_batch_tokens)
    return tokens, ceil(tokens / step_tokens)


def on_time_probability(time_s: Interval, deadline_s: float) -> float:
    """Φ(ln(deadline / mean) / σ), σ = ln(high / mean) / z₉₀: of a lognormal time with this 90% interval."""
    sigma = log(time_s.high / time_s.mean) / Z_90
    distance = log(deadline_s / time_s.mean)
    if sigma <= 0:
        return float(distance >= 0)
    return 0.5 * (1.0 + erf(distance / sigma / sqrt(2.0)))


def without_unasked(plan: Plan, question: Question) -> Plan:
    """The plan less its training where nothing was asked and too few devices work together for failures to matter."""
    if question.asked or plan.cluster.num_devices >= WORTH_SAYING:
        return plan
    return plan.model_copy(update={"training": None})


def check_in_time(plan: Plan) -> None:
    """Raises Infeasible where the run misses its deadline on average."""
    training = plan.training
    if training is None or training.deadline_s is None or training.time_s.mean <= training.deadline_s:
        return
    devices = " + ".join(f"{number:,} {device}" for number, device in plan.cluster.counts)
    raise Infeasible(
        f"{devices} take {duration(training.time_s.mean)} for"
        f" {amount(training.tokens)} tokens, {duration(training.deadline_s)} are given",
        hint="leave --gpus out, or give several numbers of them, to find the fewest that do it",
    )
