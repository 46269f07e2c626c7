"""Where parameters are gathered and dropped, and gradients reduced: checked where a schedule says so, else added."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from costmodel.passes.counts import COMPUTE_KINDS
from costmodel.schema.schedule import STAGE_KINDS, Pass, PassKind, Schedule

STAGES_AHEAD = 3
"""Stages of a rank that are gathered at a time: one in use forward, one backward, one on its way."""


def add_gathers(schedule: Schedule, stages_ahead: int = STAGES_AHEAD) -> Schedule:
    """The schedule with UNSHARD, RESHARD and REDUCE_GRAD, each left alone if the schedule has any of its kind.

    Before every pass the stages that the rank uses next, ``stages_ahead`` different ones, are gathered, and others
    dropped; at the end all are. A stage's gradients are reduced once, after its last B or W. The rule of PyTorch's
    pipelining runtime.
    """
    orders: list[Sequence[Pass]] = list(schedule.orders)
    if not schedule.kinds & {PassKind.UNSHARD, PassKind.RESHARD}:
        orders = [list(_gathered(order, stages_ahead)) for order in orders]
    if PassKind.REDUCE_GRAD not in schedule.kinds:
        orders = [list(_reduced(order)) for order in orders]
    return replace(schedule, orders=tuple(map(tuple, orders)))


_MAKES_GRADIENTS = frozenset({PassKind.BACKWARD, PassKind.WEIGHT_GRAD})


def _stages(step: Pass) -> list[int]:
    return [part.stage for part in step.work if part.kind in COMPUTE_KINDS]


def _gathered(order: Sequence[Pass], stages_ahead: int) -> Iterator[Pass]:
    next_stages: list[list[int]] = [[]]
    for step in reversed(order):
        used = list(dict.fromkeys(_stages(step)))
        later = [stage for stage in next_stages[-1] if stage not in used]
        # A pair needs both its stages, however few are to be gathered.
        next_stages.append(used + later[: max(stages_ahead - len(used), 0)])
    next_stages.reverse()
    held: list[int] = []
    for position, wanted in enumerate(next_stages):
        for stage in [stage for stage in held if stage not in wanted]:
            held.remove(stage)
            yield Pass(PassKind.RESHARD, stage)
        for stage in [stage for stage in wanted if stage not in held]:
            held.append(stage)
            yield Pass(PassKind.UNSHARD, stage)
        if position < len(order):
            yield order[position]


def _reduced(order: Sequence[Pass]) -> Iterator[Pass]:
    def grads(step: Pass) -> list[int]:
        return [part.stage for part in step.work if part.kind in _MAKES_GRADIENTS]

    left = Counter(stage for step in order for stage in grads(step))
    for step in order:
        yield step
        for stage in grads(step):
            left[stage] -= 1
            if not left[stage]:
                yield Pass(PassKind.REDUCE_GRAD, stage)


def misgathered(schedule: Schedule) -> list[str]:
    """What is wrong with the schedule's gathers and reductions, one sentence each; empty when nothing is.

    A stage with UNSHARD is gathered at each of its passes: one UNSHARD before, no RESHARD between. Neither is repeated.
    A stage with REDUCE_GRAD reduces what its passes left: a B or W stands before each, after the one before, and none
    after the last. One does for breadth-first orders; orders made of groups of micro-batches, as ZeroPP's scheduling
    units, may reduce group by group.

    Source: Tang et al. 2024, "ZeroPP"; Lamy-Poirier 2021, "Layered gradient accumulation and modular pipeline
    parallelism".
    """
    problems: list[str] = []
    if schedule.kinds & STAGE_KINDS:
        for rank, order in enumerate(schedule.orders):
            problems += _misgathered_on(rank, order)
    return problems


def _misgathered_on(rank: int, order: Sequence[Pass]) -> Iterator[str]:
    gathers = {step.stage for step in order if step.kind is PassKind.UNSHARD}
    reduces = {step.stage for step in order if step.kind is PassKind.REDUCE_GRAD}
    held: set[int] = set()
    unreduced: dict[int, Pass] = {}
    for step in order:
        stage = step.stage
        if step.kind is PassKind.UNSHARD:
            if stage in held:
                yield f"rank {rank}: pass {step} gathers what is gathered already"
            held.add(stage)
        elif step.kind is PassKind.RESHARD:
            if stage not in held:
                yield f"rank {rank}: pass {step} drops what is not gathered"
            held.discard(stage)
        elif step.kind is PassKind.REDUCE_GRAD:
            if stage not in unreduced:
                yield f"rank {rank}: pass {step} has nothing to reduce"
            unreduced.pop(stage, None)
        for part in step.work:
            if part.kind in COMPUTE_KINDS and part.stage in gathers and part.stage not in held:
                yield f"rank {rank}: pass {part} finds the parameters of stage {part.stage} not gathered"
            if part.kind in _MAKES_GRADIENTS:
                unreduced[part.stage] = part
    for stage, part in unreduced.items():
        if stage in reduces:
            yield f"rank {rank}: pass {part} comes after the last {stage}REDUCE_GRAD"
