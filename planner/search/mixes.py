"""The fastest mix of policies for the layers of one slot that fits what memory is left to them.

Equal layers are counted, not named. A mix's bytes are what its layers keep (a sum) and what its hungriest layer needs
while it runs (a maximum). So for each level of that maximum every kind has a Pareto front of (seconds, kept bytes), and
the fastest mix that fits is where the fronts' sum crosses what memory is left. Where host memory binds as well, that is
asked for every number of offloaded layers that the host has room for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from costmodel.layouts import POLICIES, Column
from costmodel.memory import KeptMicrobatches
from costmodel.pipeline import count_barriers, count_copies
from costmodel.price import PricedLayers

MAX_COMPOSITIONS = 20_000
"""Mixes of one kind's layers tried in full, at most (three policies of 140 layers); beyond it, of two policies."""


@dataclass(frozen=True)
class Slot:
    """A rank and the layers it might hold, by kind."""

    rank: int
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Room:
    """Bytes left to a slot's layers above policy 0 for all of them; the slot's logits; bytes left on the host."""

    left_bytes: float
    logit_bytes: float
    host_bytes: float


class _Front(NamedTuple):
    """Mixes [q, K, P] that no other beats in both seconds [q], ascending, and kept bytes [q], descending."""

    mixes: Column
    time_s: Column
    kept_bytes: Column


class _Found(NamedTuple):
    """A mix [K, P], its seconds, and what it takes of a room, kept bytes and working memory as shares in flight."""

    mix: Column
    time_s: float
    taken_bytes: float


