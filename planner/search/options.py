"""Stage options: for every range of layers that a pipeline rank may hold, its fastest mix of policies that fits.

Equal layers are counted, not named. A mix's bytes are what the range takes anyhow, plus what its layers keep (a sum),
plus what its hungriest layer needs while it runs (a maximum). So for each level of that maximum every kind has a Pareto
front of (seconds, kept bytes), and the fastest mix that fits is where the fronts' sum crosses what memory is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from costmodel.layouts import POLICIES, Assignment, Column
from costmodel.memory import PARTS, KeptMicrobatches, estimate_kept_bytes, host_budget_bytes
from costmodel.pipeline import count_copies
from costmodel.price import Priced, PricedLayers, price
from costmodel.schedules import stages_of
from planner.kept import count_kept_microbatches
from planner.order import build_order

MAX_COMPOSITIONS = 20_000
"""Mixes of one kind's layers tried in full, at most (three policies of 140 layers); beyond it, of two policies."""


@dataclass(frozen=True)
class Slot:
    """A rank and the layers it might hold, by kind."""

    rank: int
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Option:
    """A slot with its fastest feasible mix [K, P]: seconds per micro-batch, what its rank waits for sends included, and
    per step outside the passes."""

    mix: Column
    forward_s: float
    backward_s: float
    weight_grad_s: float
    extras_s: float


class _Front(NamedTuple):
    """Mixes [q, K, P] that no other beats in both seconds [q], ascending, and kept bytes [q], descending."""

    mixes: Column
    time_s: Column
    kept_bytes: Column


def stage_options(
    layers: PricedLayers,
    slots: Sequence[Slot],
    policies: tuple[int, ...],
    budget_bytes: float,
    needs_all: bool = False,
    lengths: tuple[int, ...] = (),
) -> dict[Slot, Option]:
    """The fastest mix of every slot whose claimed bytes stay inside the budget; slots that never fit are absent.
    ``needs_all``: nothing at all where one of them never fits. ``lengths``: layers of a copy's stages, if not equal.

    ``layers`` has one row. Memory is priced once a slot, with nothing recomputed; the chosen mixes are priced in full.
    """
    plain = np.zeros((len(slots), len(slots[0].counts), len(POLICIES)))
    plain[:, :, 0] = [slot.counts for slot in slots]
    kept = count_kept_microbatches(build_order(layers), lengths)
    memory = _price(layers, slots, plain, kept).memory
    logits = memory.parts[0, :, PARTS.index("logits")]
    always = memory.claim[0] - memory.apart[0] - logits - memory.parts[0, :, PARTS.index("working")]
    chooser = _Chooser(layers, policies, kept)
    chosen = {}
    for slot, always_bytes, logit_bytes in zip(slots, always.tolist(), logits.tolist(), strict=True):
        mix = chooser.fastest(slot, budget_bytes - always_bytes, logit_bytes)
        if mix is not None:
            chosen[slot] = mix
        elif needs_all:
            return {}
    chosen = _within_host(
        layers, policies, chosen, budget_bytes, dict(zip(slots, zip(always, logits, strict=True), strict=True)), kept
    )
    if not chosen:
        return {}
    priced = _price(layers, list(chosen), np.stack(list(chosen.values())), kept)
    work = priced.work
    return {
        slot: Option(
            mix=mix,
            forward_s=float(work.forward_pass_s[0, i]),
            backward_s=float(work.backward_pass_s[0, i]),
            weight_grad_s=float(work.weight_grad_s[0, i]),
            extras_s=float(priced.extras.exposed_s[0, i]),
        )
        for i, (slot, mix) in enumerate(chosen.items())
    }


