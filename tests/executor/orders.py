"""Orders of passes for any placement of stages, published or not."""

from __future__ import annotations

from dataclasses import replace

from costmodel.schema.schedule import Pass, PassKind, Schedule


def one_by_one(placement: tuple[int, ...], num_microbatches: int, copies: int = 2) -> Schedule:
    """One micro-batch after the other there and back; ``placement`` is the rank of each stage, copies take turns."""
    per_copy = len(placement) // copies
    orders: list[list[Pass]] = [[] for _ in range(max(placement) + 1)]
    for microbatch in range(num_microbatches):
        copy = microbatch % copies
        stages = range(copy * per_copy, (copy + 1) * per_copy)
        for kind, way in ((PassKind.FORWARD, stages), (PassKind.BACKWARD, reversed(stages))):
            for stage in way:
                orders[placement[stage]].append(Pass(kind, stage, microbatch))
    return Schedule("one-by-one", num_microbatches, placement, tuple(map(tuple, orders)), copies)


def gathered(schedule: Schedule) -> Schedule:
    """Every pass with a gather of its own, every backward with a reduction: more of both than any schedule asks for."""

    def around(step: Pass) -> tuple[Pass, ...]:
        unshard, reshard, reduce = (
            Pass(kind, step.stage) for kind in (PassKind.UNSHARD, PassKind.RESHARD, PassKind.REDUCE_GRAD)
        )
        ends = step.kind in (PassKind.BACKWARD, PassKind.WEIGHT_GRAD)
        return (unshard, step, reshard, reduce) if ends else (unshard, step, reshard)

    orders = tuple(tuple(each for step in order for each in around(step)) for order in schedule.orders)
    return replace(schedule, orders=orders)
