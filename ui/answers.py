"""Answers: questions searched once, and remembered for all who ask the same of this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from costmodel.schema.plan import Plan
from planner.decisions.question import Question as RunQuestion
from planner.decisions.question import build_question
from planner.decisions.training import estimate_training
from planner.problem import Problem
from planner.request import Request
from planner.search.find import find_plan
from planner.search.reasons import list_alternatives
from planner.search.run import Outcome, Progress
from ui.question import Question
from ui.remembered import Remembered

REMEMBERED = 64
"""Answers kept."""


@dataclass(frozen=True, eq=False)
class Answer:
    """A question, the request that it means, and the plan that was found, with its training run. Each is equal to
    itself alone, so that what follows from it can be remembered by it.

    ``simulated_s``: steps of all layouts that the search simulated, by number in the enumerated space.
    """

    question: Question
    request: Request
    plan: Plan
    simulated_s: dict[int, float] = field(default_factory=dict)

    @property
    def run(self) -> RunQuestion:
        """The training run that was asked about."""
        return run_question(self.question)


_answers: Remembered[Question, Answer] = Remembered(REMEMBERED)
_outcomes: Remembered[Question, Outcome] = Remembered(2)
"""What the last searches found besides, which may be large: their runners-up are asked for at once, or hardly ever."""
_wholes: Remembered[Answer, Plan] = Remembered(REMEMBERED)


def find_answer(question: Question, request: Request, on_progress: Callable[[Progress], None] | None = None) -> Answer:
    """The plan of a question, runners-up aside. Raises what ``find_plan`` and ``build_question`` raise; that is not
    remembered.
    """
    return _answers.of(question, lambda: _search(question, request, on_progress))


def with_runners_up(answer: Answer, before_each: Callable[[], object] = lambda: None) -> Plan:
    """The plan with the layouts that lost to it. They take as long as the search, so what needs none is drawn first.
    ``before_each``: called before each is placed; what it raises ends the work.
    """
    return _wholes.of(answer, lambda: _rank(answer, before_each))


def _search(question: Question, request: Request, on_progress: Callable[[Progress], None] | None) -> Answer:
    run = run_question(question)
    simulated_s: dict[int, float] = {}

    def keep(outcome: Outcome) -> None:
        simulated_s.update(outcome.tabled_steps_s)
        _outcomes.of(question, lambda: outcome)

    plan = find_plan(replace(request, top=0), on_progress, keep)
    trained = plan.model_copy(update={"training": estimate_training(plan, run)})
    return Answer(question, request, trained, simulated_s)


def _rank(answer: Answer, before_each: Callable[[], object]) -> Plan:
    request, outcome = answer.request, _outcomes.get(answer.question)
    if outcome is None or outcome.best is None:
        found = find_plan(request).alternatives
    else:
        problem = Problem.from_request(request)
        found = list_alternatives(request, problem, outcome, outcome.best, before_each)
    return answer.plan.model_copy(update={"alternatives": found})


def run_question(question: Question) -> RunQuestion:
    """Tokens and price as typed. Raises InvalidSpec, naming option and value."""
    return build_question(tokens=question.tokens or None, price=question.price or None)
