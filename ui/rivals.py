"""Rivals: the plan of a question held against another layout, worked out once."""

from __future__ import annotations

from dataclasses import dataclass

from costmodel.schema.errors import Infeasible, InvalidSpec, ParlayError, SolverTimeout
from costmodel.schema.plan import Plan
from planner.against import find_against, leanest_against
from planner.search.reasons import say_difference
from planner.survey import Survey, survey_space
from ui.answers import Answer
from ui.remembered import Remembered


@dataclass(frozen=True)
class Rival:
    """``plan``: the best that has the layout or, where ``refusal`` says that none fits, the leanest, which does not.

    ``left_out``: why the search did not weigh it.
    """

    plan: Plan | None
    refusal: str | None = None
    left_out: tuple[str, ...] = ()

    def verdict(self, answer: Plan) -> str:
        """Whether and why it loses, in a sentence."""
        if self.plan is None or self.refusal is not None:
            return f"It is no answer: {self.refusal}."
        ours, theirs = answer.prediction, self.plan.prediction
        ratio = theirs.step_time_s.mean / ours.step_time_s.mean
        said = say_difference(ours.breakdown, theirs.breakdown)
        if abs(ratio - 1.0) < 5e-4:
            return f"It takes as long: {said}."
        return f"A step takes {abs(ratio - 1.0):.1%} {'longer' if ratio > 1 else 'less'}: {said}."


_rivals: Remembered[tuple[Answer, str], Rival] = Remembered(64)
_surveys: Remembered[Answer, Survey] = Remembered(8)


def survey_of(answer: Answer) -> Survey:
    """The question's whole space. Raises InvalidSpec for nodes of several kinds."""
    return _surveys.of(answer, lambda: survey_space(answer.request, answer.simulated_s))


def find_rival(answer: Answer, text: str) -> Rival:
    """``text``: as ``--fix`` takes it. Raises InvalidSpec and UnknownName where it cannot be read."""
    return _rivals.of((answer, text), lambda: _find(answer.plan, text))


def _find(plan: Plan, text: str) -> Rival:
    try:
        found = find_against(plan, text)
        return Rival(found.plan, left_out=found.left_out)
    except (Infeasible, SolverTimeout) as error:
        refusal = _plain(error, text)
    try:
        return Rival(leanest_against(plan, text), refusal)
    except InvalidSpec:
        return Rival(None, refusal)


def _plain(error: ParlayError, text: str) -> str:
    """The refusal without the command line's words."""
    return error.message.split(" under --against")[0].replace("--against ", "")