def _within_host(
    layers: PricedLayers,
    policies: tuple[int, ...],
    chosen: dict[Slot, Column],
    budget_bytes: float,
    room: dict[Slot, tuple[float, float]],
    kept: KeptMicrobatches,
) -> dict[Slot, Column]:
    """Where the host has no room for what the fastest mix offloads, the fastest that offloads nothing, if one fits."""
    if not chosen:
        return chosen
    limit = host_budget_bytes(layers.setting)
    host = _price(layers, list(chosen), np.stack(list(chosen.values())), kept).memory.host[0]
    if (host <= limit).all():
        return chosen
    own = tuple(policy for policy in policies if not POLICIES[policy].offload)
    chooser = _Chooser(layers, own, kept) if own else None
    within: dict[Slot, Column] = {}
    for (slot, mix), held in zip(chosen.items(), host.tolist(), strict=True):
        if held <= limit:
            within[slot] = mix
        elif chooser is not None:
            always_bytes, logit_bytes = room[slot]
            other = chooser.fastest(slot, budget_bytes - float(always_bytes), float(logit_bytes))
            if other is not None and _price(layers, [slot], other[None], kept).memory.host[0, 0] <= limit:
                within[slot] = other
    return within


def _price(layers: PricedLayers, slots: Sequence[Slot], counts: Column, found: KeptMicrobatches) -> Priced:
    """Each slot's layers, kept as long as the row's own order keeps them."""
    rank = np.array([[slot.rank for slot in slots]])
    layouts = layers.layouts
    stages = stages_of(layouts.schedule_name(0), int(layouts.pp[0]), int(layouts.vpp[0]))
    assignment = Assignment(counts[None], rank, np.ones_like(rank), stages.embedding[rank], stages.head[rank])
    kept = KeptMicrobatches(found.in_flight[:, rank[0]], found.waiting[:, rank[0]], found.unreached[:, rank[0]])
    of_bytes = estimate_kept_bytes(layers.setting, layouts, assignment, layers.costs, layers.index, kept)
    return price(layers, assignment, of_bytes)


class _Chooser:
    """One row's fronts, each built once: by kind, count, level of working memory, and share that waits for W."""

    def __init__(self, layers: PricedLayers, policies: tuple[int, ...], kept: KeptMicrobatches) -> None:
        costs, row = layers.costs, layers.index[0]
        self.policies = policies
        self.held_apart = layers.setting.runtime.memory.held_apart
        self.time_s = layers.backward[0, :-2]
        self.least_s = (self.time_s[:, list(policies)].min(axis=1) * (1.0 + 1e-12)).tolist()
        self.saved_bytes, self.pending_bytes = costs.saved_bytes[row, :-2], costs.pending_bytes[row, :-2]
        self.working_bytes = costs.working_bytes[row, :-2]
        self.levels = self.working_bytes[:, list(policies)].tolist()
        self.fronts: dict[tuple[int, int, float, float], _Front | None] = {}
        self.useful: dict[tuple[int, float, float], tuple[int, ...]] = {}
        copies = float(count_copies(layers.layouts)[0])
        self.in_flight = (kept.in_flight[0] / copies).tolist()
        self.waiting = (kept.waiting[0] / copies).tolist()

    def fastest(self, slot: Slot, left_bytes: float, logit_bytes: float) -> Column | None:
        """The fastest mix [K, P] that takes no more than ``left_bytes`` above policy 0 for all; None if none does."""
        in_flight = self.in_flight[slot.rank]
        waiting = self.waiting[slot.rank] / in_flight
        used = [kind for kind, count in enumerate(slot.counts) if count]
        unit = self.saved_bytes + waiting * self.pending_bytes
        left = left_bytes / in_flight + float(unit[:, 0] @ np.array(slot.counts))
        least_kept = sum(slot.counts[kind] * float(unit[kind, list(self.policies)].min()) for kind in used)
        if least_kept > left:
            return None
        least_s = sum(self.least_s[kind] * slot.counts[kind] for kind in used)
        best, best_s = None, np.inf
        for level in sorted({level for kind in used for level in self.levels[kind]}):
            room = left - (max(level, logit_bytes) + self.held_apart * min(level, logit_bytes)) / in_flight
            if room < 0 or best_s <= least_s:
                break
            found = [self._front(kind, slot.counts[kind], level, waiting, unit) for kind in used]
            fronts = [front for front in found if front is not None]
            fit = _first_fit(fronts, room) if len(fronts) == len(found) else None
            if fit is not None and fit[1] < best_s:
                best, best_s = fit
        return best

    def _front(self, kind: int, count: int, level: float, waiting: float, unit: Column) -> _Front | None:
        """Of ``count`` layers of one kind, under policies that need no more than ``level`` while they run."""
        key = (kind, count, level, waiting)
        if key not in self.fronts:
            cost = np.stack([self.time_s[kind], unit[kind]], axis=-1)
            useful = self._useful(kind, level, waiting, cost)
            self.fronts[key] = _front_of(kind, count, useful, cost, len(unit)) if useful else None
        return self.fronts[key]

    def _useful(self, kind: int, level: float, waiting: float, cost: Column) -> tuple[int, ...]:
        """Policies that need no more than ``level`` and that no other beats in both time and bytes."""
        key = (kind, level, waiting)
        if key not in self.useful:
            within = tuple(policy for policy in self.policies if self.working_bytes[kind, policy] <= level)
            self.useful[key] = _undominated(within, cost)
        return self.useful[key]


