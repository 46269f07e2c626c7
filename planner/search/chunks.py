"""Place a layout whose ranks hold several stages, or share the vocabulary: the split of layers is given, so only mixes
of policies are left to choose."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import numpy as np
from numpy.typing import NDArray

from costmodel.even_split import counts_per_rank
from costmodel.kept import KeptBytes
from costmodel.layer_table import PricedLayers
from costmodel.layouts import Column
from costmodel.memory import host_budget_bytes, nvme_budget_bytes
from costmodel.price import price
from costmodel.schedules import SCHEDULES
from costmodel.schema.schedule import Schedule
from costmodel.stages import stages_of
from planner.evaluate import Evaluated, cores_per_pipeline, kept_bytes, stage_times
from planner.order import build_order, with_frozen
from planner.placement import Placement
from planner.problem import Problem
from planner.search.bounds import ROUNDING
from planner.search.mixes import Slot
from planner.search.options import SlotRooms
from planner.search.placed import Placed, deal, dealt_by, repeated
from planner.search.splits import splits_of_row
from planner.simulator import Simulation, StageTimes, simulate

TRIES = 6
"""How often a mix that its order keeps longer than the mean of its stages is chosen again under less memory. What else
may fit is looked through where it matters (``refine.py``)."""


def place_given(
    problem: Problem, layers: PricedLayers, after_s: Column, policies: tuple[int, ...], budget_bytes: float,
    best_s: float,
) -> list[Placed]:  # fmt: skip
    """The best placement of every row in ``layers`` over its splits, each with every rank's fastest mix that fits.

    Rows share layer costs, sends and order of passes, so what one is dealt is simulated for all. Only the fastest row
    comes with its evaluation, if it beats ``best_s``. ``after_s``: [n] seconds after the passes at least.
    """
    splits = [
        _Split(problem, layers, after_s, lengths, policies, budget_bytes, best_s)
        for lengths in splits_of_row(problem, layers)
    ]
    step_s = np.min([split.step_s for split in splits], axis=0)
    bound_s = np.min([split.bound_s for split in splits], axis=0)
    placed = [
        Placed(None, float(bound), any(split.slower[row] for split in splits), float(step_s[row]))
        for row, bound in enumerate(bound_s)
    ]
    best = int(step_s.argmin())
    if step_s[best] < best_s:
        split = min(splits, key=lambda one: float(one.step_s[best]))
        placed[best] = replace(placed[best], evaluated=split.evaluated(best))
    return placed


class _Split:
    """All rows under one split of the layers. ``step_s``: [n] the step where a placement fits and was looked for, inf
    elsewhere; ``bound_s``: no mix is faster, inf where none fits; ``slower``: it may fit, but cannot beat ``best_s`` or
    another row.
    """

    def __init__(
        self,
        problem: Problem,
        layers: PricedLayers,
        after_s: Column,
        lengths: tuple[int, ...],
        policies: tuple[int, ...],
        budget_bytes: float,
        best_s: float,
    ) -> None:
        n = len(layers.layouts)
        self.after_s, self.best_s = after_s * layers.contention, best_s
        self.problem, self.layers, self.lengths, self.budget_bytes = problem, layers, lengths, budget_bytes
        self.layout, self.name = layers.layouts.row(0), layers.layouts.schedule_name(0)
        self.schedule = build_order(layers)
        self.step_s, self.bound_s = np.full(n, inf), np.full(n, inf)
        self.simulated: dict[tuple[int, ...], tuple[Schedule, StageTimes, Simulation, KeptBytes]] = {}
        self.dealt: dict[int, tuple[int, ...]] = {}
        self.deals: dict[tuple[int, ...], tuple[list[Column], tuple[int, ...]]] = {}
        fastest = _fastest_times(problem, layers, lengths, policies)
        floor_s = self._in_all_s(_fastest_s(problem, layers, fastest))
        self.slower = floor_s >= best_s
        self.bound_s[self.slower] = floor_s[self.slower]
        if self.slower.all():
            return
        homes = stages_of(self.name, self.layout.pp, self.layout.vpp).stage_to_rank
        counts = counts_per_rank(problem.kinds, problem.num_kinds, lengths, homes)
        slots = [Slot(rank, tuple(counts[rank].tolist())) for rank in range(self.layout.pp)]
        self.backward_s = layers.backward[0, :-2]
        self.least_backward_s = counts @ self.backward_s[:, list(policies)].min(axis=1)
        self.least_ends_s = least_ends_s(self.schedule, fastest)
        rooms = SlotRooms(layers, slots, policies, lengths)
        self._place(rooms, np.flatnonzero(rooms.can_fit(budget_bytes).all(axis=1) & ~self.slower), floor_s)

    def _place(self, rooms: SlotRooms, rows: NDArray[np.intp], floor_s: Column) -> None:
        """Deal every row its fastest mixes; again under less memory where the order keeps them longer than counted, and
        at last the leanest."""
        spared, budgets = np.zeros((len(self.step_s), 3)), self._budgets()
        tolerated = budgets * np.array([ROUNDING - 1.0, 0.0, 0.0])
        leanest: set[int] = set()
        for attempt in range(TRIES):
            # Later mixes fit less memory; and those of pinned layers that cost what others do are as fast as others,
            # but not as dealt.
            settled = not attempt and not self.problem.pinned.instead
            shares: dict[tuple[int, ...], list[int]] = {}
            for row in rows.tolist():
                mixes = [
                    rooms.fastest(row, at, self.budget_bytes - spared[row, 0], spared[row, 1:].tolist())
                    for at in range(len(rooms.slots))
                ]
                if attempt and (attempt == TRIES - 1 or any(mix is None for mix in mixes)):
                    mixes = rooms.leanest(row)
                    leanest.add(row)
                found = [mix for mix in mixes if mix is not None]
                if len(found) < len(mixes):
                    continue
                least_s = self._least_s(found, row)
                if not attempt:
                    # What is chosen later fits less memory, and is no faster.
                    floor_s[row] = max(floor_s[row], least_s)
                if least_s < self.best_s:
                    shares.setdefault(self._deal(found), []).append(row)
                else:
                    self.slower[row], self.bound_s[row] = True, floor_s[row]
            again: list[int] = []
            for dealt, members in shares.items():
                alike = self._promising(dealt, np.array(members), floor_s, settled)
                if not len(alike):
                    continue
                over = self._price(dealt, alike)
                for row, excess in zip(alike.tolist(), over, strict=True):
                    if (excess <= tolerated).all():
                        self.dealt[row] = dealt
                        self.bound_s[row] = self.step_s[row] if settled else min(floor_s[row], self.step_s[row])
                    else:
                        self.step_s[row], self.bound_s[row] = inf, floor_s[row]
                        spared[row] += np.where(excess > tolerated, np.clip(excess, 1e-3 * budgets, budgets), 0.0)
                        if row not in leanest:
                            again.append(row)
            rows = np.array(again, np.intp)
            if not again:
                break
        self.slower |= np.isfinite(self.step_s)

    def _least_s(self, mixes: list[Column], row: int) -> float:
        """What a row's step takes at least, by what each rank's mix takes beyond its fastest."""
        more_s = (np.array(mixes) * self.backward_s).sum(axis=(1, 2)) - self.least_backward_s
        each = self.schedule.num_microbatches // self.schedule.copies
        return float(self._in_all_s(float((self.least_ends_s + each * more_s).max()))[row])

    def _deal(self, mixes: list[Column]) -> tuple[int, ...]:
        """What ``deal`` says, once for the same mixes: the chooser gives rows that share one the same object."""
        key = tuple(map(id, mixes))
        if key not in self.deals:
            dealt = deal(self.problem, self.lengths, dealt_by(self.layers), mixes)
            # Held, so that no other mix gets the name of one of these.
            self.deals[key] = (mixes, dealt)
        return self.deals[key][1]

    def _promising(
        self, policies: tuple[int, ...], rows: NDArray[np.intp], floor_s: Column, settled: bool
    ) -> NDArray[np.intp]:
        """Of rows that are dealt alike, those that may still beat the incumbent. ``settled``: by these mixes alone."""
        times = stage_times(self.layers, self._placement(policies, 0), self.problem)
        step_s = self._in_all_s(float(least_ends_s(self.schedule, times).max()))[rows]
        slow = step_s >= self.best_s
        self.slower[rows[slow]] = True
        self.bound_s[rows[slow]] = np.maximum(step_s if settled else 0.0, floor_s[rows])[slow]
        return rows[~slow]

    def _in_all_s(self, makespan_s: float) -> Column:
        """[n] seconds of every row's step at least."""
        return np.asarray((makespan_s + self.after_s) * (1.0 + self.layers.jitter))

    def _price(self, policies: tuple[int, ...], rows: NDArray[np.intp]) -> Column:
        """[rows, 3] bytes over the budgets of device, host and drives of rows that are dealt alike; sets their step
        times."""
        some, placement = self.layers.take(rows), self._placement(policies, 0)
        if policies not in self.simulated:
            times = stage_times(self.layers, placement, self.problem)
            order = with_frozen(self.schedule, times)
            simulation = simulate(order, times, cores_per_pipeline(self.problem, placement))
            kept = kept_bytes(self.layers, placement, self.problem, self.schedule)
            self.simulated[policies] = (order, times, simulation, kept)
        _, _, simulation, kept = self.simulated[policies]
        assignment = placement.assignment(self.problem.kinds, self.problem.num_kinds, some.costs.num_policies)
        priced = price(some, repeated(assignment, len(rows)), repeated(kept, len(rows)))
        last_s = priced.extras.exposed_s.max(axis=1) * some.contention
        self.step_s[rows] = (simulation.makespan_s + last_s) * (1.0 + some.jitter)
        memory = priced.memory
        claims = [priced.peak_claim_bytes, memory.host.max(axis=1), memory.nvme.max(axis=1)]
        return np.stack(claims, axis=1) - self._budgets()

    def _budgets(self) -> Column:
        """Bytes of device, host and drives."""
        setting = self.layers.setting
        return np.array([self.budget_bytes, host_budget_bytes(setting), nvme_budget_bytes(setting)])

    def _placement(self, policies: tuple[int, ...], row: int) -> Placement:
        return Placement(self.layers.layouts.row(row), self.name, self.lengths, policies)

    def evaluated(self, row: int) -> Evaluated:
        """One placed row in full."""
        policies, problem, one = self.dealt[row], self.problem, self.layers.take(np.array([row]))
        placement = self._placement(policies, row)
        order, times, simulation, kept = self.simulated[policies]
        assignment = placement.assignment(problem.kinds, problem.num_kinds, one.costs.num_policies)
        priced = price(one, assignment, kept)
        return Evaluated(problem, placement, order, times, priced, simulation)


