"""What every rank of layouts over unlike groups can take, by its time and its own group's memory.

Worth is as in ``planner.search.groups.floors``. Kinds with a small share of the work are left out, as their memory
would have to be rationed.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from costmodel.kept import estimate_apart_bytes
from costmodel.layer_table import PricedLayers
from costmodel.layouts import POLICIES, Assignment, BoolColumn, Column
from costmodel.memory import estimate_claim_bytes, estimate_communicator_bytes, host_budget_bytes, nvme_budget_bytes
from costmodel.pipeline import (
    GPIPE,
    ONE_F_ONE_B,
    estimate_least_in_flight,
    estimate_least_pending,
    estimate_receive_bytes,
    splits_backward,
)
from costmodel.state import estimate_local_params, estimate_state_bytes
from planner.search.bounds import ROUNDING
from planner.search.groups.floors import end_times_s, layer_worth, least_times_s
from planner.search.groups.rows import MixedRows
from planner.search.worth_limit import WorthLimit
from planner.stage_ends import fewest_by_stage

REACHES = 3
"""How often what earlier ranks must hold is concluded from what later ones can."""

MAIN_SHARE = 0.1
SHORT = 0.99
"""Share of the layers that is said to fit where some rank has no room for any."""


class RankLimits:
    """What every rank of rows that are alike can take of the main kinds, [n, pp]; columns q: (kind, policy) pairs."""

    def __init__(self, rows: MixedRows, policies: tuple[int, ...], budgets: tuple[float, ...], after_s: Column) -> None:
        problem, layouts = rows.problem, rows.layouts
        kinds, chosen, self.homes = problem.num_kinds, list(policies), list(rows.homes)
        self.rows, self.after_s = rows, after_s
        self.m = layouts.num_microbatches.astype(np.float64)[:, None]
        number = np.bincount(problem.kinds, minlength=kinds).astype(np.float64)
        least_s = np.stack([least_times_s(table, policies, kinds) for table in rows.tables], axis=1)
        worth = layer_worth(rows, least_s)
        share = (worth * number).mean(axis=0)
        main = [int(kind) for kind in np.flatnonzero(share >= MAIN_SHARE * share.sum())]
        self.fewest = np.array(fewest_by_stage(problem.setting.model, problem.setting.runtime, len(self.homes)))
        # Of one kind layers are counted, and whole.
        self.whole, self.only_kind = len(main) == 1, kinds == 1
        unit = np.ones_like(worth[:, main]) if self.whole else worth[:, main]
        self.needed = unit @ number[main]
        worth = np.repeat(unit, len(chosen), axis=1)[:, None, :]
        split = splits_backward(layouts)[:, None]
        forward = np.stack([table.forward for table in rows.tables], axis=1)
        # On the way to a rank lies all that earlier ranks do for a micro-batch, or only its forwards.
        before_s = np.where(split[..., None], forward[..., :kinds], least_s)[:, :, main]
        self.least_s = (least_s[:, :, main] / unit[:, None, :]).min(axis=2)[:, self.homes]
        self.least_reach_s = (before_s / unit[:, None, :]).min(axis=2)[:, self.homes]
        times = [table.forward[:, :kinds, None] + table.backward[:, :kinds][:, :, chosen] for table in rows.tables]
        # Of a layer's passes the forward's share, at most: what a rank may have done ahead.
        share = (forward[..., :kinds] / least_s)[:, :, main].max(axis=2)[:, self.homes]
        self._round_trips(share)
        by_group = np.stack(times, axis=1)[:, :, main].reshape(len(rows), len(rows.tables), -1)
        self._sends_and_ends(split, kinds)
        layer_bytes, away_bytes = self._memory(main, chosen, budgets)
        layer_s, self.offloads = by_group[:, self.homes], bool(away_bytes.any())
        self.limit = self.all_limit = WorthLimit(layer_s, layer_bytes, worth)
        if self.offloads:
            self.all_limit = WorthLimit(layer_s, layer_bytes + away_bytes, worth)

    def _round_trips(self, share: Column) -> None:
        """``trips``: where (5) of the stage program holds with a whole backward: 1F1B, and forwards first. With a_s
        forwards ahead of the first backward, f their share and U all passes of one micro-batch:

        T >= U + 2 D + (m - 1) w_s - (a_s - 1) F_s, and F_s is no more than f of its layers' time and its own.
        """
        layouts, pp = self.rows.layouts, len(self.homes)
        first = layouts.schedule[:, None] == GPIPE
        ahead = np.where(first, self.m, pp - np.arange(pp))
        self.trips = (first | (layouts.schedule[:, None] == ONE_F_ONE_B)) & (self.m >= ahead)
        self.trip_own = self.m - ahead
        self.trip_weight = np.maximum(self.m - 1.0 - (ahead - 1.0) * share, 1e-9)

    def _sends_and_ends(self, split: BoolColumn, kinds: int) -> None:
        """``own_s``: what a rank does for a micro-batch beside its layers; ``reach_s``: of that, and of sends, what
        comes before it."""
        tables, edges = self.rows.tables, self.rows.edges
        first, last = self.homes[0], self.homes[-1]
        ends_s = np.zeros((len(self.rows), len(self.homes)))
        ends_s[:, 0] += end_times_s(tables[first], kinds)[:, 0]
        ends_s[:, -1] += end_times_s(tables[last], kinds)[:, 1]
        self.own_s = ends_s
        self.own_s[:, :-1] += edges.busy_s
        self.own_s[:, 1:] += edges.busy_s
        forward_s = np.zeros_like(ends_s)
        forward_s[:, 0] += tables[first].forward[:, kinds]
        forward_s[:, :-1] += edges.busy_s
        before_s = np.where(split, forward_s, self.own_s)
        crossed_s = np.where(split, 1.0, 2.0) * edges.edge_s
        self.reach_s = np.zeros_like(ends_s)
        self.reach_s[:, 1:] = np.cumsum(before_s[:, :-1] + crossed_s, axis=1)
        self.across_s = self.own_s.sum(axis=1) + 2.0 * edges.edge_s.sum(axis=1)

    def _memory(self, main: list[int], chosen: list[int], budgets: tuple[float, ...]) -> tuple[Column, Column]:
        """[n, pp, Q] bytes of a layer on its rank's device, and beside it. Sets ``room`` and ``all_room``, [n, pp] what
        every rank has for layers of the one, and of both."""
        rows, layouts, homes = self.rows, self.rows.layouts, self.homes
        kinds, total = rows.problem.num_kinds, float(len(rows.problem.kinds))
        rank = np.broadcast_to(np.arange(len(homes)), (len(rows), len(homes)))
        in_flight = estimate_least_in_flight(layouts, rank)[..., None]
        waiting = estimate_least_pending(layouts, rank)[..., None]
        table = rows.tables[0]
        empty, empty_gathered = self._state(table, 0, 0.0)
        whole = [self._state(table, kind, total) for kind in main]
        slopes = [(kept - empty) / total for kept, _ in whole]
        gathered = [(copied - empty_gathered) / total for _, copied in whole]
        # What stage 3 gathers levels off with more layers: the chord from none to all lies below, the flattest surely.
        flattest, third = np.min(gathered, axis=0), layouts.zero_stage[:, None] == 3
        columns, away = [], []
        for kind, slope, own in zip(main, slopes, gathered, strict=True):
            slope = slope + np.where(third, flattest, own)
            at = (slice(None), kind, chosen)
            saved, pending = self._by_rank("saved_bytes", at), self._by_rank("pending_bytes", at)
            columns.append(slope[..., None] + in_flight * saved + waiting * pending)
            away.append(in_flight * (self._by_rank("host_bytes", at) + self._by_rank("nvme_bytes", at)))
        fixed = empty + empty_gathered
        fixed[:, 0] += in_flight[:, 0, 0] * self._by_rank("saved_bytes", (slice(None), kinds, 0))[:, 0]
        working = self._by_rank("working_bytes", (slice(None), slice(0, kinds)))[..., chosen].min(axis=(2, 3))
        logits = self._by_rank("saved_bytes", (slice(None), kinds + 1, 0))[:, -1]
        apart = estimate_apart_bytes(table.setting, working[:, -1], logits)
        working[:, -1] = np.maximum(working[:, -1], logits) + apart
        static = estimate_communicator_bytes(table.setting, layouts) + table.setting.runtime.memory.workspace_bytes
        received = estimate_receive_bytes(table.setting, layouts, rank)
        always = fixed + working + estimate_claim_bytes(table.setting, static[:, None], received)
        self.room = np.array([budgets[home] for home in homes]) - always
        settings = [table.setting for table in rows.tables]
        beside = [host_budget_bytes(setting) + nvme_budget_bytes(setting) for setting in settings]
        self.all_room = np.where(self.room >= 0.0, self.room + np.array([beside[home] for home in homes]), -1.0)
        return np.maximum(np.concatenate(columns, axis=-1), 1.0), np.concatenate(away, axis=-1)

    def _by_rank(self, name: str, at: tuple[object, ...]) -> Column:
        """[n, pp, ...] of the layer costs, from each rank's own group."""
        columns = [getattr(table.costs, name)[at][table.index] for table in self.rows.tables]
        return np.asarray(np.stack(columns, axis=1)[:, self.homes])

    def _state(self, table: PricedLayers, kind: int, count: float) -> tuple[Column, Column]:
        """[n, pp] bytes that ``count`` layers of one kind claim on every rank: what is kept, and what is gathered."""
        pp, n = len(self.homes), len(self.rows)
        counts = np.zeros((n, pp, self.rows.problem.num_kinds, len(POLICIES)))
        counts[..., kind, 0] = count
        rank = np.broadcast_to(np.arange(pp), (n, pp))
        assignment = Assignment(counts, rank, np.ones_like(rank), rank == 0, rank == pp - 1)
        params = estimate_local_params(table.setting, table.layouts, assignment)
        if count == 0.0:
            # A rank that holds any layer gathers one, and room is asked for no other rank.
            one = estimate_local_params(table.setting, table.layouts, replace(assignment, counts=counts + 1.0))
            params = replace(params, largest=one.largest)
        state = estimate_state_bytes(table.setting, table.layouts, params)
        kept = state.params + state.grads + state.optimizer
        return estimate_claim_bytes(table.setting, kept, np.zeros_like(kept)), state.gathered.copy()

    def held_share(self) -> Column:
        """[n] what the ranks together could take, however long that took, of what there is."""
        held = ROUNDING * self.limit.most(np.full_like(self.room, np.inf), self.room)
        share = (np.floor(held) if self.whole else held).sum(axis=1) / self.needed
        return np.asarray(np.where(self._all_hold(held), share, np.minimum(share, SHORT)))

    def _all_hold(self, held: Column) -> BoolColumn:
        """[n] whether no rank is left without a layer that needs one."""
        enough = held >= self.fewest if self.only_kind else (self.room >= 0.0) | (self.fewest == 0)
        return np.asarray(enough.all(axis=1))

    def can_reach(self, step_s: Column) -> NDArray[np.bool_]:
        """[n] whether the ranks together could take all layers within ``step_s``.

        A rank that is reached after r_s seconds has (T - r_s) / m for each micro-batch. What the ranks from it on
        cannot take lies before it, and takes its time on the way.
        """
        makespan_s = (step_s / (1.0 + self.rows.jitter) - self.after_s)[:, None]
        soonest_s = np.minimum.accumulate(self.least_reach_s, axis=1)
        held = self._held((makespan_s - self.reach_s) / self.m - self.own_s)
        for _ in range(REACHES):
            from_here = np.cumsum(held[:, ::-1], axis=1)[:, ::-1]
            before = np.maximum(self.needed[:, None] - from_here, 0.0)
            later_s = self.reach_s.copy()
            later_s[:, 1:] += before[:, 1:] * soonest_s[:, :-1]
            time_s = (makespan_s - later_s) / self.m - self.own_s
            around_s = (self.across_s + self._least_passes_s(held))[:, None]
            trip_s = (makespan_s - around_s - self.trip_own * self.own_s) / self.trip_weight
            time_s = np.where(self.trips, np.minimum(time_s, trip_s), time_s)
            held = self._held(time_s)
        # A rank that needs no layer has its end to do all the same.
        in_time = ((time_s + self.own_s) * ROUNDING >= self.own_s).all(axis=1)
        return np.asarray((held.sum(axis=1) >= self.needed) & self._all_hold(held) & in_time)

    def _least_passes_s(self, held: Column) -> Column:
        """[n] seconds of one micro-batch through all layers, as many of them as can be on the faster ranks."""
        order = np.argsort(self.least_s, axis=1)
        room, times_s = (np.take_along_axis(column, order, axis=1) for column in (held, self.least_s))
        taken = np.clip(self.needed[:, None] - (np.cumsum(room, axis=1) - room), 0.0, room)
        return np.asarray((taken * times_s).sum(axis=1))

    def _held(self, time_s: Column) -> Column:
        """[n, pp] worth of layers that fits so many seconds a micro-batch and the rank's memory, and all that is kept
        on the device or beside it the memory of both."""
        held = self.limit.most(time_s, self.room)
        if self.offloads:
            held = np.minimum(held, self.all_limit.most(time_s, self.all_room))
        held = ROUNDING * held
        return np.floor(held) if self.whole else held
