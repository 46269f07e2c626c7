"""A plan priced again on a machine with some figures changed: the same layers, stages and order of passes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log

from costmodel.schema.errors import InvalidSpec
from costmodel.schema.plan import Plan
from planner.evaluate import Evaluated, evaluate
from planner.placement import Placement
from planner.problem import Problem
from planner.sensitivity.figures import FIGURES, Figure, Machine, figure_named

STEP = 0.02
"""Change of a figure's logarithm, either way, from which its elasticity is read."""

LARGEST = 1e3
"""Factors lie between its inverse and this: beyond it no figure of a machine is meant."""


@dataclass(frozen=True)
class Changed:
    """What became of a plan: its step, P(fits) and fullest device."""

    step_time_s: float
    fits_probability: float
    peak_bytes_per_device: float


class Repriced:
    """A plan made ready to be priced many times: its placement and order of passes are read once."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.placement, self.schedule = plan, Placement.from_plan(plan), plan.schedule()

    def changed(self, factors: Mapping[str, float]) -> Changed:
        """As ``reprice_changed``. Milliseconds: what is priced is one row and one simulation."""
        one = self.evaluate_on(changed_machine(self.plan, factors))
        return Changed(one.step_time_s, one.fits_probability, float(one.priced.peak_device_bytes[0]))

    def evaluate_on(self, machine: Machine) -> Evaluated:
        """The plan's placement and order of passes on another machine."""
        (device, *others), cluster = machine
        plan = self.plan
        problem = Problem.on(cluster, device, plan.model, plan.workload, plan.runtime_spec, others)
        return evaluate(problem, self.placement, self.schedule)

    def elasticities(self) -> dict[str, float]:
        """As ``estimate_elasticities``."""
        return {name: self._elasticity(figure) for name, figure in FIGURES.items() if name != "memory"}

    def _elasticity(self, figure: Figure) -> float:
        machine = changed_machine(self.plan, {})
        factor = 1.0 + STEP
        more, less = (self.evaluate_on(figure.scaled(machine, by)).step_time_s for by in (factor, 1.0 / factor))
        return (log(more) - log(less)) / (2.0 * log(factor))


def reprice_changed(plan: Plan, factors: Mapping[str, float]) -> Changed:
    """The plan's step with each named figure times its factor; ``{}`` gives the plan's own.

    Raises UnknownName for a figure there is not; InvalidSpec for a factor that none can have.
    """
    return Repriced(plan).changed(factors)


def changed_machine(plan: Plan, factors: Mapping[str, float]) -> Machine:
    """The plan's devices and cluster with the factors on their figures. Raises as ``reprice_changed``."""
    machine: Machine = (plan.cluster.device_spec, *plan.cluster.other_specs), plan.cluster.spec
    for name, factor in factors.items():
        figure = figure_named(name)
        if not 1.0 / LARGEST <= factor <= LARGEST:
            raise InvalidSpec(f"{figure.name} times {factor:g}: a factor lies between {1 / LARGEST:g} and {LARGEST:g}")
        machine = figure.scaled(machine, factor)
    return machine


def estimate_elasticities(plan: Plan) -> dict[str, float]:
    """d ln T / d ln x of the plan's step for every figure x: -0.8 = one percent more of it saves 0.8 percent.

    Central difference over exp(± STEP). Memory's size moves no time of the same plan, and is left out.
    """
    return Repriced(plan).elasticities()