def least_ends_s(schedule: Schedule, times: StageTimes) -> Column:
    """[ranks] seconds that no order of the same passes beats: a rank's work, after the forwards on the way to its first
    stage of one copy and, unless weight gradients may come last, before the backwards on the way back.
    """
    work_s = times.forward_s + times.input_grad_s + times.weight_grad_s + times.recompute_s
    way_s = times.forward_s if schedule.splits_backward else work_s
    per_copy, homes = schedule.stages_per_copy, np.array(schedule.stage_to_rank)
    busy_s = np.bincount(homes, work_s) * (schedule.num_microbatches // schedule.copies)
    reach_s = np.full(len(busy_s), inf)
    for copy in range(schedule.copies):
        own = slice(copy * per_copy, (copy + 1) * per_copy)
        np.minimum.at(reach_s, homes[own], np.cumsum(way_s[own]) - way_s[own])
    return np.asarray(busy_s + reach_s)


def _fastest_times(
    problem: Problem, layers: PricedLayers, lengths: tuple[int, ...], policies: tuple[int, ...]
) -> StageTimes:
    """Every layer under its fastest policy, whatever memory it needs: no mix is faster."""
    backward = layers.backward[0, :-2][:, list(policies)].argmin(axis=1)
    fastest = tuple(policies[backward[kind]] for kind in problem.kinds)
    placement = Placement(layers.layouts.row(0), layers.layouts.schedule_name(0), lengths, fastest)
    return stage_times(layers, placement, problem)


def _fastest_s(problem: Problem, layers: PricedLayers, times: StageTimes) -> float:
    """Seconds of the passes on the timeline; where ranks share cores, all their work divided by the cores."""
    layouts, cores = layers.layouts, problem.setting.shared_cores
    world, pp, m = int(layouts.world_size[0]), int(layouts.pp[0]), int(layouts.num_microbatches[0])
    if cores is None or cores >= world:
        return simulate(build_order(layers), times).makespan_s
    passes_s = times.forward_s + times.input_grad_s + times.weight_grad_s + times.recompute_s
    copies = SCHEDULES[layouts.schedule_name(0)].copies
    return float(passes_s.sum()) / copies * m * world / pp / cores
