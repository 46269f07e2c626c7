"""Whether an order of passes can be executed: each once, on its own rank, none waiting forever. Imports no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from costmodel.schema.schedule import Pass, PassKind, Schedule

FORWARD, BACKWARD, INPUT_GRAD, WEIGHT_GRAD = (
    PassKind.FORWARD,
    PassKind.BACKWARD,
    PassKind.INPUT_GRAD,
    PassKind.WEIGHT_GRAD,
)


def reasons_not_executable(schedule: Schedule) -> Iterator[str]:
    """Why ``schedule`` cannot be executed, the first reason of each sort; nothing when it can."""
    found = False
    for reasons in (_misplaced(schedule), _incomplete(schedule)):
        for reason in reasons:
            found = True
            yield reason
            break
    if not found:
        yield from _stuck(schedule)


def _misplaced(schedule: Schedule) -> Iterator[str]:
    for rank, order in enumerate(schedule.orders):
        for step in order:
            if step.stage >= schedule.num_stages or schedule.stage_to_rank[step.stage] != rank:
                yield f"pipeline.passes puts {step} on rank {rank}, but stage_to_rank does not"


def _incomplete(schedule: Schedule) -> Iterator[str]:
    seen = Counter(step for order in schedule.orders for step in order)
    for stage in range(schedule.num_stages):
        for microbatch in range(schedule.num_microbatches):
            counts = {kind: seen.pop(Pass(kind, stage, microbatch), 0) for kind in PassKind}
            made = {kind: count for kind, count in counts.items() if count}
            if made not in ({FORWARD: 1, BACKWARD: 1}, {FORWARD: 1, INPUT_GRAD: 1, WEIGHT_GRAD: 1}):
                yield f"pipeline.passes must have {stage}F{microbatch}, and {stage}B{microbatch} or its I and W, once"
    for extra in seen:
        yield f"pipeline.passes has {extra}, beyond num_microbatches = {schedule.num_microbatches}"


def _stuck(schedule: Schedule) -> Iterator[str]:
    done: set[Pass] = set()
    waiting = [list(reversed(order)) for order in schedule.orders]
    progress = True
    while progress:
        progress = False
        for order in waiting:
            while order and _is_ready(order[-1], schedule.num_stages, done):
                done.add(order.pop())
                progress = True
    for rank, order in enumerate(waiting):
        if order:
            yield f"pipeline.passes never ends: rank {rank} waits forever for what {order[-1]} needs"
            return


def _is_ready(step: Pass, num_stages: int, done: set[Pass]) -> bool:
    kind, stage, microbatch = step[:3]
    if kind is FORWARD:
        return stage == 0 or Pass(FORWARD, stage - 1, microbatch) in done
    if kind is WEIGHT_GRAD:
        return Pass(INPUT_GRAD, stage, microbatch) in done
    if Pass(FORWARD, stage, microbatch) not in done:
        return False
    following = (Pass(BACKWARD, stage + 1, microbatch), Pass(INPUT_GRAD, stage + 1, microbatch))
    return stage == num_stages - 1 or any(after in done for after in following)
