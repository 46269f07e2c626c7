"""Where a rank holds several stages: every mix of policies that it might take, as dealt to them.

A mix is dealt to a rank's layers in model order, so that its stages take unlike shares of it, and each stage keeps its
micro-batches as long as the order of passes does. Of the mixes that fit at the mean of a rank's stages and as dealt
those count that no other beats in the time of every stage and after the passes. Where the fastest at the mean fit as
dealt, none slower counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from costmodel.even_split import counts_per_rank
from costmodel.kept import KeptBytes
from costmodel.layer_table import PricedLayers
from costmodel.layouts import Column, IntColumn
from costmodel.memory import MemoryColumns, fits_beside
from costmodel.price import price, price_memory
from costmodel.stages import stages_of
from planner.kept import count_kept, count_kept_microbatches
from planner.order import build_order
from planner.problem import Problem
from planner.search.bounds import ROUNDING
from planner.search.fronts import list_compositions, undominated, undominated_rows
from planner.search.mixes import Slot
from planner.search.options import SlotRooms, assign_slots
from planner.search.placed import dealt_by

MOST_MIXES = 40_000
"""Mixes of one rank that memory and time leave, at most."""

MOST_TRIED = 20_000_000
"""Mixes of some kinds of a rank x ways to treat the next kind's layers, at most."""


@dataclass(frozen=True)
class DealtMix:
    """A rank's mix [K, P]; seconds that it adds to a micro-batch's backward on each stage of one copy that goes by it,
    in model order; and seconds after the passes."""

    mix: Column
    recompute_s: Column
    extras_s: float


def list_dealt(
    problem: Problem, layers: PricedLayers, lengths: tuple[int, ...], policies: tuple[int, ...], budget_bytes: float,
    most_s: Column,
) -> tuple[tuple[DealtMix, ...], ...] | None:  # fmt: skip
    """By rank what it may take in the one row of ``layers``, nothing where no mix of it fits; of two ranks that hold
    the same layers the lower stands for both. ``most_s``: [ranks] seconds that a mix may add to a micro-batch's
    backwards. None where mixes are too many."""
    homes = np.array(dealt_by(layers))
    of_stages = counts_per_rank(problem.kinds, problem.num_kinds, lengths, range(len(lengths)))
    of_rank = [of_stages[homes == rank] for rank in range(homes.max() + 1)]
    mixes = _list_mixes(problem, layers, lengths, policies, of_rank, (budget_bytes, most_s))
    if mixes is None:
        return None
    if not all(map(len, mixes)):
        return ((),) * len(mixes)
    dealt = [_deal(mix, own) for mix, own in zip(mixes, of_rank, strict=True)]
    priced = _Priced(layers, lengths, homes, dealt, budget_bytes)
    extra_s = layers.costs.extra_s[layers.index[0], : problem.num_kinds]
    recompute_s = [np.einsum("nskp,kp->ns", own, extra_s) for own in dealt]
    columns = list(zip(mixes, recompute_s, priced.extras_s, priced.at_mean, priced.as_dealt, strict=True))
    if not all(at_mean.any() for *_, at_mean, _ in columns):
        return ((),) * len(mixes)
    fastest = []
    for _, more_s, _, at_mean, _ in columns:
        total_s = np.where(at_mean, more_s.sum(axis=1), np.inf)
        fastest.append(total_s <= total_s.min() * ROUNDING)
    enough = all((first & fits).any() for first, fits in zip(fastest, priced.as_dealt, strict=True))
    open_to = [
        np.flatnonzero(first & fits if enough else at_mean & fits)
        for first, (*_, at_mean, fits) in zip(fastest, columns, strict=True)
    ]
    # The step ends as late as some rank does in any case: before that no mix gains by ending sooner.
    least_s = max(float(one[rows].min(initial=np.inf)) for one, rows in zip(priced.extras_s, open_to, strict=True))
    found = []
    for rows, (mix, more_s, extras_s, *_) in zip(open_to, columns, strict=True):
        ends_s = np.maximum(extras_s, least_s)
        kept = rows[undominated_rows(np.column_stack([more_s, ends_s])[rows])] if len(rows) else rows
        found.append(tuple(DealtMix(mix[row], more_s[row], float(ends_s[row])) for row in kept.tolist()))
    return tuple(found)


