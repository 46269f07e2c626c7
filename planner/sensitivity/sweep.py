"""The usual changes of a machine, one at a time: the same plan's step, and whether another layout would win."""

from __future__ import annotations

from dataclasses import dataclass

from costmodel.schema.plan import Plan
from planner.evaluate import Evaluated
from planner.request import request_from_plan
from planner.search.find import find_best
from planner.search.reasons import layout_line
from planner.sensitivity.figures import FIGURES
from planner.sensitivity.reprice import Changed, Repriced, changed_machine

CHANGES: tuple[tuple[str, float], ...] = (
    ("network", 2.0), ("network", 0.5), ("network_in_node", 0.5), ("network_between_nodes", 0.5),
    ("memory", 1.1), ("memory", 0.9), ("compute", 1.1), ("compute", 0.9), ("memory_bandwidth", 0.9),
    ("host_link", 2.0), ("host_link", 0.5),
)  # fmt: skip
"""(figure, factor) that are asked unless told otherwise."""


@dataclass(frozen=True)
class Outcome:
    """One change. ``plan``: the same plan's step; ``best_step_time_s``, ``best_line``: the fastest layout's then, None
    where none was looked for or found; ``reason``: why none was found.
    """

    figure: str
    factor: float
    plan: Changed
    best_step_time_s: float | None = None
    best_line: str | None = None
    reason: str | None = None

    def wins(self, margin: float, fit_probability: float) -> bool:
        """Whether another layout is faster by more than ``margin``, or the plan no longer fits."""
        if self.best_step_time_s is None:
            return False
        fits = self.plan.fits_probability >= fit_probability
        return not fits or self.best_step_time_s < self.plan.step_time_s * (1.0 - margin)


@dataclass(frozen=True)
class Sensitivity:
    """``base``: nothing changed. ``elasticities``: d ln T / d ln x by figure."""

    base: Changed
    outcomes: tuple[Outcome, ...]
    elasticities: dict[str, float]


def sweep(
    plan: Plan, changes: tuple[tuple[str, float], ...] = CHANGES, search: bool = True, time_limit_s: float = 5.0
) -> Sensitivity:
    """Every change by itself. ``search``: look for the best layout under each, ``time_limit_s`` seconds each at most,
    within the plan's own constraints.

    Raises UnknownName and InvalidSpec as ``reprice_changed`` does.
    """
    found = []
    ready = Repriced(plan)
    for name, factor in changes:
        changed = ready.changed({name: factor})
        if not search:
            found.append(Outcome(name, factor, changed))
            continue
        best = _best(plan, name, factor, time_limit_s)
        if best is None:
            found.append(Outcome(name, factor, changed, reason="no layout was found that fits"))
        else:
            found.append(Outcome(name, factor, changed, best.step_time_s, layout_line(best)))
    return Sensitivity(ready.changed({}), tuple(found), ready.elasticities())


def _best(plan: Plan, name: str, factor: float, time_limit_s: float) -> Evaluated | None:
    (device, *others), cluster = changed_machine(plan, {FIGURES[name].name: factor})
    request = request_from_plan(
        plan, device=device, other_devices=tuple(others), cluster=cluster, time_limit_s=time_limit_s, top=0
    )
    return find_best(request)
