"""Rules of urgency for list scheduling: the many short greedy ideas, of which some fit any problem.

Two families:

* By kind. Backwards before forwards, or the reverse; among chunks, those nearest the loss first (depth first), those
  farthest (breadth first), or by groups of p micro-batches (interleaved); weight gradients at once, when the rank would
  be idle, or when they are the only way to room.
* By age. A pass is as urgent as it would be early if each micro-batch left the first stage one period after the one
  before and met no queue: k · period + the longest chain before the pass. Stretching the forwards, the backwards or the
  wait for the weight gradient gives building blocks of other lifespans.

Either may be held to less memory than there is, in proportion to how long a rank's micro-batches must live anyway.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import inf

from costmodel.schema.schedule import PassKind
from planner.synthesis.lines import Lines
from planner.synthesis.list_scheduling import Rule

_FAR = 1e9
"""Beyond any count of passes: what separates one kind from the next."""


@dataclass(frozen=True)
class KindRule:
    """Urgency by kind. ``order``: "I first" or "F first"; ``chunks``: "depth first", "breadth first", "in groups";
    ``weight_grad``: "at once" or "when idle"; ``held``: the limits, by name.
    """

    order: str
    chunks: str
    weight_grad: str
    patience: float
    held: str

    def rule(self, lines: Lines) -> Rule:
        """For these lines."""
        m, pp, num_stages = lines.num_microbatches, lines.num_ranks, lines.num_stages
        turns = {"I first": (1, 0), "F first": (0, 1)}[self.order]
        sign = {"depth first": -1, "breadth first": 1, "in groups": 0}[self.chunks]
        urgency = []
        for kind, stage in zip(lines.kind, lines.stage, strict=True):
            if kind is PassKind.WEIGHT_GRAD:
                base = -_FAR if self.weight_grad == "at once" else 2 * _FAR
                urgency.append([base + k for k in range(m)])
                continue
            forward = kind is PassKind.FORWARD
            base, along = (turns[0] * _FAR, stage) if forward else (turns[1] * _FAR, num_stages - 1 - stage)
            if sign:
                urgency.append([base + sign * along * 2 * m + k for k in range(m)])
            else:
                urgency.append([base + (k // pp * num_stages + along) * pp + k % pp for k in range(m)])
        return Rule(urgency, self.patience, limits=_limits(lines)[self.held])


@dataclass(frozen=True)
class AgeRule:
    """Urgency by age. ``forward``, ``backward``: factors on the chain; ``late``: how long W is put off, in periods."""

    forward: float
    backward: float
    late: float
    patience: float
    held: str

    def rule(self, lines: Lines) -> Rule:
        """For these lines."""
        period, head = heaviest_rank(lines), _heads(lines, self.forward, self.backward)
        late = 4 * lines.num_passes * period if self.late == inf else self.late * period
        start = [
            begin + late if kind is PassKind.WEIGHT_GRAD else begin
            for begin, kind in zip(head, lines.kind, strict=True)
        ]
        urgency = [[begin + k * period for k in range(lines.num_microbatches)] for begin in start]
        return Rule(urgency, self.patience, limits=_limits(lines)[self.held])


def rules(lines: Lines) -> Iterator[KindRule | AgeRule]:
    """Every rule for lines like these, the more often successful first."""
    named = _limits(lines)
    held = [name for at, name in enumerate(named) if named[name] not in list(named.values())[:at]]
    splits, several = PassKind.WEIGHT_GRAD in lines.kind, lines.num_stages > lines.num_ranks
    chunks = ("depth first", "breadth first", "in groups") if several else ("depth first",)
    stretches = ((2.0, 2.0), (1.0, 1.0), (1.0, 1.5), (1.5, 1.0))
    for patience, late, limits in product((1.0, 0.5, 0.0), (inf, 1.0, 0.0) if splits else (0.0,), held):
        for forward, backward in stretches:
            yield AgeRule(forward, backward, late, patience, limits)
        for order, chunk in product(("I first", "F first"), chunks):
            if late != 1.0:
                yield KindRule(order, chunk, "at once" if late == 0.0 else "when idle", patience, limits)


@lru_cache(maxsize=8)
def _limits(lines: Lines) -> dict[str, list[float] | None]:
    """Limits of each line that takes memory: none; or the cap dealt out among a rank's stages; or, where that is less,
    what a queue-free round trip at full rate needs, and half as much more.
    """
    head = _heads(lines, 1.0, 1.0)
    need = [head[giver] + lines.duration[giver] - head[line] for line, giver in enumerate(lines.giver)]
    factors = {"by lifespan": inf, "1 x round trip": 1.0, "1.5 x round trip": 1.5}
    dealt = {name: deal_memory(lines, need, factor / heaviest_rank(lines)) for name, factor in factors.items()}
    return {"full memory": None, **dealt}


def deal_memory(lines: Lines, lifespan: list[float], rate: float = inf) -> list[float]:
    """By line, how many micro-batches those that take memory may keep: a rank's cap dealt out in proportion to how long
    each keeps one, so that no chunk starves another, and no more than ``rate`` of them start in that time.
    """
    limits = [inf] * len(lines.kind)
    for takers, cap in zip(lines.takers, lines.caps, strict=True):
        for line, count in _dealt(lines, takers, cap, lifespan, rate).items():
            limits[line] = count
    return limits


def _dealt(lines: Lines, takers: tuple[int, ...], cap: float, need: list[float], rate: float) -> dict[int, float]:
    """One micro-batch for each taker, then one more to whichever has the least for its need, while there is room."""
    count = dict.fromkeys(takers, 1.0)
    room = cap - sum(lines.takes[line] for line in takers)
    while True:
        poor = [
            line
            for line in takers
            if lines.takes[line] <= room and count[line] < (rate * need[line] if need[line] else 1.0)
        ]
        poor = [line for line in poor if count[line] < lines.num_microbatches]
        if not poor:
            return count
        line = min(poor, key=lambda line: (count[line] + 0.5) / need[line] if need[line] else inf)
        count[line] += 1
        room -= lines.takes[line]


def heaviest_rank(lines: Lines) -> float:
    """Work of one micro-batch on the rank that has most: the shortest period."""
    return max(lines.work_of(rank) for rank in range(lines.num_ranks)) or 1.0


def _heads(lines: Lines, stretch_f: float, stretch_i: float) -> list[float]:
    """Longest chain before the first pass of each line, forwards and backwards stretched."""
    stretch = {PassKind.FORWARD: stretch_f, PassKind.WEIGHT_GRAD: 1.0}
    head = [0.0] * len(lines.kind)
    num_stages = lines.num_stages
    chain = [*range(num_stages), *range(2 * num_stages - 1, num_stages - 1, -1), *range(2 * num_stages, len(head))]
    for line in chain:
        for source, delay in lines.awaits[line]:
            long = stretch.get(lines.kind[source], stretch_i)
            head[line] = max(head[line], head[source] + long * (lines.duration[source] + delay))
    return head
