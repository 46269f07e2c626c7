"""What the certificate claims, checked: the answer against exhaustive search, bounds against simulated placements."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from random import Random

import numpy as np
from drawn_instances import MOST_ROWS, Instance, open_policies, settled
from exhaustive import TooLarge, best_placement, kept_of, random_placement
from floors import memory_floor_bytes, time_floor_s
from small_instances import price_space
from small_mixed import best_of_all, run_of, splits

from costmodel.layer_table import PricedLayers, price_layers
from costmodel.memory import claim_budget_bytes
from costmodel.price import price
from costmodel.schema.errors import Infeasible
from planner.evaluate import Evaluated, evaluate
from planner.placement import Placement
from planner.problem import Problem
from planner.request import Request
from planner.search.bounds import mean_state_bytes
from planner.search.find import find_plan
from planner.search.floor import estimate_step_floor_s
from planner.search.groups.floors import estimate_after_s
from planner.search.groups.tight import held_shares
from planner.search.groups.tight import tighten as tighten_mixed
from planner.search.offload import ShareSizes, shares_offload
from planner.search.pinned import pin_costs, with_pins
from planner.search.policies import policy_sets
from planner.search.run import Outcome, Run
from planner.search.scan import Found, Scan
from planner.search.space import enumerate_space
from planner.search.tight import tighten

ROUNDING = 1.0 + 1e-9
SAME = 1.0 + 1e-6
"""Times this near are equal: solvers stop at such tolerances."""


@dataclass(frozen=True)
class Answer:
    """``step_s``, ``gap``, ``bound_s``, ``status``: what the search says; ``best_s``: of everything that was tried,
    and ``any_mix_s``: with any mix of policies on each stage, None where that is too much to try. inf: nothing fits."""

    instance: Instance
    layouts: int
    step_s: float
    gap: float
    bound_s: float
    status: str
    best_s: float
    any_mix_s: float | None
    wrong: tuple[str, ...]

    @property
    def excess(self) -> float:
        """Of the answer over the best of everything, as a share."""
        return self.step_s / self.best_s - 1.0 if self.best_s < np.inf else 0.0


def check_answer(instance: Instance, any_mix: bool = False) -> Answer:
    """Every layout x every split in the window x every mix of policies. Raises TooLarge."""
    request = instance.request
    layouts, best_s = try_everything(request)
    any_mix_s = None
    if any_mix and not request.other_devices:
        with suppress(TooLarge):
            any_mix_s = try_everything(request, any_mix=True)[1]
    try:
        plan = find_plan(request)
    except Infeasible:
        wrong = () if best_s == np.inf else (f"nothing found, and {best_s} s is possible",)
        return Answer(instance, layouts, np.inf, 0.0, np.inf, "infeasible", best_s, any_mix_s, wrong)
    certificate, step_s = plan.certificate, plan.prediction.step_time_s.mean
    gap, bound_s = certificate.gap or 0.0, certificate.lower_bound_s or 0.0
    checks = {
        "the bound is above the optimum": bound_s <= best_s * SAME,
        "the floor is above the optimum": estimate_step_floor_s(request) <= best_s * SAME,
        "faster than everything": step_s >= best_s / SAME,
        "beyond its own gap": best_s >= step_s * (1.0 - gap) / SAME,
        "proven, beyond the gap that was asked": certificate.status != "proven" or gap <= request.gap,
        "stopped": certificate.status != "stopped",
        "does not fit": plan.prediction.memory.fits_probability >= request.fit_probability / SAME,
        "layouts are not accounted for": certificate.considered
        == certificate.evaluated + sum(certificate.pruned.values()),
    }
    wrong = tuple(name for name, right in checks.items() if not right)
    return Answer(instance, layouts, step_s, gap, bound_s, certificate.status, best_s, any_mix_s, wrong)


def try_everything(request: Request, any_mix: bool = False) -> tuple[int, float]:
    """How many layouts there are, and the step time of the best placement of the best; infinite when nothing fits."""
    if request.other_devices:
        return _try_mixed(request)
    _, layers = price_space(request)
    problem, sets, pinned = settled(request), policy_sets(request), open_policies(request)
    budget_bytes = claim_budget_bytes(problem.setting, request.fit_probability)
    found = []
    for row in range(len(layers.layouts)):
        one = layers.take(np.array([row]))
        shapes = shapes_of(request, problem, one) if pinned else None
        found.append(best_placement(problem, one, sets, budget_bytes, any_mix, pinned, shapes))
    return len(found), min((best.step_time_s for best in found if best is not None), default=np.inf)


def _try_mixed(request: Request) -> tuple[int, float]:
    run = run_of(request, MOST_ROWS, Random(0))
    found = [best_of_all(run, row, run.budgets) for row in range(len(run.rows))]
    return len(found), min((best.step_time_s for best in found if best is not None), default=np.inf)


def shapes_of(request: Request, problem: Problem, layers: PricedLayers) -> tuple[Problem, PricedLayers]:
    """Problem and costs of one layout as pins leave them."""
    policies = tuple(sorted({policy for one in policy_sets(request) for policy in one}))
    pinned = with_pins(request, problem, policies)
    return pinned, pin_costs(price_layers(pinned.setting, pinned.network, layers.layouts), pinned.pinned)


@dataclass(frozen=True)
class Checked:
    """One layout with one placement: bounds as shares of what was simulated. More than 1 is wrong."""

    instance: Instance
    floor: float
    tight: float
    memory: float
    said: str

    @property
    def wrong(self) -> tuple[str, ...]:
        shares = {"time floor": self.floor, "tight bound": self.tight, "memory floor": self.memory}
        return tuple(name for name, share in shares.items() if share > ROUNDING)


def check_layouts(instance: Instance, most: int) -> list[Checked]:
    """Some layouts of the instance's space as the search bounds them, each with a placement at random that is
    simulated, and tight bounds where memory is ample, and where it is just enough for that placement."""
    if instance.request.other_devices:
        return _check_mixed_layouts(instance, most)
    request, draw = instance.request, Random(instance.seed)
    run = Run(request, Problem.from_request(request), Outcome(enumerate_space(request)), 0.0, None)
    problem = run.problem
    sizes = ShareSizes(request, problem, run.policies, run.budget) if shares_offload(request) else None
    scan = Scan(problem, run.priced, run.policies, 1e18, sizes)
    found = Found.join([scan.look(rows, float("inf")) for rows in scan.blocks()])
    found = Found.join([found, scan.size_shares(Found.join(scan.hosted), float("inf"))])
    rows = draw.sample(range(len(found.numbers)), min(most, len(found.numbers)))
    found = found.take(np.array(sorted(rows), np.intp))
    layers = run.priced.take(found.numbers)
    # Of stages whose lengths are given the search knows the state alone.
    floor = mean_state_bytes if problem.pinned.lengths else memory_floor_bytes
    floors = floor(layers, problem.kinds, problem.num_kinds, run.policies)
    simulated = []
    for row in range(len(layers.layouts)):
        one = layers.take(np.array([row]))
        placement = random_placement(draw, problem, one, draw.choice(run.sets))
        policies = tuple(map(problem.pinned.policy, problem.kinds, placement.policies))
        evaluated = evaluate(problem, replace(placement, policies=policies), layers=one)
        simulated.append((evaluated.step_time_s, claimed_bytes(problem, one, placement, evaluated), placement))
    step_s, claims = (np.array([one[at] for one in simulated]) for at in (0, 1))
    tight, soonest = np.zeros(len(simulated)), found.bounds
    if not problem.pinned.lengths:
        late_s = 2.0 * float(step_s.max())
        about = (found.bounds, found.after_s)
        tight = np.minimum(tighten(problem, layers, run.policies, 1e18, *about, late_s), late_s)
        for row, (just_s, claim, _) in enumerate(simulated):
            one = layers.take(np.array([row]))
            about = (found.bounds[[row]], found.after_s[[row]])
            # inf where the bound says that not even this placement is possible.
            found_s = float(tighten(problem, one, run.policies, claim, *about, just_s * ROUNDING)[0])
            tight[row] = max(tight[row], found_s)
        about = (problem.kinds, problem.num_kinds, run.policies)
        soonest = np.maximum(soonest, time_floor_s(layers, *about, claims))
    return [
        Checked(instance, *shares, f"{placement}")
        for *shares, (_, _, placement) in zip(soonest / step_s, tight / step_s, floors / claims, simulated, strict=True)
    ]


def _check_mixed_layouts(instance: Instance, most: int) -> list[Checked]:
    """The same over unlike groups of nodes, where every rank has its own group's memory."""
    draw = Random(instance.seed)
    run = run_of(instance.request, most, draw)
    after_s, total = estimate_after_s(run.rows, run.policies), len(run.problem.kinds)
    checked = []
    for row in range(len(run.rows)):
        one = run.rows.take(np.array([row]))
        lengths = draw.choice(list(splits(total, len(one.homes), run.problem.setting.runtime)))
        policies, each = draw.choice(run.sets), draw.random() < 0.5
        chosen = [draw.choice(policies) for _ in range(total)] if each else [draw.choice(policies)] * total
        ranges = tuple(stop - start for start, stop in lengths)
        placement = Placement(one.layouts.row(0), one.layouts.schedule_name(0), ranges, tuple(chosen))
        evaluated = evaluate(run.problem, placement, layers=one.tables)
        step_s, homes = evaluated.step_time_s, np.array(one.homes)
        claims = [float(evaluated.priced.memory.claim[0][homes == home].max()) for home in range(max(homes) + 1)]
        about = (run.bounds[[row]], after_s[[row]])
        tight = max(
            float(tighten_mixed(one, run.policies, budgets, *about, best_s)[0])
            for budgets, best_s in (((1e18,) * len(claims), step_s * 2.0), (tuple(claims), step_s * ROUNDING))
        )
        share = float(held_shares(one, run.policies, tuple(claims))[0])
        checked.append(
            Checked(instance, float(run.bounds[row]) / step_s, tight / step_s, 1.0 / max(share, 1e-30), str(placement))
        )
    return checked


def claimed_bytes(problem: Problem, layers: PricedLayers, placement: Placement, evaluated: Evaluated) -> float:
    """What the placement claims, and would were all stages of a rank kept as long as their mean: the search leaves out
    what fits in one way only."""
    assignment = placement.assignment(problem.kinds, problem.num_kinds).on_axis(layers.costs.num_policies)
    at_mean = price(layers, assignment, kept_of(layers, assignment, placement.layers_per_stage))
    return max(float(evaluated.priced.peak_claim_bytes[0]), float(at_mean.peak_claim_bytes[0]))
