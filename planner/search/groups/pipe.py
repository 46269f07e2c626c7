"""One layout's pipeline over unlike groups: which ranges of layers its ranks might hold, and what each takes.

Any range is open to any rank. Which matter follows from a step time that is asked for: no rank holds more than it can
do in it, and what the ranks before and after cannot take is its own.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np

from costmodel.even_split import even_split
from costmodel.layouts import Column
from costmodel.schedules import SCHEDULES
from costmodel.schema.schedule import Schedule
from planner.evaluate import Evaluated, evaluate
from planner.kept import count_ahead
from planner.order import build_order
from planner.placement import Placement
from planner.search.bounds import ROUNDING
from planner.search.groups.floors import end_times_s, least_times_s
from planner.search.groups.rows import MixedRows
from planner.search.mixes import Slot
from planner.search.options import Option, OptionColumns, SlotRooms
from planner.search.placed import deal
from planner.search.stage_problem import StageChoice, StageProblem
from planner.stage_ends import fewest_by_stage

Range = tuple[int, int, int]
"""A rank and the layers [start, stop) that it might hold."""


@dataclass(frozen=True)
class Pipe:
    """One row's pipeline."""

    rows: MixedRows
    policies: tuple[int, ...]
    budgets: tuple[float, ...]

    @cached_property
    def homes(self) -> tuple[int, ...]:
        return self.rows.homes

    @cached_property
    def order(self) -> Schedule:
        return build_order(self.rows.tables[0])

    @cached_property
    def options(self) -> dict[tuple[int, Slot], Option | None]:
        """What was priced so far."""
        return {}

    @cached_property
    def before_s(self) -> list[list[float]]:
        """By group, the least seconds of all layers before each."""
        problem = self.rows.problem
        found = []
        for table in self.rows.tables:
            least_s = least_times_s(table, self.policies, problem.num_kinds)[0]
            found.append([0.0, *np.cumsum(least_s[problem.kinds]).tolist()])
        return found

    @cached_property
    def own_s(self) -> Column:
        """[pp] of every rank beside its layers: the ends, and its waits for sends."""
        kinds, tables, busy_s = self.rows.problem.num_kinds, self.rows.tables, self.rows.edges.busy_s[0]
        own_s = np.zeros(len(self.homes))
        own_s[0] += end_times_s(tables[self.homes[0]], kinds)[0, 0]
        own_s[-1] += end_times_s(tables[self.homes[-1]], kinds)[0, 1]
        own_s[:-1] += busy_s
        own_s[1:] += busy_s
        return own_s

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Layers of every stage where there is no choice: pinned, or even where the runtime has no other."""
        problem = self.rows.problem
        if problem.pinned.lengths or problem.setting.runtime.uneven_stages:
            return problem.pinned.lengths
        return tuple(even_split(len(problem.kinds), len(self.homes)))

    @cached_property
    def fewest(self) -> list[int]:
        """Layers that every rank holds at least."""
        setting = self.rows.problem.setting
        return fewest_by_stage(setting.model, setting.runtime, len(self.homes))

    @cached_property
    def holds(self) -> bool:
        """Whether the ranks' memory takes all layers in whatever time, where these are of one kind; else not known."""
        problem, total = self.rows.problem, len(self.rows.problem.kinds)
        if problem.num_kinds > 1 or self.lengths:
            return True
        spare, most = total - sum(self.fewest), np.full(len(self.homes), -1)
        for group, table in enumerate(self.rows.tables):
            slots = [
                Slot(rank, (count,))
                for rank, (home, least) in enumerate(zip(self.homes, self.fewest, strict=True))
                for count in range(least, least + spare + 1)
                if home == group
            ]
            fits = SlotRooms(table, slots, self.policies).can_fit(self.budgets[group])[0]
            for slot, fit in zip(slots, fits.tolist(), strict=True):
                if fit:
                    most[slot.rank] = max(most[slot.rank], slot.counts[0])
        return bool(most.min() >= 0 and most.sum() >= total)

    def ranges(self, limit_s: float) -> list[Range]:
        """Every range that could be part of a placement within ``limit_s``."""
        total, pp = len(self.rows.problem.kinds), len(self.homes)
        m = int(self.rows.layouts.num_microbatches[0])
        spans_s = limit_s / m - self.own_s
        if self.lengths:
            cuts = np.cumsum([0, *self.lengths]).tolist()
            return [(rank, *span) for rank, span in enumerate(pairwise(cuts))]
        if spans_s.min() < 0.0:
            return []
        furthest, nearest = [0], [total]
        before = np.cumsum([0, *self.fewest]).tolist()
        for rank in range(pp):
            before_s = self.before_s[self.homes[rank]]
            stop = bisect_right(before_s, before_s[furthest[-1]] + spans_s[rank] * ROUNDING) - 1
            furthest.append(min(stop, total - (before[pp] - before[rank + 1])))
        for rank in range(pp - 1, -1, -1):
            before_s = self.before_s[self.homes[rank]]
            start = bisect_left(before_s, before_s[nearest[-1]] - spans_s[rank] * ROUNDING)
            nearest.append(max(start, before[rank]))
        nearest.reverse()
        if any(near > far for near, far in zip(nearest, furthest, strict=True)):
            return []
        found = []
        for rank in range(pp):
            before_s = self.before_s[self.homes[rank]]
            for start in range(nearest[rank], furthest[rank] + 1):
                for stop in range(max(nearest[rank + 1], start + self.fewest[rank]), furthest[rank + 1] + 1):
                    if before_s[stop] - before_s[start] > spans_s[rank] * ROUNDING:
                        break
                    found.append((rank, start, stop))
        return found

    def stage_problem(self, limit_s: float) -> StageProblem:
        """The stage program over all ranges within ``limit_s``."""
        problem, layouts = self.rows.problem, self.rows.layouts
        prefix = np.zeros((len(problem.kinds) + 1, problem.num_kinds), np.int64)
        for index, kind in enumerate(problem.kinds):
            prefix[index + 1] = prefix[index]
            prefix[index + 1, kind] += 1
        ranges = self.ranges(limit_s)
        slots = {key: Slot(key[0], tuple((prefix[key[2]] - prefix[key[1]]).tolist())) for key in ranges}
        self._price(set(slots.values()))
        choices: list[list[StageChoice]] = [[] for _ in self.homes]
        for rank, start, stop in ranges:
            option = self.options[self.homes[rank], slots[rank, start, stop]]
            if option is not None:
                choices[rank].append(StageChoice(start, stop, option))
        schedule = layouts.schedule_name(0)
        return StageProblem(
            choices=tuple(map(tuple, choices)),
            num_microbatches=int(layouts.num_microbatches[0]),
            edges_s=tuple(self.rows.edges.edge_s[0].tolist()),
            ahead=count_ahead(self.order),
            one_f_one_b=schedule == "1f1b",
            split_backward=SCHEDULES[schedule].splits_backward,
            replicas_per_core=0.0,
        )

    def _price(self, slots: set[Slot]) -> None:
        # Beside them a rank with every kind of layer: one without experts waits for the others' reductions, too.
        every = Slot(0, (1,) * self.rows.problem.num_kinds)
        for group, table in enumerate(self.rows.tables):
            new = sorted(
                (slot for slot in slots if self.homes[slot.rank] == group and (group, slot) not in self.options),
                key=lambda slot: (slot.rank, slot.counts),
            )
            if not new:
                continue
            priced = OptionColumns(SlotRooms(table, [*new, every], self.policies), self.budgets[group]).of_row(0)
            for slot in new:
                option = priced.get(slot)
                self.options[group, slot] = None if option is None else self._with_sends(option, slot.rank)

    def _with_sends(self, option: Option, rank: int) -> Option:
        """The group's own sends replaced by those of the rank's two edges."""
        busy_s, there_s = self.rows.edges.busy_s[0], float(self.rows.tables[self.homes[rank]].busy_s[0])
        on_s = float(busy_s[rank]) - there_s if rank < len(self.homes) - 1 else 0.0
        back_s = float(busy_s[rank - 1]) - there_s if rank > 0 else 0.0
        return replace(option, forward_s=option.forward_s + on_s, backward_s=option.backward_s + back_s)

    def evaluate(self, chosen: Sequence[StageChoice]) -> Evaluated:
        lengths = tuple(choice.stop - choice.start for choice in chosen)
        problem, layouts = self.rows.problem, self.rows.layouts
        dealt = deal(problem, lengths, range(len(lengths)), [choice.option.mix for choice in chosen])
        placement = Placement(layouts.row(0), layouts.schedule_name(0), lengths, dealt)
        return evaluate(problem, placement, layers=self.rows.tables)
