"""Stage options: for every range of layers that a pipeline rank may hold, its fastest mix of policies that fits.

Of several layouts at once that share layer costs and order of passes, and differ in what their state takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from costmodel.kept import KeptBytes, KeptMicrobatches, estimate_kept_bytes
from costmodel.layer_table import PricedLayers
from costmodel.layouts import Assignment, Column, IntColumn
from costmodel.memory import PARTS, host_budget_bytes, nvme_budget_bytes
from costmodel.price import price, price_memory
from costmodel.rank_work import sum_work
from costmodel.stages import stages_of
from planner.kept import count_kept_microbatches
from planner.order import build_order
from planner.search.bounds import ROUNDING
from planner.search.mixes import MixChooser, Room, Slot
from planner.search.placed import repeated


@dataclass(frozen=True)
class Option:
    """A slot with its fastest feasible mix [K, P]: seconds per micro-batch, what its rank waits for sends included, and
    per step outside the passes."""

    mix: Column
    forward_s: float
    backward_s: float
    weight_grad_s: float
    extras_s: float


class SlotRooms:
    """What memory leaves to every slot's layers in every row of ``layers``; rows share layer costs and order of passes.

    Memory is priced once a slot, with nothing recomputed. ``lengths``: layers of a copy's stages, if not equal.
    """

    def __init__(
        self, layers: PricedLayers, slots: Sequence[Slot], policies: tuple[int, ...], lengths: tuple[int, ...] = ()
    ) -> None:
        self.layers, self.slots = layers, slots
        self.kept = count_kept_microbatches(build_order(layers), lengths)
        plain = np.zeros((len(slots), len(slots[0].counts), layers.costs.num_policies))
        plain[:, :, 0] = [slot.counts for slot in slots]
        memory = price_memory(layers, *assign_slots(layers, _ranks(slots), plain[None], self.kept))
        self.logits = memory.parts[:, :, PARTS.index("logits")]
        working = memory.parts[:, :, PARTS.index("working")]
        self.always = memory.claim - memory.apart - self.logits - working
        self.host = host_budget_bytes(layers.setting) - memory.host
        self.nvme_bytes = nvme_budget_bytes(layers.setting)
        self.chooser = MixChooser(layers, policies, self.kept)

    def take(self, keep: Sequence[int]) -> SlotRooms:
        """Some of the slots alone."""
        some = copy(self)
        some.slots = [self.slots[at] for at in keep]
        some.logits, some.always, some.host = (one[:, list(keep)] for one in (self.logits, self.always, self.host))
        return some

    def can_fit(self, budget_bytes: float) -> NDArray[np.bool_]:
        """[n, S] whether some mix fits."""
        # Rows of equal costs have equal logits.
        least = self.chooser.least_bytes(self.slots, self.logits[0])
        return np.asarray((least <= budget_bytes * ROUNDING - self.always) & (self.host >= 0.0))

    def best_case(self, budget_bytes: float, after_s: Column) -> dict[Slot, Option]:
        """What no row's options beat: each slot's fastest mix in the most room that any row leaves it, and the least
        ``after_s``, seconds after the passes."""
        always, host = self.always.min(axis=0), self.host.max(axis=0)
        found: dict[Slot, Column] = {}
        for at in np.flatnonzero(self.can_fit(budget_bytes).any(axis=0)).tolist():
            room = Room(budget_bytes - float(always[at]), float(self.logits[0, at]), float(host[at]), self.nvme_bytes)
            mix = self.chooser.fastest(self.slots[at], room)
            if mix is not None:
                found[self.slots[at]] = mix
        if not found:
            return {}
        one = self.layers.take(np.zeros(1, np.intp))
        assignment, _ = assign_slots(one, _ranks(list(found)), np.stack(list(found.values()))[None], self.kept)
        work = sum_work(one, assignment)
        columns = np.stack([work.forward_pass_s[0], work.backward_pass_s[0], work.weight_grad_s[0]], axis=1)
        least_s = float((after_s * self.layers.contention).min())
        return {
            slot: Option(mix, forward_s, backward_s, weight_grad_s, least_s)
            for (slot, mix), (forward_s, backward_s, weight_grad_s) in zip(found.items(), columns.tolist(), strict=True)
        }

    def fastest(self, row: int, at: int, budget_bytes: float, spared: Sequence[float] = (0.0, 0.0)) -> Column | None:
        """The fastest mix of one slot in one row; None if none fits. ``spared``: bytes of host and drives that stay
        free."""
        host, nvme = float(self.host[row, at]) - spared[0], self.nvme_bytes - spared[1]
        if min(host, nvme) < 0.0:
            return None
        room = Room(budget_bytes - float(self.always[row, at]), float(self.logits[row, at]), host, nvme)
        return self.chooser.fastest(self.slots[at], room)

    def leanest(self, row: int) -> list[Column | None]:
        """Of every slot in one row the fastest of the mixes that take least memory."""
        # Rows of equal costs have equal logits.
        needed = self.chooser.least_bytes(self.slots, self.logits[0])
        budgets = (self.always[row] + needed + np.abs(needed) * (ROUNDING - 1.0) + 1.0).tolist()
        return [self.fastest(row, at, budget) for at, budget in enumerate(budgets)]


class OptionColumns:
    """The options of every slot in every row, [n, S], as columns; ``fits``: whether there is one."""

    def __init__(self, rooms: SlotRooms, budget_bytes: float) -> None:
        layers, slots = rooms.layers, rooms.slots
        self.layers, self.slots = layers, slots
        self.mixes = np.zeros((len(layers.layouts), len(slots), len(slots[0].counts), layers.costs.num_policies))
        self.mixes[..., 0] = [slot.counts for slot in slots]
        self.fits = rooms.can_fit(budget_bytes)
        for row, at in np.argwhere(self.fits).tolist():
            mix = rooms.fastest(row, at, budget_bytes)
            if mix is None:
                self.fits[row, at] = False
            else:
                self.mixes[row, at] = mix
        priced = price(layers, *assign_slots(layers, _ranks(slots), self.mixes, rooms.kept))
        self.forward_s, self.backward_s = priced.work.forward_pass_s, priced.work.backward_pass_s
        self.weight_grad_s = priced.work.weight_grad_s
        self.extras_s = priced.extras.exposed_s * layers.contention[:, None]

    def is_no_better(self, row: int, other: int) -> bool:
        """Whether every slot that fits the row fits the other as well, and takes no longer there in any pass or after
        them: with one order of passes no placement of the row is then faster than the same one of the other."""
        fits = self.fits[row]
        if (fits & ~self.fits[other]).any() or self.layers.jitter[row] < self.layers.jitter[other]:
            return False
        input_grad_s = self.backward_s - self.weight_grad_s
        columns = (self.forward_s, input_grad_s, self.weight_grad_s, self.extras_s)
        return all((column[row, fits] * ROUNDING >= column[other, fits]).all() for column in columns)

    def of_row(self, row: int) -> dict[Slot, Option]:
        return {
            slot: Option(
                mix=self.mixes[row, at],
                forward_s=float(self.forward_s[row, at]),
                backward_s=float(self.backward_s[row, at]),
                weight_grad_s=float(self.weight_grad_s[row, at]),
                extras_s=float(self.extras_s[row, at]),
            )
            for at, slot in enumerate(self.slots)
            if self.fits[row, at]
        }


def _ranks(slots: Sequence[Slot]) -> IntColumn:
    return np.array([slot.rank for slot in slots])


def assign_slots(
    layers: PricedLayers, rank: IntColumn, counts: Column, found: KeptMicrobatches
) -> tuple[Assignment, KeptBytes]:
    """Each slot's ``rank`` [S] and layers, [n or 1, S, K, P]; and what these keep as long as the rows' own order keeps
    the mean of a rank's stages."""
    layouts = layers.layouts
    n = len(layouts)
    stages = stages_of(layouts.schedule_name(0), int(layouts.pp[0]), int(layouts.vpp[0]))

    assignment = Assignment(
        counts[:1],
        rank[None],
        np.ones_like(rank)[None],
        stages.embedding[None, rank],
        stages.head[None, rank],
    )
    assignment = replace(repeated(assignment, n), counts=np.broadcast_to(counts, (n, *counts.shape[1:])))
    kept = repeated(KeptMicrobatches(*(one[:, rank] for one in (found.in_flight, found.waiting, found.unreached))), n)
    return assignment, estimate_kept_bytes(layers.setting, layouts, assignment, layers.costs, layers.index, kept)
