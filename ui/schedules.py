"""The plan's layout under its own schedule and under every other that it could run."""

from __future__ import annotations

from dataclasses import dataclass

from costmodel.even_split import even_split
from costmodel.schedules import SCHEDULES as FORMS
from costmodel.schema.errors import ParlayError
from costmodel.schema.plan import Plan
from planner.evaluate import Evaluated, evaluate, evaluate_plan
from planner.placement import Placement
from planner.predict import check_layout
from planner.request import request_from_plan
from planner.schedules import SCHEDULES
from planner.search.schedule_choice import named, say_against


@dataclass(frozen=True)
class Tried:
    """One schedule of the plan's layout, simulated; ``fits``: as surely as the plan's own question asks."""

    name: str
    evaluated: Evaluated
    fits: bool


def try_schedules(plan: Plan) -> list[Tried]:
    """The plan as it is, then - where it has a pipeline - its degrees under every other schedule that the runtime and
    the sizes allow, the fastest first. Layers keep their recomputation and, where the number of stages is the same,
    their stages; elsewhere stages are of equal length.
    """
    layout, wanted, own = plan.layout, plan.constraints.fit_probability, evaluate_plan(plan)
    itself = Tried(plan.pipeline.schedule, own, own.fits_probability >= wanted)
    if layout.pp == 1:
        return [itself]
    request, placement = request_from_plan(plan, constrained=False), own.placement
    tried: list[Tried] = []
    for name, kind in SCHEDULES.items():
        if name not in FORMS or name == plan.pipeline.schedule:
            continue
        vpp = layout.vpp if kind.allows(layout.pp, layout.num_microbatches, layout.vpp) else kind.vpp
        other = layout.model_copy(update={"vpp": vpp, "vocab_parallel": FORMS[name].barriers > 0})
        lengths = placement.layers_per_stage
        if len(lengths) != layout.pp * vpp or (other.vocab_parallel and not all(lengths)):
            lengths = tuple(even_split(len(plan.layers), layout.pp * vpp))
        try:
            check_layout(request, other, name, "none")
            evaluated = evaluate(own.problem, Placement(other, name, lengths, placement.policies))
        except ParlayError:
            continue
        tried.append(Tried(name, evaluated, evaluated.fits_probability >= wanted))
    return [itself, *sorted(tried, key=lambda one: one.evaluated.step_time_s)]


def say_instead(own: Evaluated, other: Tried) -> str:
    """Why the plan's own schedule stands against another: time, bubble, memory, and whether the other fits at all."""
    theirs = other.evaluated
    if theirs.step_time_s < own.step_time_s:
        said = f"{named(theirs)} instead of {named(own)}: {say_against(theirs, own)}"
    else:
        said = f"{named(own)} instead of {named(theirs)}: {say_against(own, theirs)}"
    return f"{said}." if other.fits else f"{said}; {other.name} does not fit, P(fits) {theirs.fits_probability:.0%}."
