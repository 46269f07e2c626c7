"""What every stage of a layout can take within a step time and a memory budget: the tight bound's question.

Kinds with a small share of the work are left out of it (their memory would have to be rationed), which only loosens the
bound - but for those at either end of the model, which a rank there has to take before any other layer. What a layer is
worth is its least time, so that kinds can stand in for one another; where one kind is left, layers are whole.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from costmodel.columns import distinct_rows
from costmodel.even_split import even_split
from costmodel.kept import estimate_apart_bytes
from costmodel.layer_table import PricedLayers
from costmodel.layouts import Assignment, Column, IntColumn
from costmodel.memory import estimate_claim_bytes, estimate_communicator_bytes
from costmodel.pipeline import (
    GPIPE,
    INTERLEAVED,
    ONE_F_ONE_B,
    count_sends,
    estimate_least_in_flight,
    estimate_least_pending,
    estimate_receive_bytes,
    splits_backward,
)
from costmodel.stages import stages_of
from costmodel.state import estimate_local_params, estimate_state_bytes
from planner.problem import Problem
from planner.search.bounds import ROUNDING, most_shift, split_ends_s
from planner.search.given_shares import given_shares, no_shares
from planner.search.split_paths import SplitPaths, WayBack
from planner.search.splits import is_given
from planner.search.worth_limit import WorthLimit
from planner.stage_ends import fewest_at_ends

MAIN_SHARE = 0.1


class StageLimits:
    """What every rank of rows whose stages lie alike can take, [n, pp]; columns q are (kind, policy) pairs, [n, Q].

    A rank's seconds are the mean over copies: each micro-batch crosses one of them.
    """

    def __init__(
        self, problem: Problem, layers: PricedLayers, policies: tuple[int, ...], budget_bytes: float, after_s: Column
    ) -> None:
        layouts, kinds = layers.layouts, problem.num_kinds
        chosen = list(policies)
        number = np.bincount(problem.kinds, minlength=kinds).astype(np.float64)
        pp, vpp = int(layouts.pp[0]), int(layouts.vpp[0])
        self.layers, self.pp, self.total = layers, pp, len(problem.kinds)
        self.m = layouts.num_microbatches.astype(np.float64)[:, None]
        self.v = vpp
        self.stages = stages_of(layouts.schedule_name(0), pp, vpp)
        self.given = is_given(layouts)
        copies = float(self.stages.copies)
        self.schedule, self.edge_s = layouts.schedule[:, None], layers.edge_s[:, None]
        forward = layers.forward[:, :kinds]
        time = forward[:, :, None] + layers.backward[:, :kinds][:, :, chosen]
        least = time.min(axis=2)
        self.work_s = (least @ number)[:, None]
        self.all_forward_s = (forward @ number)[:, None]
        self.split = splits_backward(layouts)[:, None]
        self.least_backward_s = (least - forward).min(axis=1)[:, None]
        ends = layers.forward[:, kinds:] + layers.backward[:, kinds:, 0]
        end_share = (layers.forward[:, kinds:] / np.maximum(ends, 1e-30)).max(axis=1)
        self.share = np.maximum((forward / least).max(axis=1), end_share)[:, None]
        self.ends_s = np.zeros((len(layouts), pp)) + split_ends_s(layers, kinds)[1][:, None]
        if int(layouts.vocab_over[0]) == 1:
            self.ends_s += (self.stages.embedding * ends[:, :1] + self.stages.head * ends[:, 1:]) / copies
        sends = np.add(*count_sends(layouts, np.arange(pp)[None, :]))
        self.ends_s += sends * layers.busy_s[:, None]
        self.sent_s = vpp * layers.busy_s[:, None]
        self.shift = most_shift(layers, kinds)[:, None]
        self.main = self._main_kinds(number, least)
        self.alone = len(self.main) == 1
        worth = np.zeros_like(least)
        worth[:, self.main] = 1.0 if self.alone else least[:, self.main]
        self.needed = copies * (worth @ number)
        self.fewest = fewest_at_ends(problem.setting.model, problem.setting.runtime)
        self.shares = given_shares(problem, layers, worth, least) if self.given else no_shares(len(layouts), pp)
        layer_bytes = self._memory(problem, layers, chosen, budget_bytes)
        layer_s = time[:, self.main].reshape(len(layouts), 1, -1) / copies
        self.limit = WorthLimit(layer_s, layer_bytes, np.repeat(worth[:, self.main], len(chosen), axis=1)[:, None, :])
        for rank, runs in self._end_runs(problem.kinds):
            self.taken_s[:, rank] += least[:, runs].sum(axis=1)
        self.start, stop = self._windows()
        self.reach_s = self._reach_s(problem.kinds, forward, least)
        way = WayBack(problem, layers, policies)
        self.through_s = way.through_s
        self.split_paths = None
        if self.split.any() and not self.given:
            self.split_paths = SplitPaths(problem, layers, policies, way, self.start, stop)
        self.after_s = after_s

    def _main_kinds(self, number: Column, least: Column) -> list[int]:
        share = (least * number).mean(axis=0)
        return [int(kind) for kind in np.flatnonzero(share >= MAIN_SHARE * share.sum())]

    def _end_runs(self, kinds: list[int]) -> list[tuple[int, list[int]]]:
        """(rank, kinds of the layers before the first of a main kind, or after the last): a rank that is free in its
        layers and takes one of a main kind takes these first; and there is no main kind before it to take."""
        at = [index for index, kind in enumerate(kinds) if kind in self.main]
        if self.given:
            return []
        return [(0, kinds[: at[0]]), (self.pp - 1, kinds[at[-1] + 1 :])]

    def _windows(self) -> tuple[IntColumn, IntColumn]:
        """[n, pp] the first layer with which a stage may begin, and the last before which it may end, where the split
        is free."""
        cuts = np.concatenate([[0], np.cumsum(even_split(self.total, self.pp))])
        start = np.maximum(cuts[:-1] - self.shift, np.maximum(np.arange(self.pp) - 1 + self.fewest, 0))
        return start.astype(np.intp), np.minimum(cuts[1:] + self.shift, self.total).astype(np.intp)

    def _reach_s(self, kinds: list[int], forward: Column, least: Column) -> Column:
        """[n, pp] seconds on the way to a rank and back, sends included: of a split backward only on the way there."""
        rank = np.arange(self.pp)
        crossings = np.where(self.split, 1.0, 2.0)
        if self.given:
            # Of two copies the nearer end's: the second one's stages lie the other way round.
            depth = rank if self.stages.copies == 1 else np.minimum(rank, self.pp - 1 - rank)
            return np.asarray(self.shares.way_s[:, depth] + depth * crossings * self.edge_s)
        layer_s = np.where(self.split, forward[:, kinds], least[:, kinds])
        before_s = np.concatenate([np.zeros((len(layer_s), 1)), np.cumsum(layer_s, axis=1)], axis=1)
        ends_s = np.where(self.split, 0.0, np.cumsum(self.ends_s, axis=1) - self.ends_s)
        return np.asarray(np.take_along_axis(before_s, self.start, axis=1) + ends_s + crossings * rank * self.edge_s)

    def _memory(self, problem: Problem, layers: PricedLayers, chosen: list[int], budget_bytes: float) -> Column:
        """[n, pp, Q] bytes that a layer takes, from the cost model at no layers and all. Sets ``budget``, what is left
        for layers."""
        layouts, kinds = layers.layouts, problem.num_kinds
        rank = np.broadcast_to(np.arange(self.pp), (len(layouts), self.pp))
        costs, index = layers.costs, layers.index
        saved, working, pending = costs.saved_bytes[index], costs.working_bytes[index], costs.pending_bytes[index]
        whole_in_flight = estimate_least_in_flight(layouts, rank)
        in_flight = whole_in_flight * self.shares.evenness
        waiting = estimate_least_pending(layouts, rank) * self.shares.evenness
        copies = self.stages.copies
        empty, empty_gathered = self._state(problem, layers, 0, 0.0)
        runs = self._end_runs(problem.kinds)
        slopes, gathered = {}, {}
        for kind in {*self.main, *(kind for _, run in runs for kind in run)}:
            whole, whole_gathered = self._state(problem, layers, kind, float(self.total))
            slopes[kind] = (whole - empty) / self.total
            gathered[kind] = (whole_gathered - empty_gathered) / self.total
        # What stage 3 gathers levels off with more layers: the chord from none to all lies below, the flattest surely.
        flattest = np.min(list(gathered.values()), axis=0)
        third = layouts.zero_stage[:, None] == 3
        fixed = empty + empty_gathered

        def bytes_of(kind: int) -> Column:
            kept = [
                (in_flight * saved[:, kind, policy][:, None] + waiting * pending[:, kind, policy][:, None]) / copies
                for policy in chosen
            ]
            own = slopes[kind] + np.where(third, flattest, gathered[kind])
            return np.maximum(np.stack(kept, axis=-1) + own[..., None], 1.0)

        self.taken_s, self.taken_bytes = np.zeros_like(fixed), np.zeros_like(fixed)
        for at, run in runs:
            for kind in run:
                self.taken_bytes[:, at] += bytes_of(kind)[:, at].min(axis=-1)
        # A micro-batch of one copy of two, or of one stage of several, keeps its embedding there alone.
        here = 1.0 / (copies * self.v)
        fixed += self.stages.embedding * whole_in_flight * saved[:, kinds, 0][:, None] * here
        transient = np.broadcast_to(working[:, :kinds].min(axis=(1, 2))[:, None], fixed.shape).copy()
        logits = saved[:, kinds + 1, 0][:, None]
        at_head = np.maximum(transient, logits) + estimate_apart_bytes(layers.setting, transient, logits)
        transient = np.where(self.stages.head, at_head, transient)
        buffers = estimate_receive_bytes(layers.setting, layouts, rank)
        kept = estimate_communicator_bytes(layers.setting, layouts)[:, None]
        kept = kept + layers.setting.runtime.memory.workspace_bytes
        self.budget = budget_bytes - fixed - transient - estimate_claim_bytes(layers.setting, kept, buffers)
        return np.concatenate([bytes_of(kind) for kind in self.main], axis=-1)

    def _state(self, problem: Problem, layers: PricedLayers, kind: int, count: float) -> tuple[Column, Column]:
        """[n, pp] bytes that ``count`` layers of one kind claim on every rank: what is kept, and what is gathered."""
        stages = self.stages
        # Ranks differ in the ends that they hold alone.
        rank, like = distinct_rows(stages.embedding + 2 * stages.head)
        counts = np.zeros((len(layers.layouts), len(rank), problem.num_kinds, 1))
        counts[..., kind, 0] = count
        assignment = Assignment(
            counts, rank[None], np.ones_like(rank)[None], stages.embedding[None, rank], stages.head[None, rank]
        )
        params = estimate_local_params(layers.setting, layers.layouts, assignment)
        if count == 0.0:
            # A rank that holds any layer gathers one, and room is asked for no other rank.
            one = estimate_local_params(layers.setting, layers.layouts, replace(assignment, counts=counts + 1.0))
            params = replace(params, largest=one.largest)
        state = estimate_state_bytes(layers.setting, layers.layouts, params)
        kept = state.params + state.grads + state.optimizer
        kept = estimate_claim_bytes(layers.setting, kept, np.zeros_like(kept))
        return kept[:, like], state.gathered[:, like]

    def can_reach(self, step_s: Column) -> NDArray[np.bool_]:
        """[n] whether the stages together could take all layers within ``step_s``."""
        makespan = step_s / (1.0 + self.layers.jitter) - self.after_s * self.layers.contention
        time_s = self._stage_time_s(makespan[:, None]) - self.ends_s
        held = ROUNDING * self.limit.most(time_s - self.taken_s, self.budget - self.taken_bytes)
        enough = (np.maximum(time_s, 0.0).sum(axis=1) * ROUNDING >= self.work_s[:, 0]) & (
            held.sum(axis=1) >= self.needed
        )
        # An end has to be done wherever it lies; where the split is one of a few, so has a rank's least share of them.
        enough &= ((time_s + self.ends_s) * ROUNDING >= self.shares.own_s + self.ends_s).all(axis=1)
        enough &= makespan * ROUNDING >= self.through_s
        if self.given and self.pp > 1:
            return np.asarray(enough & (held >= self.shares.worth).all(axis=1))
        if self.pp == 1 or not self.alone:
            return np.asarray(enough)
        even = np.array(even_split(self.total, self.pp), np.float64)
        return np.asarray(np.minimum(np.floor(held), even + self.shift).sum(axis=1) >= self.needed)

    def _stage_time_s(self, makespan: Column) -> Column:
        """[n, pp] the most seconds a micro-batch may take on each stage: the least over the schedule's paths.

        reach and drain:  (T - what earlier stages hold at least, there and back) / m
        round trip:       (T - W - 2 (p-1) d) / c_s, c_s = m - 1 - (p-s-1) f for 1f1b (m >= p-s), m - 1 for gpipe;
                          interleaved: (T - all F - (p-1) chunks' B) / (m - a f), a the chunks ahead of the first B, / v
                          where sends block, what the forwards ahead waited for them is added to T
        split backward:   as ``split_paths`` has them
        """
        rank = np.arange(self.pp, dtype=np.float64)[None, :]
        interleaved = self.schedule == INTERLEAVED
        time_s = (makespan - self.reach_s) / self.m
        whole = self.work_s + self.ends_s.sum(axis=1, keepdims=True) + 2.0 * (self.pp - 1) * self.edge_s
        chain = self.all_forward_s + self.shares.chain * self.least_backward_s
        whole = np.where(interleaved, chain, whole)
        ahead = self.pp - rank - 1.0
        ahead = np.where(interleaved, (2.0 * ahead + (self.v - 1.0) * self.pp + 1.0) / self.v, ahead)
        saved = np.where(self.schedule == GPIPE, 0.0, ahead * self.share)
        weight = self.m - np.where(interleaved, 0.0, 1.0) - saved
        waited = np.where(self.schedule == GPIPE, 0.0, ahead * self.sent_s)
        round_trip = (makespan - whole + waited) / np.maximum(weight, 1e-9)
        enough = (self.m >= self.pp - rank) & np.where(interleaved, self.m >= ahead, True)
        pipelined = (self.schedule == ONE_F_ONE_B) | interleaved
        applies = ((self.schedule == GPIPE) | (pipelined & enough)) & (weight > 0)
        time_s = np.where(applies, np.minimum(time_s, round_trip), time_s)
        return time_s if self.split_paths is None else np.minimum(time_s, self.split_paths.most_s(makespan))