class MixChooser:
    """One row of layer costs and one order of passes: fronts and answers serve all layouts that share both."""

    def __init__(self, layers: PricedLayers, policies: tuple[int, ...], kept: KeptMicrobatches) -> None:
        costs, row = layers.costs, layers.index[0]
        self.policies = policies
        self.held_apart = layers.setting.runtime.memory.held_apart
        self.time_s = layers.backward[0, :-2]
        self.least_s = (self.time_s[:, list(policies)].min(axis=1) * (1.0 + 1e-12)).tolist()
        self.saved_bytes, self.pending_bytes = costs.saved_bytes[row, :-2], costs.pending_bytes[row, :-2]
        self.working_bytes, self.host_bytes = costs.working_bytes[row, :-2], costs.host_bytes[row, :-2]
        self.levels = self.working_bytes[:, list(policies)].tolist()
        self.offloading = tuple(policy for policy in policies if POLICIES[policy].offload)
        self.fronts: dict[tuple[int, int, float, float, tuple[int, ...]], _Front | None] = {}
        self.useful: dict[tuple[int, float, float, tuple[int, ...]], tuple[int, ...]] = {}
        self.found: dict[tuple[Slot, float], list[tuple[Room, float, float, Column]]] = {}
        self.logits_stay = bool(count_barriers(layers.layouts)[0])
        copies = float(count_copies(layers.layouts)[0])
        self.in_flight = (kept.in_flight[0] / copies).tolist()
        self.waiting = (kept.waiting[0] / copies).tolist()

    def least_bytes(self, slots: Sequence[Slot], logit_bytes: Column) -> Column:
        """[S] the least ``left_bytes`` at which some mix of each slot fits, the host aside."""
        ranks, counts = [slot.rank for slot in slots], np.array([slot.counts for slot in slots], np.float64)
        in_flight, waiting = np.array(self.in_flight)[ranks], np.array(self.waiting)[ranks]
        unit = self.saved_bytes + (waiting / in_flight)[:, None, None] * self.pending_bytes
        chosen, least = list(self.policies), np.full(len(slots), np.inf)
        for level in sorted({level for levels in self.levels for level in levels}):
            within = np.where(self.working_bytes <= level, unit, np.inf)[:, :, chosen].min(axis=2)
            kept = np.where(counts > 0, within, 0.0)
            held = [self._held(level, one) for one in logit_bytes.tolist()]
            least = np.minimum(least, (kept * counts).sum(axis=1) * in_flight + held)
        return np.asarray(least - (unit[:, :, 0] * counts).sum(axis=1) * in_flight)

    def fastest(self, slot: Slot, room: Room) -> Column | None:
        """The fastest mix [K, P] that fits the room; None if none does."""
        known = self.found.setdefault((slot, room.logit_bytes), [])
        for asked, needed, on_host, mix in known:
            smaller = room.left_bytes <= asked.left_bytes and room.host_bytes <= asked.host_bytes
            if smaller and needed <= room.left_bytes and on_host <= room.host_bytes:
                return mix
        in_flight = self.in_flight[slot.rank]
        plain = float(self._unit(slot)[:, 0] @ np.array(slot.counts))
        found = self._within(slot, room, plain, self.policies, slot.counts)
        on_host = 0.0 if found is None else self._on_host(slot, found.mix)
        if found is not None and on_host > room.host_bytes:
            found = self._within_host(slot, room, plain)
            on_host = 0.0 if found is None else self._on_host(slot, found.mix)
        if found is None:
            return None
        known.append((room, (found.taken_bytes - plain) * in_flight, on_host, found.mix))
        return found.mix

    def _within(
        self, slot: Slot, room: Room, plain: float, policies: tuple[int, ...], counts: tuple[int, ...],
        kept_bytes: float = 0.0, least_level: float = 0.0,
    ) -> _Found | None:  # fmt: skip
        """The fastest mix of ``counts`` layers beside others that keep ``kept_bytes`` and need ``least_level``."""
        in_flight, unit = self.in_flight[slot.rank], self._unit(slot)
        waiting = self.waiting[slot.rank] / in_flight
        left = room.left_bytes / in_flight + plain - kept_bytes
        used = [kind for kind, count in enumerate(counts) if count]
        if sum(counts[kind] * float(unit[kind, list(policies)].min()) for kind in used) > left:
            return None
        least_s = sum(self.least_s[kind] * counts[kind] for kind in used)
        best: _Found | None = None
        for level in self._levels(slot):
            held = self._held(level, room.logit_bytes) / in_flight
            if held > left or (best is not None and best.time_s <= least_s):
                break
            if level < least_level:
                continue
            found = [self._front(kind, counts[kind], level, waiting, unit, policies) for kind in used]
            fronts = [front for front in found if front is not None]
            fit = _first_fit(fronts, left - held, unit.shape[0]) if len(fronts) == len(found) else None
            if fit is not None and (best is None or fit.time_s < best.time_s):
                best = fit._replace(taken_bytes=fit.taken_bytes + kept_bytes + held)
        return best

    def _within_host(self, slot: Slot, room: Room, plain: float) -> _Found | None:
        """The fastest over every number of layers of each kind that are offloaded, as far as the host has room."""
        own = tuple(policy for policy in self.policies if policy not in self.offloading)
        unit, in_flight = self._unit(slot), self.in_flight[slot.rank]
        best: _Found | None = None
        for policy in self.offloading:
            for offloaded in product(*(range(count + 1) for count in slot.counts)):
                away = np.array(offloaded)
                if float(self.host_bytes[:, policy] @ away) * in_flight > room.host_bytes:
                    continue
                rest = tuple(count - gone for count, gone in zip(slot.counts, offloaded, strict=True))
                if any(rest) and not own:
                    continue
                level = float(self.working_bytes[away > 0, policy].max(initial=0.0))
                found = self._within(slot, room, plain, own or (policy,), rest, float(unit[:, policy] @ away), level)
                time_s = np.inf if found is None else found.time_s + float(self.time_s[:, policy] @ away)
                if found is not None and (best is None or time_s < best.time_s):
                    mix = found.mix.copy()
                    mix[:, policy] += away
                    best = _Found(mix, time_s, found.taken_bytes)
        return best

    def _unit(self, slot: Slot) -> Column:
        """[K, P] bytes a layer keeps for each micro-batch in flight."""
        waiting = self.waiting[slot.rank] / self.in_flight[slot.rank]
        return np.asarray(self.saved_bytes + waiting * self.pending_bytes)

    def _levels(self, slot: Slot) -> list[float]:
        return sorted({level for kind, count in enumerate(slot.counts) if count for level in self.levels[kind]})

    def _held(self, level: float, logit_bytes: float) -> float:
        """Bytes that only live while a layer runs, beside the logits."""
        if self.logits_stay:
            return level + logit_bytes
        return max(level, logit_bytes) + float(self.held_apart) * min(level, logit_bytes)

    def _on_host(self, slot: Slot, mix: Column) -> float:
        return float((mix * self.host_bytes).sum() * self.in_flight[slot.rank])

    def _front(
        self, kind: int, count: int, level: float, waiting: float, unit: Column, policies: tuple[int, ...]
    ) -> _Front | None:
        """Of ``count`` layers of one kind, under policies that need no more than ``level`` while they run."""
        key = (kind, count, level, waiting, policies)
        if key not in self.fronts:
            cost = np.stack([self.time_s[kind], unit[kind]], axis=-1)
            useful = self._useful(kind, level, waiting, cost, policies)
            self.fronts[key] = _front_of(kind, count, useful, cost, len(unit)) if useful else None
        return self.fronts[key]

    def _useful(
        self, kind: int, level: float, waiting: float, cost: Column, policies: tuple[int, ...]
    ) -> tuple[int, ...]:
        """Policies that need no more than ``level`` and that no other beats in both time and bytes."""
        key = (kind, level, waiting, policies)
        if key not in self.useful:
            within = tuple(policy for policy in policies if self.working_bytes[kind, policy] <= level)
            self.useful[key] = _undominated(within, cost)
        return self.useful[key]


def _front_of(kind: int, count: int, policies: tuple[int, ...], cost: Column, num_kinds: int) -> _Front:
    compositions = _compositions(count, len(policies))
    total = compositions @ cost[list(policies)]
    keep = _pareto(total)
    mixes = np.zeros((len(keep), num_kinds, len(POLICIES)))
    mixes[:, kind, list(policies)] = compositions[keep]
    return _Front(mixes, total[keep, 0], total[keep, 1])


def _first_fit(fronts: list[_Front], room_bytes: float, num_kinds: int) -> _Found | None:
    """The fastest sum of one mix from each front that fits the room."""
    if not fronts:
        return _Found(np.zeros((num_kinds, len(POLICIES))), 0.0, 0.0)
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
    kept = float(some.kept_bytes[pick] + last.kept_bytes[first[pick]])
    return _Found(some.mixes[pick] + last.mixes[first[pick]], float(time_s[pick]), kept)


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
