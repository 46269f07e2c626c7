"""The best placement of one layout by trying all of them: every split in the window, every mix of policies.

Only ranges of layers, counts and prices are shared with the search. Two facts cut the work without losing the
optimum: a slower stage never shortens the simulated makespan, and equal layers of one stage are interchangeable.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from itertools import pairwise, product
from math import ceil, comb, prod
from random import Random
from typing import Any

import numpy as np

from costmodel.even_split import counts_per_rank, even_split
from costmodel.kept import KeptBytes, KeptMicrobatches, estimate_kept_bytes
from costmodel.layer_table import PricedLayers
from costmodel.layouts import Assignment
from costmodel.memory import MemoryColumns, host_budget_bytes, nvme_budget_bytes
from costmodel.price import price
from costmodel.stages import Stages, stages_of
from planner.evaluate import Evaluated, cores_per_pipeline, evaluate, kept_bytes, stage_times
from planner.kept import count_kept_microbatches
from planner.order import build_order, with_frozen
from planner.placement import Placement
from planner.problem import Problem
from planner.search.bounds import MAX_SHIFT
from planner.search.placed import OneRow
from planner.search.splits import is_given, splits_of_row
from planner.simulator import FrozenTimes, StageTimes, simulate, simulate_many

ROUNDING = 1.0 + 1e-9
MOST = 60_000
"""Combinations of stages' mixes at most: beyond it a case is too large for this reference."""


ONE_BY_ONE = 60
"""Combinations simulated together in the time that one takes by itself."""


class TooLarge(Exception):
    """There is more to try than this reference is for."""


def _check_size(tried: int) -> None:
    if tried > MOST:
        raise TooLarge(f"{tried} combinations")


@dataclass(frozen=True)
class Mix:
    """One way to treat a rank's layers, [K, P] counts, with its price. ``of_groups``: the same by group, [G, P]."""

    counts: np.ndarray
    of_groups: np.ndarray
    forward_s: float
    backward_s: float
    weight_grad_s: float
    extras_s: float
    claim_bytes: float


@dataclass(frozen=True)
class Groups:
    """Layers that are interchangeable: of one kind, and open to the same policies. ``of_layer``: by layer, in order."""

    of_layer: tuple[int, ...]
    kinds: tuple[int, ...]
    policies: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, kinds: list[int], policies: tuple[int, ...], pinned: Sequence[tuple[int, ...]] = ()) -> Groups:
        """``pinned``: the policies that each layer's pins leave it; empty: all of ``policies``."""
        left = [tuple(one for one in policies if one in pins) for pins in pinned] or [policies] * len(kinds)
        pairs = list(zip(kinds, left, strict=True))
        found = sorted(set(pairs)) if pinned else [(kind, policies) for kind in range(max(kinds) + 1)]
        each = tuple(found.index(pair) for pair in pairs)
        return cls(each, tuple(kind for kind, _ in found), tuple(left for _, left in found))

    def count(self, span: tuple[int, int]) -> tuple[int, ...]:
        return tuple(np.bincount(self.of_layer[span[0] : span[1]], minlength=len(self.kinds)).tolist())


@dataclass(frozen=True)
class Best:
    """The fastest placement with its step time; ``tried`` combinations were simulated."""

    placement: Placement
    step_time_s: float
    tried: int


def stage_window(problem: Problem, layers: PricedLayers) -> list[list[tuple[int, int]]]:
    """For every rank the ranges [start, stop) that the space admits: both ends and the length near the even split; none
    of them empty, but where an end of the model may stand alone."""
    layout, total = layers.layouts.row(0), len(problem.kinds)
    if problem.pinned.lengths:
        return [[span] for span in pairwise(np.cumsum((0, *problem.pinned.lengths)).tolist())]
    work = layers.forward[0] + layers.backward[0, :, 0]
    ends, layer = work[problem.num_kinds :].max(), work[: problem.num_kinds].min()
    shift = min(MAX_SHIFT, ceil(ends / layer) + 1) if problem.setting.runtime.uneven_stages else 0
    even = even_split(total, layout.pp)
    cuts = [sum(even[:rank]) for rank in range(layout.pp + 1)]
    alone = (0, layout.pp - 1) if problem.setting.runtime.ends_without_layers else ()
    return [
        [
            (start, stop)
            for start in range(total + 1)
            for stop in range(start + (rank not in alone), total + 1)
            if abs(start - cuts[rank]) <= shift * (rank > 0)
            and abs(stop - cuts[rank + 1]) <= shift * (rank < layout.pp - 1)
            and abs(stop - start - even[rank]) <= shift
        ]
        for rank in range(layout.pp)
    ]


