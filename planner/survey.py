"""What the whole space looks like: every layout in closed form, under the policy that is best for all of its layers.

A survey is for looking at, not for choosing: the search gives every layer a policy of its own and simulates, and so its
answers fit where no uniform policy does, and take less time than the point that is drawn for their layout.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from costmodel.layouts import POLICIES, Column, IntColumn, Layouts
from costmodel.memory import claim_budget_bytes
from costmodel.schema.errors import InvalidSpec
from planner.problem import Problem
from planner.request import Request
from planner.search.first_look import price_uniform
from planner.search.pinned import with_pins
from planner.search.policies import policy_sets
from planner.search.scan import PricedSpace
from planner.search.space import Rows, enumerate_space

MOST_PRICED = 80_000
"""Layouts that are priced; of a larger space every so many-th, and whatever was simulated."""

MOST_DRAWN = 2_000
FASTEST_DRAWN = 500
"""Of those that fit."""

NONE_SIMULATED: Mapping[int, float] = MappingProxyType({})

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Survey:
    """Priced layouts, a row each. ``number``: of the enumerated space; ``policy``: index into POLICIES, of all layers.

    ``peak_bytes``: the device figure of the fullest rank, infinite where the host does not hold its share. ``fits``:
    whether that keeps to the request's P(fits). ``front``: fits, and none that fits is as fast with less memory.
    ``simulated_s``: what the search simulated with its layers placed one by one, NaN where it did not.
    ``considered``: layouts of the space.
    """

    layouts: Layouts
    number: Rows
    policy: IntColumn
    step_time_s: Column
    peak_bytes: Column
    fits: Flags
    front: Flags
    simulated_s: Column
    considered: int

    def __len__(self) -> int:
        return len(self.number)

    def take(self, rows: Rows | Flags) -> Self:
        """Some rows; ``considered`` stays."""
        columns = {
            one.name: getattr(self, one.name) for one in fields(self) if one.name not in ("layouts", "considered")
        }
        return replace(
            self, layouts=self.layouts.take(rows), **{name: column[rows] for name, column in columns.items()}
        )

    def fastest(self, most: int) -> Self:
        """Of those that fit, by rising time."""
        by_time = np.argsort(self.step_time_s, kind="stable")
        return self.take(by_time[self.fits[by_time]][:most])

    def thinned(self, most: int = MOST_DRAWN, fastest: int = FASTEST_DRAWN) -> Self:
        """Rows to draw: the front, whatever was simulated, the ``fastest`` that fit, and of the rest - by rising time -
        every so many-th, ``most`` in all where the first three leave room. What overfills the host is left out."""
        keep = self.front | np.isfinite(self.simulated_s)
        by_time = np.argsort(self.step_time_s, kind="stable")
        keep[by_time[self.fits[by_time]][:fastest]] = True
        rest = by_time[~keep[by_time] & np.isfinite(self.peak_bytes[by_time])]
        keep[rest[_regular(len(rest), max(most - int(keep.sum()), 0))]] = True
        return self.take(keep)

    def policy_name(self, row: int) -> str:
        """``selective``, ``none+offload``, …: of all layers."""
        return POLICIES[int(self.policy[row])].name


def survey_space(
    request: Request, simulated_s: Mapping[int, float] = NONE_SIMULATED, most: int = MOST_PRICED
) -> Survey:
    """Price the request's space, or ``most`` layouts of it in regular distances.

    Each layout is taken under the fastest uniform policy that fits, where none fits under the one that claims least.
    ``simulated_s``: seconds by number, as ``Outcome`` has them.
    Leaves out: stages of unequal length, orders that were found, shares of the optimizer other than none and all.
    Raises InvalidSpec for nodes of several kinds.
    """
    problem = Problem.from_request(request)
    if problem.others:
        raise InvalidSpec("a cluster of several kinds of node has no survey: its layouts are priced one by one")
    policies = tuple(sorted({policy for one in policy_sets(request) for policy in one}))
    space = enumerate_space(request)
    simulated = np.fromiter(simulated_s, np.intp, len(simulated_s))
    numbers = np.union1d(_regular(len(space), most), simulated)
    priced = PricedSpace(with_pins(request, problem, policies), space)
    budget = claim_budget_bytes(problem.setting, request.fit_probability)
    found = price_uniform(priced, numbers, policies, budget)
    peak_bytes = found.claim_bytes * problem.setting.runtime.memory.fragmentation + problem.setting.device.context_bytes
    steps_s = np.full(len(numbers), np.nan)
    steps_s[np.searchsorted(numbers, simulated)] = np.fromiter(simulated_s.values(), np.float64, len(simulated_s))
    return Survey(
        layouts=space.take(numbers), number=numbers, policy=found.policy, step_time_s=found.step_time_s,
        peak_bytes=peak_bytes, fits=found.fits, front=_pareto(found.step_time_s, peak_bytes, found.fits),
        simulated_s=steps_s, considered=len(space),
    )  # fmt: skip


def _pareto(time_s: Column, peak_bytes: Column, fits: Flags) -> Flags:
    """[n] of those that fit, the ones with less memory than all that are as fast."""
    order = np.lexsort((peak_bytes, time_s))
    order = order[fits[order]]
    least = np.minimum.accumulate(np.concatenate([[np.inf], peak_bytes[order]]))[:-1]
    front = np.zeros(len(time_s), bool)
    front[order[peak_bytes[order] < least]] = True
    return front


def _regular(length: int, most: int) -> Rows:
    """At most ``most`` of ``length`` places, in distances that differ by one at most."""
    return np.unique((np.arange(min(length, most)) * (length / max(min(length, most), 1))).astype(np.intp))