def least_end_s(problem: Problem, layers: PricedLayers, lengths: tuple[int, ...], policies: tuple[int, ...]) -> float:
    """Seconds after the passes at least, in the one row of ``layers``: behind the slowest mixes most traffic hides."""
    stages = stages_of(layers.layouts.schedule_name(0), int(layers.layouts.pp[0]), int(layers.layouts.vpp[0]))
    counts = counts_per_rank(problem.kinds, problem.num_kinds, lengths, stages.stage_to_rank)
    slowest = layers.backward[0, : problem.num_kinds][:, list(policies)].argmax(axis=1)
    mixes = np.zeros((*counts.shape, layers.costs.num_policies))
    mixes[:, np.arange(problem.num_kinds), np.array(policies)[slowest]] = counts
    kept = count_kept_microbatches(build_order(layers), lengths)
    priced = price(layers, *assign_slots(layers, np.arange(stages.num_ranks), mixes[None], kept))
    return float(priced.extras.exposed_s[0].max() * layers.contention[0])


def _list_mixes(
    problem: Problem, layers: PricedLayers, lengths: tuple[int, ...], policies: tuple[int, ...],
    of_rank: list[IntColumn], limits: tuple[float, Column],
) -> list[Column] | None:  # fmt: skip
    """By rank the mixes [n, K, P] of its layers ``of_rank`` [stages, K] that may fit ``limits``: bytes at the mean of
    its stages, and [ranks] seconds. None where there are too many."""
    useful = [_useful(problem, layers, kind, policies) for kind in range(problem.num_kinds)]
    slots = [Slot(rank, tuple(own.sum(axis=0).tolist())) for rank, own in enumerate(of_rank)]
    rooms = SlotRooms(layers, slots, policies, lengths)
    extra_s = layers.costs.extra_s[layers.index[0], : problem.num_kinds]
    mixes = []
    for at, slot in enumerate(slots):
        # What layers keep above policy 0.
        unit_bytes = rooms.chooser.in_flight[at] * rooms.chooser.unit_bytes(slot)
        left_bytes = limits[0] - float(rooms.always[0, at]) - float(rooms.logits[0, at])
        room = (float(limits[1][at]), left_bytes)
        within = _mixes(slot.counts, useful, (extra_s, unit_bytes - unit_bytes[:, :1]), room)
        if within is None:
            return None
        mixes.append(within)
    return mixes


def _useful(problem: Problem, layers: PricedLayers, kind: int, policies: tuple[int, ...]) -> tuple[int, ...]:
    """Policies of a kind of which no other is as good in everything; of a pinned one those that it admits."""
    costs, row = layers.costs, layers.index[0]
    names = ("saved_bytes", "pending_bytes", "working_bytes", "host_bytes", "nvme_bytes", "pinned_bytes")
    cost = np.stack([layers.backward[0, kind], *(getattr(costs, name)[row, kind] for name in names)], axis=-1)
    own = tuple(policy for policy in policies if problem.pinned.policy(kind, policy) == policy)
    return undominated(own or policies, cost)


def _mixes(
    counts: tuple[int, ...], useful: list[tuple[int, ...]], costs: tuple[Column, Column], limits: tuple[float, float]
) -> Column | None:
    """[n, K, P] every way to give ``counts`` [K] layers to their kinds' useful policies within ``limits`` of two sums
    of their costs [K, P]; None where there are too many."""
    mixes, sums = np.zeros((1, *costs[0].shape)), np.zeros((1, 2))
    least = np.array(
        [[count * cost[kind, list(useful[kind])].min() for cost in costs] for kind, count in enumerate(counts)]
    )
    room = np.array(limits) + np.abs(limits) * (ROUNDING - 1.0)
    for kind, count in enumerate(counts):
        if not count:
            continue
        policies, rest = list(useful[kind]), least[kind + 1 :].sum(axis=0)
        ways = list_compositions(count, len(policies))
        own = np.stack([ways @ cost[kind, policies] for cost in costs], axis=1)
        some = (own + sums.min(axis=0, initial=np.inf) + rest <= room).all(axis=1)
        ways, own = ways[some], own[some]
        if len(mixes) * len(ways) > MOST_TRIED:
            return None
        before, way = np.nonzero((sums[:, None] + own + rest <= room).all(axis=2))
        if len(before) > MOST_MIXES:
            return None
        mixes, sums = mixes[before], sums[before] + own[way]
        mixes[:, kind, policies] = ways[way]
    return mixes