def _front_of(kind: int, count: int, policies: tuple[int, ...], cost: Column, num_kinds: int) -> _Front:
    compositions = _compositions(count, len(policies))
    total = compositions @ cost[list(policies)]
    keep = _pareto(total)
    mixes = np.zeros((len(keep), num_kinds, len(POLICIES)))
    mixes[:, kind, list(policies)] = compositions[keep]
    return _Front(mixes, total[keep, 0], total[keep, 1])


def _first_fit(fronts: list[_Front], room_bytes: float) -> tuple[Column, float] | None:
    """(mix, seconds) of the fastest sum of one mix from each front that fits the room."""
    if sum(front.kept_bytes[-1] for front in fronts) > room_bytes:
        return None
    *others, last = fronts
    some = others[0] if others else _Front(np.zeros((1, *last.mixes.shape[1:])), np.zeros(1), np.zeros(1))
    for front in others[1:]:
        some = _summed(some, front)
    # Along the last front seconds rise and bytes fall: the first that fits beside each of the others is its fastest.
    first = np.searchsorted(-last.kept_bytes, some.kept_bytes - room_bytes)
    fits = first < len(last.time_s)
    if not fits.any():
        return None
    first = np.minimum(first, len(last.time_s) - 1)
    time_s = np.where(fits, some.time_s + last.time_s[first], np.inf)
    pick = int(time_s.argmin())
    return some.mixes[pick] + last.mixes[first[pick]], float(time_s[pick])


def _summed(left: _Front, right: _Front) -> _Front:
    """The front of all sums."""
    cost = np.stack([np.add.outer(a, b).ravel() for a, b in zip(left[1:], right[1:], strict=True)], axis=1)
    keep = _pareto(cost)
    one, other = np.divmod(keep, len(right.time_s))
    return _Front(left.mixes[one] + right.mixes[other], cost[keep, 0], cost[keep, 1])


def _undominated(policies: tuple[int, ...], cost: Column) -> tuple[int, ...]:
    """Policies that no other beats in both time and bytes."""
    return tuple(
        p for p in policies
        if not any((cost[q] <= cost[p]).all() and ((cost[q] < cost[p]).any() or q < p) for q in policies if q != p)
    )  # fmt: skip


@lru_cache(maxsize=1024)
def _compositions(count: int, parts: int) -> Column:
    """All ways to give ``count`` equal layers to ``parts`` policies; pairs of policies only where that is too many."""
    if parts == 1:
        return np.array([[float(count)]])
    few = (count + 1) ** (parts - 1) <= MAX_COMPOSITIONS
    if few:
        grids = np.meshgrid(*[np.arange(count + 1)] * (parts - 1), indexing="ij")
        head = np.stack([grid.ravel() for grid in grids], axis=1)
        head = head[head.sum(axis=1) <= count]
        return np.concatenate([head, count - head.sum(axis=1, keepdims=True)], axis=1).astype(np.float64)
    rows = []
    share = np.arange(count + 1)
    for p in range(parts):
        for q in range(p + 1, parts):
            table = np.zeros((count + 1, parts))
            table[:, p], table[:, q] = share, count - share
            rows.append(table)
    return np.concatenate(rows)


def _pareto(cost: Column) -> NDArray[np.intp]:
    """Indices of the undominated rows of [q, 2], by ascending time."""
    order = np.lexsort((cost[:, 1], cost[:, 0]))
    least = np.minimum.accumulate(cost[order, 1])
    keep = np.concatenate([[True], cost[order[1:], 1] < least[:-1]])
    return np.asarray(order[keep])
