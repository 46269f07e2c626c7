"""Answers: questions searched once, and remembered for all who ask the same of this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from costmodel.schema.plan import Plan
from planner.decisions.question import Question as RunQuestion
from planner.decisions.question import build_question
from planner.decisions.training import estimate_training
from planner.request import Request
from planner.search.find import find_plan
from planner.search.run import Progress
from ui.question import Question
from ui.remembered import Remembered

REMEMBERED = 64
"""Answers kept."""


@dataclass(frozen=True)
class Answer:
    """A question, the request that it means, and the plan that was found, with its training run.

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


def find_answer(question: Question, request: Request, on_progress: Callable[[Progress], None] | None = None) -> Answer:
    """The plan of a question. Raises what ``find_plan`` and ``build_question`` raise; that is not remembered."""
    return _answers.of(question, lambda: _search(question, request, on_progress))


def _search(question: Question, request: Request, on_progress: Callable[[Progress], None] | None) -> Answer:
    run = run_question(question)
    simulated_s: dict[int, float] = {}
    plan = find_plan(request, on_progress, lambda outcome: simulated_s.update(outcome.tabled_steps_s))
    trained = plan.model_copy(update={"training": estimate_training(plan, run)})
    return Answer(question, request, trained, simulated_s)


def run_question(question: Question) -> RunQuestion:
    """Tokens and price as typed. Raises InvalidSpec, naming option and value."""
    return build_question(tokens=question.tokens or None, price=question.price or None)
