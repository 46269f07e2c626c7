"""The fastest mix of policies for the layers of one slot that fits what memory is left to them.

Equal layers are counted, not named. A mix's bytes are what its layers keep (a sum) and what its hungriest layer needs
while it runs (a maximum). So for each level of that maximum every kind has a Pareto front of (seconds, kept bytes), and
the fastest mix that fits is where the fronts' sum crosses what memory is left. Where what the fastest mix sends away
does not fit the host, or its drives, the fronts are taken again with those bytes as costs of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal, NamedTuple

import numpy as np

from costmodel.kept import KeptMicrobatches
from costmodel.layer_table import PricedLayers
from costmodel.layouts import Column
from costmodel.pipeline import count_barriers, count_copies
from planner.search.fronts import (
    MAX_COMPOSITIONS,
    Fit,
    Front,
    count_compositions,
    first_fit,
    front_of,
    undominated,
)
from planner.search.rounding import round_corner

Resource = Literal["host", "nvme"]


@dataclass(frozen=True)
class Slot:
    """A rank and the layers it might hold, by kind."""

    rank: int
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Room:
    """Bytes left to a slot's layers above policy 0 for all of them; the slot's logits; bytes left on the host and on
    the node's drives."""

    left_bytes: float
    logit_bytes: float
    host_bytes: float
    nvme_bytes: float = float("inf")


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
        self.working_bytes, self.pinned_bytes = costs.working_bytes[row, :-2], costs.pinned_bytes[row, :-2]
        self.away_bytes = {"host": costs.host_bytes[row, :-2], "nvme": costs.nvme_bytes[row, :-2]}
        self.fronts: dict[tuple[int, int, tuple[int, ...], float, tuple[Resource, ...]], Front] = {}
        self.useful: dict[tuple[int, float, float, float, tuple[Resource, ...]], tuple[int, ...]] = {}
        self.nothing = np.zeros(self.time_s.shape)
        self.found: dict[tuple[Slot, float], list[tuple[Room, float, dict[Resource, float], Column]]] = {}
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
        empty = ~counts.any(axis=1)
        for level in self._levels(self.working_bytes):
            within = np.where(self.working_bytes <= level, unit, np.inf)[:, :, chosen].min(axis=2)
            kept = np.where(counts > 0, within, 0.0)
            working = np.where(empty, 0.0, level).tolist()
            held = [self._held(one, logits) for one, logits in zip(working, logit_bytes.tolist(), strict=True)]
            least = np.minimum(least, (kept * counts).sum(axis=1) * in_flight + held)
        return np.asarray(least - (unit[:, :, 0] * counts).sum(axis=1) * in_flight)

    def least_held(self, slots: Sequence[Slot], logit_bytes: Column) -> Column:
        """[S] bytes that only live while a layer runs, of each slot's hungriest layer under its leanest policy."""
        present = np.array([slot.counts for slot in slots]) > 0
        level = np.where(present, self.working_bytes[:, list(self.policies)].min(axis=1), 0.0).max(axis=1)
        return np.array([self._held(*one) for one in zip(level.tolist(), logit_bytes.tolist(), strict=True)])

    def fastest(self, slot: Slot, room: Room) -> Column | None:
        """The fastest mix [K, P] that fits the room; None if none does."""
        if not any(slot.counts):
            return self.nothing if self._held(0.0, room.logit_bytes) <= room.left_bytes else None
        known = self.found.setdefault((slot, room.logit_bytes), [])
        for asked, needed, away, mix in known:
            smaller = all(
                getattr(room, name) <= getattr(asked, name) for name in ("left_bytes", "host_bytes", "nvme_bytes")
            )
            if smaller and needed <= room.left_bytes and not _short(away, room):
                return mix
        in_flight = self.in_flight[slot.rank]
        plain = float(self.unit_bytes(slot)[:, 0] @ np.array(slot.counts))
        short: tuple[Resource, ...] = ()
        while True:
            found = self._within(slot, room, plain, short)
            if found is None:
                return None
            away = self._away(slot, found.mix)
            also = _short(away, room)
            if not also:
                break
            short += also
        known.append((room, (found.taken_bytes - plain) * in_flight, away, found.mix))
        return found.mix

    def _within(self, slot: Slot, room: Room, plain: float, short: tuple[Resource, ...]) -> _Found | None:
        """The fastest mix that fits the device, and of the other resources those in ``short``."""
        in_flight, unit = self.in_flight[slot.rank], self.unit_bytes(slot)
        left = room.left_bytes / in_flight + plain
        used = [kind for kind, count in enumerate(slot.counts) if count]
        if sum(slot.counts[kind] * float(unit[kind, list(self.policies)].min()) for kind in used) > left:
            return None
        least_s = sum(self.least_s[kind] * slot.counts[kind] for kind in used)
        best: _Found | None = None
        caps = self._levels(self.pinned_bytes, used) if "host" in short else [np.inf]
        for cap in caps:
            tried: list[tuple[int, ...]] = []
            for level in self._levels(self.working_bytes, used):
                held = self._held(level, room.logit_bytes) / in_flight
                if held > left or (best is not None and best.time_s <= least_s):
                    break
                useful = [self._useful(kind, level, cap, slot, short) for kind in used]
                if useful == tried or not all(useful):
                    continue  # a higher level that lets nothing new in
                tried = useful
                beside = [(room.host_bytes - cap if name == "host" else room.nvme_bytes) / in_flight for name in short]
                fit = self._fit(slot, dict(zip(used, useful, strict=True)), short, np.array([left - held, *beside]))
                if fit is not None and (best is None or fit.cost[0] < best.time_s):
                    best = _Found(fit.mix, float(fit.cost[0]), float(fit.cost[1]) + held)
        return best

    def _fit(
        self, slot: Slot, useful: dict[int, tuple[int, ...]], short: tuple[Resource, ...], room: Column
    ) -> Fit | None:
        """The fastest mix of ``useful`` policies by kind within ``room`` [1 + short]: of all mixes, unless resources
        are short and mixes many; then of those near the linear program's best corner."""
        many = prod(count_compositions(slot.counts[kind], len(policies)) for kind, policies in useful.items())
        if short and many > MAX_COMPOSITIONS:
            costs = [self._cost(kind, slot, short)[list(policies)] for kind, policies in useful.items()]
            rounded = round_corner(tuple(slot.counts[kind] for kind in useful), costs, room)
            if rounded is not None:
                mix = np.zeros(self.time_s.shape)
                for (kind, policies), given in zip(useful.items(), rounded[0], strict=True):
                    mix[kind, list(policies)] = given
                return Fit(mix, rounded[1])
        fronts = [self._front(kind, slot.counts[kind], policies, slot, short) for kind, policies in useful.items()]
        return first_fit(fronts, room, self.time_s.shape)

    def _cost(self, kind: int, slot: Slot, short: tuple[Resource, ...]) -> Column:
        """[P, 2 + short] seconds, bytes kept and bytes away of one layer."""
        return np.stack(
            [self.time_s[kind], self.unit_bytes(slot)[kind], *(self.away_bytes[name][kind] for name in short)], axis=-1
        )

    def unit_bytes(self, slot: Slot) -> Column:
        """[K, P] bytes a layer keeps for each micro-batch in flight."""
        return np.asarray(self.saved_bytes + self._waiting(slot) * self.pending_bytes)

    def _waiting(self, slot: Slot) -> float:
        return float(self.waiting[slot.rank] / self.in_flight[slot.rank])

    def _levels(self, column: Column, kinds: Sequence[int] | slice = slice(None)) -> list[float]:
        """What the hungriest of some kinds' layers may need, by ``column`` [K, P]."""
        return sorted(set(column[kinds][:, list(self.policies)].ravel().tolist()))

    def _held(self, level: float, logit_bytes: float) -> float:
        """Bytes that only live while a layer runs, beside the logits."""
        if self.logits_stay:
            return level + logit_bytes
        return max(level, logit_bytes) + float(self.held_apart) * min(level, logit_bytes)

    def _away(self, slot: Slot, mix: Column) -> dict[Resource, float]:
        """Bytes that a mix keeps on the host, those on their way to a drive included, and on the drives."""
        host, nvme = (
            float((mix * self.away_bytes[name]).sum() * self.in_flight[slot.rank]) for name in self.away_bytes
        )
        return {"host": host + float(np.where(mix > 0, self.pinned_bytes, 0.0).max()), "nvme": nvme}

    def _front(
        self, kind: int, count: int, policies: tuple[int, ...], slot: Slot, short: tuple[Resource, ...]
    ) -> Front:
        key = (kind, count, policies, self._waiting(slot), short)
        if key not in self.fronts:
            cost = self._cost(kind, slot, short)
            self.fronts[key] = front_of(kind, count, policies, cost, len(self.time_s))
        return self.fronts[key]

    def _useful(self, kind: int, level: float, cap: float, slot: Slot, short: tuple[Resource, ...]) -> tuple[int, ...]:
        """Policies that need no more than ``level`` while they run, and than ``cap`` of the host, and that no other
        beats."""
        key = (kind, level, cap, self._waiting(slot), short)
        if key not in self.useful:
            working, pinned = self.working_bytes[kind], self.pinned_bytes[kind]
            within = tuple(p for p in self.policies if working[p] <= level and pinned[p] <= cap)
            self.useful[key] = undominated(within, self._cost(kind, slot, short))
        return self.useful[key]


def _short(away: dict[Resource, float], room: Room) -> tuple[Resource, ...]:
    """The resources of which a mix takes more than there is."""
    left: dict[Resource, float] = {"host": room.host_bytes, "nvme": room.nvme_bytes}
    return tuple(name for name, there in left.items() if away[name] > there)
