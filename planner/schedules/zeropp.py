"""ZeroPP: pipeline and fully sharded data parallelism, made for each other by scheduling units.

A unit is U micro-batches, U >= 2p - 1 where there are that many. In it a rank takes its v stages one after the other,
all of a unit's forwards through one before the next, then input gradients from the last stage to the first. The last
stage's forwards and input gradients alternate: with U >= 2p - 1 its first gradient reaches rank 0 before rank 0 is done
with its forwards. Weight gradients fill whatever would be idle, and end before the next unit starts.

So each stage is gathered twice a unit (a last stage once, and the first stages only once between two units), no more
than U micro-batches are alive, and with F = I = W only the start-up of the last rank is idle, however many units:

    bubble / (busy + bubble) = (p - 1) / (3v·m + p - 1)          F = I = W and m >= p

Source: Tang et al. 2024, "ZeroPP: Unleashing Exceptional Parallelism Efficiency through Tensor-Parallelism-Free
Methodology" (units, blocks of one stage, a gather for each block, weight gradients as filler, memory of one unit). The
order within a unit and the formula are derived here from these rules.
"""

from __future__ import annotations

from collections import deque

from costmodel.schema.schedule import Pass, PassKind
from planner.schedules.gathers import with_gathers
from planner.schedules.rounds import rounds


def zeropp(pp: int, num_microbatches: int, vpp: int) -> list[list[Pass]]:
    """The passes of each rank in order, gathers included; ``vpp`` stages a rank, looped."""
    units = rounds(num_microbatches, 2 * pp - 1)
    ranks = [_Rank(range(rank, pp * vpp, pp), units) for rank in range(pp)]
    done: set[Pass] = set()
    while any(rank.busy for rank in ranks):
        # One tick: every rank sees what had ended before it, for F, I and W are equally long.
        done.update([step for rank in ranks if (step := rank.advance(done, pp * vpp)) is not None])
    return [with_gathers(rank.order) for rank in ranks]


class _Rank:
    """One rank's choice, tick by tick: an input gradient, else a forward, else a weight gradient."""

    def __init__(self, stages: range, units: list[range]) -> None:
        self.order: list[Pass] = []
        self._units = deque(units)
        self._stages = stages
        self._forwards: deque[Pass] = deque()
        self._input_grads: deque[Pass] = deque()
        self._weight_grads: deque[Pass] = deque()

    @property
    def busy(self) -> bool:
        return bool(self._units or self._forwards or self._input_grads or self._weight_grads)

    def advance(self, done: set[Pass], num_stages: int) -> Pass | None:
        """Append the next pass, if one can start."""
        if self._units and not (self._forwards or self._input_grads or self._weight_grads):
            unit = self._units.popleft()
            self._forwards.extend(Pass(PassKind.FORWARD, stage, at) for stage in self._stages for at in unit)
            self._input_grads.extend(
                Pass(PassKind.INPUT_GRAD, stage, at) for stage in reversed(self._stages) for at in unit
            )
        if self._input_grads and _ready(self._input_grads[0], done, num_stages):
            step = self._input_grads.popleft()
            self._weight_grads.append(step._replace(kind=PassKind.WEIGHT_GRAD))
        elif self._forwards and _ready(self._forwards[0], done, num_stages):
            step = self._forwards.popleft()
        elif self._weight_grads:
            step = self._weight_grads.popleft()
        else:
            return None
        self.order.append(step)
        return step


def _ready(step: Pass, done: set[Pass], num_stages: int) -> bool:
    if step.kind is PassKind.FORWARD:
        return step.stage == 0 or step._replace(stage=step.stage - 1) in done
    own = step._replace(kind=PassKind.FORWARD)
    return own in done and (step.stage + 1 == num_stages or step._replace(stage=step.stage + 1) in done)
