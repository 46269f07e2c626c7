"""Searching the family of building blocks for given times, stages and memory.

A building block says when each pass of one micro-batch would run if nothing stood in its way; micro-batch k follows k
periods later. Here a block is a few numbers: a pause before each sweep of the model (the stages of one chunk of all
ranks, forwards or backwards), a delay added to each hop inside a sweep, how long weight gradients are put off, and the
period. Its plan becomes urgencies and, if it holds passes back, release times for list scheduling, which settles what
collides and keeps to the cap. So the blocks hold for unequal stages and any delays, and lifespans still follow from
them: V-Min is the block of no delays, V-ZB the one whose every hop waits for a whole period's passes.

The numbers are found by hill climbing from the best block without delays.

Source: Qi et al. 2024, "Pipeline Parallelism with Controllable Memory", sections 2 and 3 (building blocks).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import inf
from random import Random

from costmodel.schema.schedule import PassKind
from planner.synthesis.budget import Budget
from planner.synthesis.lines import Lines
from planner.synthesis.list_scheduling import Rule, list_schedule
from planner.synthesis.problem import ROUNDING
from planner.synthesis.rules import deal_memory, heaviest_rank
from planner.synthesis.timing import Timing


@dataclass(frozen=True)
class Block:
    """``pauses`` and ``hops``: one a sweep, in units of the mean pass. ``late``: how long W is put off, in periods, or
    None: until nothing else is there. ``slower``: the period over the heaviest rank's work. ``held``: which passes wait
    for their planned time: none, the first stage's forwards, or all but W. ``shares``: whether the cap is dealt out
    among a rank's stages.
    """

    pauses: tuple[float, ...]
    hops: tuple[float, ...]
    late: float | None = None
    slower: float = 1.0
    held: str = "none"
    shares: bool = True
    patience: float = 1.0

    def rule(self, lines: Lines) -> Rule:
        """Urgencies, release times and limits."""
        num_stages, pp = lines.num_stages, lines.num_ranks
        period = self.slower * heaviest_rank(lines)
        unit = sum(lines.duration) / len(lines.duration)
        start = [0.0] * len(lines.kind)
        chain = [*range(num_stages), *range(2 * num_stages - 1, num_stages - 1, -1)]
        for at, line in enumerate(chain):
            for source, delay in lines.awaits[line]:
                sweep, place = divmod(at, pp)
                extra = self.hops[sweep] if place else self.pauses[sweep]
                start[line] = start[source] + lines.duration[source] + delay + extra * unit
        for line, kind in enumerate(lines.kind):
            if kind is PassKind.WEIGHT_GRAD:
                ((source, _),) = lines.awaits[line]
                late = 4 * lines.num_passes if self.late is None else self.late
                start[line] = start[source] + lines.duration[source] + late * period
        urgency = [[begin + turn * period for turn in range(lines.num_microbatches)] for begin in start]
        release = None
        if self.held != "none":
            free = [0.0] * lines.num_microbatches
            release = [
                times if kind is not PassKind.WEIGHT_GRAD and (self.held == "all" or line == 0) else free
                for line, (kind, times) in enumerate(zip(lines.kind, urgency, strict=True))
            ]
        backward = [begin + span for begin, span in zip(start, lines.duration, strict=True)]
        need = [backward[num_stages + lines.stage[line]] - start[line] for line in range(len(start))]
        return Rule(urgency, self.patience, True, deal_memory(lines, need) if self.shares else None, release)


def search_blocks(lines: Lines, bound: float, budget: Budget, random: Random) -> Iterator[tuple[Block, Timing]]:
    """Better and better blocks, with their schedules, until ``bound`` is met. One at least."""
    first, *starts = _starts(lines)
    best, best_makespan = first, inf
    waiting = [*reversed(starts), first]
    while True:
        block = waiting.pop() if waiting else _mutated(best, random)
        budget.spend(lines.num_passes)
        timing = list_schedule(lines, block.rule(lines))
        if timing.makespan <= best_makespan:
            if timing.makespan < best_makespan:
                yield block, timing
            best, best_makespan = block, timing.makespan
        if best_makespan <= bound * (1.0 + ROUNDING) or not budget.left:
            return


def _starts(lines: Lines) -> Iterator[Block]:
    """No delays: as it comes, and with forwards let in at a steady pace, slower and slower."""
    nothing = (0.0,) * -(-2 * lines.num_stages // lines.num_ranks)
    yield Block(nothing, nothing)
    for slower in (1.0, 1.05, 1.1, 1.15, 1.2, 1.3, 1.45):
        yield Block(nothing, nothing, slower=slower, held="first", shares=False)


def _mutated(block: Block, random: Random) -> Block:
    """One to three numbers of the block changed."""
    for _ in range(random.choice((1, 1, 2, 3))):
        what = random.choice(("pauses", "pauses", "hops", "hops", "late", "slower", "held", "shares", "patience"))
        if what == "pauses":
            block = replace(block, pauses=_nudged(block.pauses, 1.0, random))
        elif what == "hops":
            block = replace(block, hops=_nudged(block.hops, 0.5, random))
        elif what == "late":
            block = replace(block, late=random.choice((None, 0.0, 0.5, 1.0)))
        elif what == "slower":
            block = replace(block, slower=max(1.0, block.slower + random.choice((-0.1, -0.03, 0.03, 0.1))))
        elif what == "held":
            block = replace(block, held=random.choice(("none", "first", "all")))
        elif what == "shares":
            block = replace(block, shares=not block.shares)
        else:
            block = replace(block, patience=random.choice((0.0, 0.5, 1.0)))
    return block


def _nudged(numbers: tuple[float, ...], step: float, random: Random) -> tuple[float, ...]:
    at = random.randrange(len(numbers))
    moved = max(0.0, numbers[at] + step * random.choice((-1.0, -0.5, 0.5, 1.0)))
    return (*numbers[:at], moved, *numbers[at + 1 :])