def all_splits(window: list[list[tuple[int, int]]]) -> Iterator[tuple[tuple[int, int], ...]]:
    """Every way to cover the model with one range a rank."""

    def grow(rank: int, start: int) -> Iterator[tuple[tuple[int, int], ...]]:
        if rank == len(window):
            yield ()
            return
        for begin, stop in window[rank]:
            if begin == start:
                for rest in grow(rank + 1, stop):
                    yield ((begin, stop), *rest)

    total = max(stop for _, stop in window[-1])
    return (split for split in grow(0, 0) if split[-1][1] == total)


RankCounts = tuple[int, tuple[int, ...]]
"""A rank and how many layers of each group lie on it."""


def all_mixes(
    layers: PricedLayers, rank: int, counts: tuple[int, ...], policies: tuple[int, ...], budget_bytes: float
) -> list[Mix]:
    """Every way to give a rank's layers to policies; ``counts``: by kind, all of them open to ``policies``."""
    groups = Groups((), tuple(range(len(counts))), (policies,) * len(counts))
    return mixes_of_slots(layers, [(rank, counts)], groups, budget_bytes)[rank, counts]


def mixes_of_slots(
    layers: PricedLayers,
    slots: Sequence[RankCounts],
    groups: Groups,
    budget_bytes: float,
    lengths: tuple[int, ...] = (),
) -> dict[RankCounts, list[Mix]]:
    """For each slot every way to give its groups' layers to policies, if it fits the budget, the host and its drives.

    All are priced at once: a price takes its time however little it is asked.
    """
    of_slots = [_ways(layers, counts, groups) for _, counts in slots]
    of_groups = np.concatenate(of_slots)
    table = np.zeros((len(of_groups), layers.forward.shape[1] - 2, of_groups.shape[2]))
    np.add.at(table, (slice(None), list(groups.kinds)), of_groups)
    # All kinds of layers stand beside the mixes: a rank without experts waits for the others' collectives too.
    every = np.zeros((1, *table.shape[1:]))
    every[0, :, 0] = 1.0
    counts = np.concatenate([table, every])
    sizes = [len(ways) for ways in of_slots]
    ranks = np.repeat([rank for rank, _ in (*slots, slots[0])], [*sizes, 1])[None]
    stages = stages_of_row(layers)
    assignment = Assignment(counts[None], ranks, np.ones_like(ranks), stages.embedding[ranks], stages.head[ranks])
    priced = price(layers, assignment, kept_of(layers, assignment, lengths))
    work, claim = priced.work, priced.memory.claim[0]
    # A stage waits for its activation's send after the forward, and for its gradient's after the backward.
    waits_s = float(layers.busy_s[0]) / stages.copies
    forward_s = work.forward_s[0] + np.asarray(stages.activations)[ranks[0]] * waits_s
    backward_s = work.backward_s[0] + np.asarray(stages.gradients)[ranks[0]] * waits_s
    fits = (claim <= budget_bytes) & _fits_beside(layers, priced.memory)
    columns = (forward_s, backward_s, work.weight_grad_s[0], priced.extras.exposed_s[0], claim)
    found: dict[RankCounts, list[Mix]] = {}
    stop = 0
    for slot, size in zip(slots, sizes, strict=True):
        start, stop = stop, stop + size
        rows = (np.flatnonzero(fits[start:stop]) + start).tolist()
        found[slot] = [Mix(table[row], of_groups[row], *(float(one[row]) for one in columns)) for row in rows]
    return found


