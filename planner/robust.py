"""The best plan under what is not known of the model's figures: draws of them, the same for every candidate.

    T_jc = t_c · exp(Δ_jc + s_c ε_j)

t_c: candidate c's simulated step. Δ_jc: change of the logarithm of its closed form under draw j of the fitted factors
and, where the device was measured here, of the calibration's parameters. s_c: spread of its corner of the published
runs, ε_j one standard normal number for all. The score is the QUANTILE of T_jc over j, among candidates whose mean
P(fits) over j is high enough. Every draw is used with its negative, so that the mean of each factor's logarithm is 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from costmodel.calibration.apply import applies_to
from costmodel.calibration.parameters import read_path, write_path
from costmodel.kept import KeptBytes
from costmodel.layer_table import price_layers
from costmodel.layouts import Assignment, Column, Layouts
from costmodel.memory import claim_budget_bytes
from costmodel.price import price
from costmodel.schema.calibration import Calibration
from costmodel.schema.fit import Fit
from costmodel.schema.plan import Robustness
from planner.evaluate import Evaluated, kept_bytes
from planner.problem import Problem
from planner.request import Request
from planner.search.place import place
from planner.search.reasons import next_rows
from planner.search.run import Outcome
from planner.spread import corner_of, corner_spread, draw_from, sampled, with_factors

DRAWS = 64
QUANTILE = 0.9
CANDIDATES = 12
"""Rows placed beside the fastest, at most."""

SPARE = 0.8
"""Each is placed a second time, with this share of the odds of not fitting taken away."""


@dataclass(frozen=True)
class Scores:
    """Of candidates, [c]: the QUANTILE of step time and the mean P(fits) over the draws."""

    quantile_s: Column
    fits_probability: Column


def choose_robust(
    request: Request, problem: Problem, outcome: Outcome, fastest: Evaluated
) -> tuple[Evaluated, Robustness]:
    """The candidate with the best score, the fastest by mean among them. ``problem``: with the model's own kinds.

    Where none has the P(fits) that is asked, the one that fits most often.
    """
    candidates = [fastest, *near_optimal(request, problem, outcome)]
    scores = score(problem, candidates, request.fit, request.calibration)
    enough = scores.fits_probability >= request.fit_probability
    ranked = scores.quantile_s if enough.any() else -scores.fits_probability
    pick = int(np.where(enough | ~enough.any(), ranked, np.inf).argmin())
    chosen = candidates[pick]
    return chosen, Robustness(
        draws=DRAWS,
        quantile=QUANTILE,
        candidates=len(candidates),
        quantile_s=float(scores.quantile_s[pick]),
        fits_probability=float(scores.fits_probability[pick]),
        fastest_step_time_s=fastest.step_time_s,
        fastest_quantile_s=float(scores.quantile_s[0]),
        fastest_fits_probability=float(scores.fits_probability[0]),
    )


def near_optimal(request: Request, problem: Problem, outcome: Outcome) -> list[Evaluated]:
    """The rows that did best or look most promising, each placed within the memory asked and within less."""
    run = outcome.run
    if run is None:
        return []
    less = 1.0 - (1.0 - request.fit_probability) * (1.0 - SPARE)
    budgets = [run.budget, claim_budget_bytes(problem.setting, less)]
    found = []
    for row in list(dict.fromkeys(next_rows(outcome)))[:CANDIDATES]:
        rows = np.array([row])
        for budget in budgets:
            placed = place(run.problem, run.priced.take(rows), np.zeros(1), run.sets, budget, float("inf"))
            found += [one.evaluated for one in placed if one.evaluated is not None]
    return found


def score(problem: Problem, candidates: list[Evaluated], fit: Fit, calibration: Calibration | None) -> Scores:
    """Every candidate under every draw."""
    size = len(fit.parameters)
    noise = np.random.default_rng(0).standard_normal((DRAWS // 2, size + 1 + _size(calibration)))
    noise = np.concatenate([noise, -noise])
    moved = _moved(problem, fit, calibration, noise)
    table = _Table(problem, candidates)
    log_s, _ = table.price(problem)
    corner = np.array(
        [
            corner_spread(fit, corner_of(problem, one.placement.layout), problem.setting.runtime.spread)
            for one in candidates
        ]
    )
    mean_s = np.array([one.step_time_s for one in candidates])
    steps, fits = [], []
    for index, other in enumerate(moved):
        log_moved, fit_moved = table.price(other)
        steps.append(mean_s * np.exp(log_moved - log_s + corner * noise[index, size]))
        fits.append(fit_moved)
    return Scores(np.quantile(steps, QUANTILE, axis=0), np.mean(fits, axis=0))


def _size(calibration: Calibration | None) -> int:
    return 0 if calibration is None else len(calibration.parameters)


def _moved(problem: Problem, fit: Fit, calibration: Calibration | None, noise: Column) -> list[Problem]:
    """The problem under each draw: [draws, p + 1 + q] normal numbers for the fit, the corner and the calibration."""
    size = len(fit.parameters)
    problems = [
        sampled(problem, with_factors(fit, draw)) if size else problem
        for draw in draw_from(fit.covariance, noise[:, :size])
    ]
    if calibration is None:
        return problems
    draws = draw_from(calibration.covariance, noise[:, size + 1 :])
    return [_calibrated(one, calibration, draw) for one, draw in zip(problems, draws, strict=True)]


def _calibrated(problem: Problem, calibration: Calibration, draw: Column) -> Problem:
    """With each measured parameter times exp(draw); shares of something do not pass 1."""
    device, cluster = problem.setting.device, problem.cluster
    for parameter, moved in zip(calibration.parameters, draw.tolist(), strict=True):
        if applies_to(calibration, parameter.name, cluster):
            value = read_path(device, cluster, parameter.name) * float(np.exp(moved))
            value = min(value, 1.0) if parameter.unit == "fraction" else value
            device, cluster = write_path(device, cluster, parameter.name, value)
    return replace(
        problem, setting=replace(problem.setting, device=device, host=cluster.groups[0].host), cluster=cluster
    )


class _Table:
    """The candidates as rows of one table, their ranks padded to the longest."""

    def __init__(self, problem: Problem, candidates: list[Evaluated]) -> None:
        self.layouts = Layouts.from_rows([(one.placement.layout, one.placement.schedule) for one in candidates])
        kinds, number = problem.kinds, problem.num_kinds
        assignments = [one.placement.assignment(kinds, number) for one in candidates]
        kept = []
        for row, one in enumerate(candidates):
            layers = price_layers(problem.setting, problem.network, self.layouts.take([row]))
            kept.append(kept_bytes(layers, one.placement, problem, one.schedule))
        self.assignment = Assignment(**_padded([vars(one) for one in assignments]))
        self.kept = KeptBytes(**_padded([vars(one) for one in kept]))

    def price(self, problem: Problem) -> tuple[Column, Column]:
        """[c] ln closed-form step time, P(fits)."""
        layers = price_layers(problem.setting, problem.network, self.layouts)
        priced = price(layers, self.assignment, self.kept)
        return np.log(priced.step_time_s), priced.fits_probability


def _padded(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """[1, S, ...] columns of unlike S as [c, longest S, ...]; the padding is zero, and stands for no rank."""
    longest = max(next(iter(row.values())).shape[1] for row in rows)

    def padded(column: Any) -> Any:
        missing = longest - column.shape[1]
        return np.pad(column, [(0, 0), (0, missing)] + [(0, 0)] * (column.ndim - 2))

    return {name: np.concatenate([padded(row[name]) for row in rows]) for name in rows[0]}