def _deal(mixes: Column, of_stages: IntColumn) -> Column:
    """[n, stages, K, P] what each of a rank's stages takes of its mixes [n, K, P], the last policies first;
    ``of_stages``: [stages, K] layers of each."""
    stop = mixes[:, :, ::-1].cumsum(axis=2)[:, :, ::-1]
    after = of_stages.cumsum(axis=0)[..., None]
    dealt = np.minimum(stop[:, None], after) - np.maximum((stop - mixes)[:, None], after - of_stages[..., None])
    return np.asarray(np.maximum(dealt, 0.0))


class _Priced:
    """By rank, of all its mixes ``dealt`` [n, stages, K, P]: which fit were every stage kept as long as their mean, and
    which as dealt, on every rank that goes by them; and seconds after the passes."""

    def __init__(
        self, layers: PricedLayers, lengths: tuple[int, ...], homes: NDArray[np.intp], dealt: list[Column],
        budget_bytes: float,
    ) -> None:  # fmt: skip
        stages = stages_of(layers.layouts.schedule_name(0), int(layers.layouts.pp[0]), int(layers.layouts.vpp[0]))
        self.layers, self.homes = layers, homes
        self.order, self.budget_bytes = build_order(layers), budget_bytes
        ranks = range(stages.num_ranks)
        pairs = [(held if stages.copies == 1 else min(held, ranks[-1] - held), held) for held in ranks]
        own = [dealt[rank] for rank, _ in pairs]
        slots = np.repeat(ranks, [len(each) for each in own])
        counts = np.concatenate([each.sum(axis=1) for each in own])
        assignment, at_mean = assign_slots(layers, slots, counts[None], count_kept_microbatches(self.order, lengths))
        parts = [self._kept(rank, held, dealt[rank]) for rank, held in pairs]
        columns = {name: np.concatenate([getattr(part, name) for part in parts])[None] for name in vars(parts[0])}
        priced = price(layers, assignment, KeptBytes(**columns))
        mean = price_memory(layers, assignment, at_mean)
        bounds = np.cumsum([len(each) for each in own])[:-1]
        fits, means, ends = (
            np.split(column, bounds)
            for column in (self._fits(priced.memory, ROUNDING), self._fits(mean, 1.0), priced.extras.exposed_s[0])
        )
        several = [[at for at, (by, _) in enumerate(pairs) if by == rank] for rank in range(len(dealt))]
        self.as_dealt = [np.all([fits[at] for at in held], axis=0) for held in several]
        # The lower rank's choice; the other needs any mix at all.
        self.at_mean = [means[held[0]] & all(means[at].any() for at in held) for held in several]
        late = float(layers.contention[0])
        self.extras_s = [np.max([ends[at] for at in held], axis=0) * late for held in several]

    def _fits(self, memory: MemoryColumns, tolerance: float) -> NDArray[np.bool_]:
        beside = fits_beside(self.layers.setting, memory.host[0], memory.nvme[0])
        return np.asarray((memory.claim[0] <= self.budget_bytes * tolerance) & beside)

    def _kept(self, rank: int, held: int, dealt: Column) -> KeptBytes:
        """[n] what the order keeps on the rank ``held``, whose stages go by the mixes of ``rank``."""
        costs, row, kinds = self.layers.costs, self.layers.index[0], dealt.shape[2]
        own, per_copy = np.flatnonzero(self.homes == rank), len(self.homes)
        kept = count_kept(self.order)

        def of_layers(column: Column) -> Column:
            return np.asarray(np.einsum("nskp,kp->ns", dealt, column[row, :kinds]))

        here = kept.stage[held][:, None] % per_copy == own
        counts = [np.cumsum(here * change[held][:, None], axis=0) for change in (kept.alive, kept.waiting)]
        alive, waiting = np.split(np.unique(np.concatenate(counts, axis=1), axis=0).astype(np.float64), 2, axis=1)
        embedding = (own < self.layers.layouts.vocab_over[0]) * costs.saved_bytes[row, kinds, 0]
        head = (own == per_copy - 1) * costs.pending_bytes[row, kinds + 1, 0]
        saved, pending = of_layers(costs.saved_bytes) + embedding, of_layers(costs.pending_bytes) + head
        logits = np.zeros(self.order.num_stages)
        logits[per_copy - 1 :: per_copy] = costs.saved_bytes[row, kinds + 1, 0]
        return KeptBytes(
            activations=(saved @ alive.T + pending @ waiting.T).max(axis=1),
            pending=np.zeros(len(dealt)),
            logits=np.full(len(dealt), kept.peak_logits(logits)[held]),
            host=(of_layers(costs.host_bytes) @ alive.T).max(axis=1),
            nvme=(of_layers(costs.nvme_bytes) @ alive.T).max(axis=1),
        )