def _ways(layers: PricedLayers, counts: tuple[int, ...], groups: Groups) -> np.ndarray:
    """[n, G, P] every way to give ``counts`` of each group to its useful policies."""
    of_groups = np.zeros((1, len(counts), layers.costs.num_policies))
    for group, count in enumerate(counts):
        useful = useful_policies(layers, groups.kinds[group], groups.policies[group])
        _check_size(len(of_groups) * comb(count + len(useful) - 1, count))
        ways = _compositions(count, len(useful))
        of_groups = np.repeat(of_groups, len(ways), axis=0)
        of_groups[:, group, list(useful)] = np.tile(ways, (len(of_groups) // len(ways), 1))
    return of_groups


def useful_policies(layers: PricedLayers, kind: int, policies: tuple[int, ...]) -> tuple[int, ...]:
    """Policies of which no other is as good in everything: a layer of any mix may change over to that one."""
    costs, row = layers.costs, layers.index[0]
    names = ("saved_bytes", "pending_bytes", "working_bytes", "host_bytes", "nvme_bytes", "pinned_bytes")
    columns = [layers.backward[0, kind], *(getattr(costs, name)[row, kind] for name in names)]
    cost = np.stack(columns, axis=-1)
    return tuple(
        p for p in policies
        if not any((cost[q] <= cost[p]).all() and ((cost[q] < cost[p]).any() or q < p) for q in policies)
    )  # fmt: skip


def _fits_beside(layers: PricedLayers, memory: MemoryColumns) -> np.ndarray:
    """[S] whether a slot's share of the host and of its drives holds what it offloads."""
    setting = layers.setting
    return (memory.host[0] <= host_budget_bytes(setting)) & (memory.nvme[0] <= nvme_budget_bytes(setting))


@cache
def _compositions(count: int, parts: int) -> np.ndarray:
    """[n, parts] every way to write ``count`` as a sum of ``parts``."""
    if parts == 1:
        return np.array([[count]], np.float64)
    each = [(head, _compositions(count - head, parts - 1)) for head in range(count + 1)]
    return np.concatenate([np.hstack([np.full((len(rest), 1), head), rest]) for head, rest in each])


def _fastest(mixes: list[Mix]) -> list[Mix]:
    """All that are as fast: dealt to several stages they may differ."""
    least_s = min((one.backward_s for one in mixes), default=0.0)
    return [one for one in mixes if one.backward_s <= least_s * ROUNDING]


def _worth_any(mixes: list[Mix]) -> list[Mix]:
    """All that no other beats in both seconds: of the backward, and after the passes."""
    kept: list[Mix] = []
    for mix in sorted(mixes, key=lambda one: (one.backward_s, one.extras_s)):
        if not kept or mix.extras_s < kept[-1].extras_s:
            kept.append(mix)
    return kept


def stages_of_row(layers: PricedLayers) -> Stages:
    layout = layers.layouts.row(0)
    return stages_of(layers.layouts.schedule_name(0), layout.pp, layout.vpp)


def kept_of(layers: PricedLayers, assignment: Assignment, lengths: tuple[int, ...]) -> KeptBytes:
    """What each slot keeps, by how long the row's own order keeps its rank's micro-batches."""
    ranks, found = assignment.rank[0], count_kept_microbatches(build_order(layers), lengths)
    counts = KeptMicrobatches(found.in_flight[:, ranks], found.waiting[:, ranks], found.unreached[:, ranks])
    return estimate_kept_bytes(layers.setting, layers.layouts, assignment, layers.costs, layers.index, counts)


def deal(groups: Groups, lengths: tuple[int, ...], stages: Stages, mixes: tuple[Mix, ...]) -> tuple[int, ...]:
    """Policies by layer: each rank's mix goes to its layers in model order, the last policies first; of two ranks with
    the same layers the lower rank's."""
    homes = [rank if stages.copies == 1 else min(rank, stages.num_ranks - 1 - rank) for rank in stages.stage_to_rank]
    left = [mix.of_groups.copy() for mix in mixes]
    policies = []
    of_layer = [homes[stage] for stage, length in enumerate(lengths) for _ in range(length)]
    for home, group in zip(of_layer, groups.of_layer, strict=True):
        policy = max(index for index in range(left[home].shape[1]) if left[home][group, index])
        left[home][group, policy] -= 1
        policies.append(policy)
    return tuple(policies)


def best_placement(
    problem: Problem,
    layers: PricedLayers,
    sets: tuple[tuple[int, ...], ...],
    budget_bytes: float,
    any_mix: bool = False,
    pinned: Sequence[tuple[int, ...]] = (),
    shapes: tuple[Problem, PricedLayers] | None = None,
) -> Best | None:
    """The fastest placement of the one row in ``layers`` that fits; None when none does.

    Every stage takes a mix of policies that is the fastest of its range's; with ``any_mix``, any that fits. ``pinned``:
    the policies that each layer's pins leave it. ``shapes``: problem and costs by which the space says how far stages
    may lie from the even split, where pins change them.
    Raises TooLarge where there is more to try than is worth waiting for.
    """
    found = []
    for policies in sets:
        groups = Groups.of(problem.kinds, policies, pinned)
        if all(groups.policies):
            search = _best_of_chunks if is_given(layers.layouts) else _best_of_ranges
            found.append(search(problem, layers, groups, budget_bytes, any_mix, shapes or (problem, layers)))
    return min((best for best in found if best is not None), key=lambda best: best.step_time_s, default=None)


def _best_of_ranges(
    problem: Problem, layers: PricedLayers, groups: Groups, budget_bytes: float, any_mix: bool,
    shapes: tuple[Problem, PricedLayers],
) -> Best | None:  # fmt: skip
    """One stage a rank: every range of the window, every mix of it that is worth trying, all simulated."""
    window = stage_window(*shapes)
    slots = {(rank, span): (rank, groups.count(span)) for rank, spans in enumerate(window) for span in spans}
    mixes = mixes_of_slots(layers, sorted(set(slots.values())), groups, budget_bytes)
    worth = _worth_any if any_mix else lambda one: _worth_any(one)[:1]
    few = {slot: worth(one) for slot, one in mixes.items()}
    priced = {(rank, *span): few[slot] for (rank, span), slot in slots.items()}
    splits = list(all_splits(window))
    _check_size(sum(prod(len(priced[rank, *span]) for rank, span in enumerate(split)) for split in splits))
    rows = [
        (split, mixes)
        for split in splits
        for mixes in product(*(priced[rank, *span] for rank, span in enumerate(split)))
    ]
    if not rows:
        return None
    table = {
        name: np.array([[getattr(mix, name) for mix in mixes] for _, mixes in rows])
        for name in ("forward_s", "backward_s", "weight_grad_s", "extras_s")
    }
    weight_s = table["weight_grad_s"]
    times = (table["forward_s"], np.maximum(table["backward_s"] - weight_s, 0.0), weight_s)
    cores = cores_per_pipeline(problem, _placement(layers, groups, *rows[0]))
    frozen = FrozenTimes(layers.frozen.piece_s[0]) if layers.layouts.frozen_fill[0] else None
    makespan_s = _makespans_s(layers, StageTimes(*times, edge_s=float(layers.edge_s[0]), frozen=frozen), cores)
    step_s = (makespan_s + table["extras_s"].max(axis=1) * layers.contention[0]) * (1.0 + layers.jitter[0])
    first = int(step_s.argmin())
    return Best(_placement(layers, groups, *rows[first]), float(step_s[first]), len(rows))


def _placement(
    layers: PricedLayers, groups: Groups, split: tuple[tuple[int, int], ...], mixes: tuple[Mix, ...]
) -> Placement:
    layout = layers.layouts.row(0)
    lengths = tuple(stop - start for start, stop in split)
    policies = deal(groups, lengths, stages_of_row(layers), mixes)
    return Placement(layout, layers.layouts.schedule_name(0), lengths, policies)


def _best_of_chunks(
    problem: Problem, layers: PricedLayers, groups: Groups, budget_bytes: float, any_mix: bool,
    shapes: tuple[Problem, PricedLayers],
) -> Best | None:  # fmt: skip
    """The split is one of a few; where a mix's layers lie among its stages matters, so no mix of a rank is left out."""
    layout, stages = layers.layouts.row(0), stages_of_row(layers)
    evaluated: list[Evaluated] = []
    tried = 0
    for lengths in splits_of_row(*shapes):
        counts = counts_per_rank(list(groups.of_layer), len(groups.kinds), lengths, stages.stage_to_rank).tolist()
        slots = [(rank, tuple(counts[rank])) for rank in range(layout.pp)]
        mixes = list(mixes_of_slots(layers, slots, groups, budget_bytes, lengths).values())
        worth = _fastest if not any_mix else _worth_any if layout.pp == 1 else list
        few = [worth(one) for one in mixes]
        # The fastest mixes may be kept longer than the mean of a rank's stages is: then the others count too.
        for choices in (few, mixes):
            _check_size(prod(map(len, choices)))
            dealt = [deal(groups, lengths, stages, chosen) for chosen in product(*choices)]
            placements = [Placement(layout, layers.layouts.schedule_name(0), lengths, policies) for policies in dealt]
            tried += len(placements)
            step_s = _steps_s(problem, layers, placements, budget_bytes)
            if np.isfinite(step_s).any():
                best = evaluate(problem, placements[int(step_s.argmin())], layers=layers)
                assert np.isclose(best.step_time_s, step_s.min(), rtol=1e-9)
                evaluated.append(best)
                break
    fastest = min(evaluated, key=lambda one: one.step_time_s, default=None)
    return None if fastest is None else Best(fastest.placement, fastest.step_time_s, tried)


def _steps_s(problem: Problem, layers: PricedLayers, placements: list[Placement], budget_bytes: float) -> np.ndarray:
    """[n] step times of placements of the one row in ``layers``; inf for those that do not fit, as its own order keeps
    their activations."""
    if not placements:
        return np.zeros(0)
    schedule, axis = build_order(layers), layers.costs.num_policies
    kept = [kept_bytes(layers, placement, problem, schedule) for placement in placements]
    each = [placement.assignment(problem.kinds, problem.num_kinds, axis) for placement in placements]
    priced = price(layers.take(np.zeros(len(placements), np.intp)), _joined(each), _joined(kept))
    fits = (priced.peak_claim_bytes <= budget_bytes * ROUNDING) & priced.fits_host
    times = [stage_times(layers, placement, problem) for placement in placements]
    cores = cores_per_pipeline(problem, placements[0])
    # What else takes time in a step is the same for all placements of a row.
    own = ("forward_s", "input_grad_s", "weight_grad_s", "recompute_s")
    stacked = {name: np.stack([getattr(one, name) for one in times]) for name in own}
    makespan_s = _makespans_s(layers, replace(times[0], **stacked), cores)
    last_s = priced.extras.exposed_s.max(axis=1) * layers.contention[0]
    return np.where(fits, (makespan_s + last_s) * (1.0 + layers.jitter[0]), np.inf)


def _makespans_s(layers: PricedLayers, times: StageTimes, cores: float | None) -> np.ndarray:
    """[n] of the one row's order under n placements' times; frozen parts go into each one's own bubbles."""
    schedule = build_order(layers)
    if cores is None and times.frozen is None:
        return simulate_many(schedule, times)
    _check_size(ONE_BY_ONE * len(times.forward_s))
    batched = {name: column for name, column in vars(times).items() if np.ndim(column) == 2}
    each = [
        replace(times, **{name: column[at] for name, column in batched.items()}) for at in range(len(times.forward_s))
    ]
    return np.array([simulate(with_frozen(schedule, one), one, cores).makespan_s for one in each])


def _joined(rows: list[OneRow]) -> OneRow:
    """Dataclasses of columns of one row each as one of all rows."""
    columns: dict[str, Any] = {
        field.name: np.concatenate([getattr(row, field.name) for row in rows]) for field in fields(rows[0])
    }
    return replace(rows[0], **columns)


def random_placement(draw: Random, problem: Problem, layers: PricedLayers, policies: tuple[int, ...]) -> Placement:
    """Some split in the window, and policies at random: one for all, or one for each layer."""
    layout, total = layers.layouts.row(0), len(problem.kinds)
    if is_given(layers.layouts):
        lengths = draw.choice(splits_of_row(problem, layers))
    else:
        lengths = tuple(stop - start for start, stop in _random_split(draw, stage_window(problem, layers)))
    mixed = draw.random() < 0.5
    chosen = [draw.choice(policies) for _ in range(total)] if mixed else [draw.choice(policies)] * total
    return Placement(layout, layers.layouts.schedule_name(0), lengths, tuple(chosen))


def _random_split(draw: Random, window: list[list[tuple[int, int]]]) -> list[tuple[int, int]]:
    """Grown from the last rank's end, over ranges from which the model's start can still be reached."""
    reachable = [{0}]
    for spans in window:
        reachable.append({stop for start, stop in spans if start in reachable[-1]})
    split: list[tuple[int, int]] = []
    end = max(reachable[-1])
    for rank in range(len(window) - 1, -1, -1):
        span = draw.choice([span for span in window[rank] if span[1] == end and span[0] in reachable[rank]])
        split.append(span)
        end = span[0]
    return split[::-1]
