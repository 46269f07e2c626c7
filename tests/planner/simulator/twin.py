"""The simulator once more, slowly: queues of jobs in plain dictionaries, from ``costmodel.passes.Rules`` alone.

A resource (a rank's compute, its communication, a link, a collective) runs its queue in order; a job starts when the
one before it and all that it needs have ended.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from costmodel.passes import Rules
from costmodel.passes.rules import WHOLE, Product
from costmodel.schema.schedule import Pass, PassKind, Schedule
from planner.simulator import StageTimes

VOCAB_FIELDS = {
    PassKind.VOCAB_IN_FORWARD: "embed_forward_s",
    PassKind.VOCAB_IN_BACKWARD: "embed_backward_s",
    PassKind.VOCAB_FORWARD: "forward_s",
    PassKind.VOCAB_BACKWARD: "backward_s",
    PassKind.VOCAB_WEIGHT_GRAD: "weight_grad_s",
}
TRANSFERS = (PassKind.UNSHARD, PassKind.REDUCE_GRAD)


@dataclass
class Job:
    """``needs``: jobs with the delay from their end; ``along``: a job, and how long after its start this one may."""

    work_s: float
    needs: list[tuple[Hashable, float]] = field(default_factory=list)
    along: tuple[Hashable, float] | None = None


def at(column: Any, index: int) -> float:
    return float(np.asarray(column).reshape(-1)[index])


def duration_s(step: Pass, times: StageTimes) -> float:
    stage = step.stage
    match step.kind:
        case PassKind.FORWARD:
            return at(times.forward_s, stage)
        case PassKind.BACKWARD:
            if times.backward_s is not None:
                return at(times.backward_s, stage) + at(times.recompute_s, stage)
            return at(times.input_grad_s, stage) + at(times.weight_grad_s, stage) + at(times.recompute_s, stage)
        case PassKind.INPUT_GRAD:
            return at(times.input_grad_s, stage) + at(times.recompute_s, stage)
        case PassKind.WEIGHT_GRAD:
            return at(times.weight_grad_s, stage)
        case PassKind.UNSHARD:
            return at(times.gather_s, stage)
        case PassKind.REDUCE_GRAD:
            return at(times.reduce_s, stage)
        case PassKind.FROZEN_FORWARD:
            return at(times.frozen.forward_s, stage)
        case PassKind.OVERLAP:
            forward, backward = step.parts
            if times.overlap_s is None:
                return duration_s(forward, times) + duration_s(backward, times)
            whole = duration_s(backward._replace(kind=PassKind.BACKWARD), times)
            return max(at(times.overlap_s, stage) - (whole - duration_s(backward, times)), 0.0)
        case PassKind.RESHARD:
            return 0.0
    return at(getattr(times.vocab, VOCAB_FIELDS[step.kind]), stage)


def run(schedule: Schedule, times: StageTimes) -> dict[Hashable, tuple[float, float]]:
    """(start, end) of (rank, place in its order) for every pass, and of everything else that was queued."""
    rules = Rules(schedule)
    queues: dict[Hashable, list[Hashable]] = defaultdict(list)
    jobs: dict[Hashable, Job] = {}
    makers: dict[Product, list[Hashable]] = defaultdict(list)
    home = schedule.stage_to_rank
    occupies = bool(np.any(times.wire_s))
    level = [0] * max(schedule.num_stages - 1, 0) if times.edge_level is None else times.edge_level.tolist()
    for rank, order in enumerate(schedule.orders):
        for place, step in enumerate(order):
            for part in step.work:
                if (product := rules.makes(part)) is not None:
                    makers[product].append((rank, place))

    leaving: dict[Hashable, list[tuple[Any, Hashable]]] = defaultdict(list)
    for rank, order in enumerate(schedule.orders):
        compute: Hashable = None
        gathered: dict[int, Hashable] = {}
        for place, step in enumerate(order):
            me = (rank, place)
            jobs[me] = Job(duration_s(step, times))
            if step.kind in TRANSFERS:
                queues["communication", rank].append(me)
                if compute is not None:
                    jobs[me].needs.append((compute, 0.0))
                if step.kind is PassKind.UNSHARD:
                    gathered[step.stage] = me
                continue
            queues["compute", rank].append(me)
            compute = me
            for part in step.work:
                if part.kind in "FBIW" and part.stage in gathered:
                    jobs[me].needs.append((gathered[part.stage], 0.0))
                for product in rules.takes(part):
                    if product.stage == WHOLE:
                        jobs[me].needs.append((product, 0.0))
                        continue
                    (maker,) = makers[product]
                    if maker[0] == rank:
                        jobs[me].needs.append((maker, 0.0))
                    elif product.what == "frozen":
                        jobs[me].needs.append((maker, at(times.frozen.edge_s, product.stage)))
                    elif part.kind.startswith("VOCAB"):
                        jobs[me].needs.append((maker, float(times.vocab.broadcast_s)))
                    else:
                        edge = min(product.stage, part.stage)
                        delay = at(times.edge_s, edge)
                        if not occupies:
                            jobs[me].needs.append((maker, delay))
                            continue
                        out, into = ("out", product), ("into", product)
                        jobs[out] = Job(at(times.wire_s, edge), [(maker, 0.0)])
                        jobs[into] = Job(at(times.wire_s, edge), along=(out, delay))
                        jobs[me].needs.append((into, 0.0))
                        leaving["send", home[product.stage], level[edge]].append(((maker[1], product.what), out))
                        queues["receive", rank, level[edge]].append(into)
    for link, messages in leaving.items():
        queues[link] = [out for _, out in sorted(messages)]
    joint_s = {"embedded": "embedded_s", "statistics": "statistics_s", "vocab_gradient": "vocab_gradient_s"}
    for product, parts in sorted(makers.items(), key=lambda item: min(item[1])):
        if product.stage == WHOLE:
            work_s = float(getattr(times.vocab, joint_s[product.what]))
            jobs[product] = Job(work_s, [(maker, 0.0) for maker in parts])
            queues[product.what].append(product)
    return _run_queues(queues, jobs)


def _run_queues(
    queues: dict[Hashable, list[Hashable]], jobs: dict[Hashable, Job]
) -> dict[Hashable, tuple[float, float]]:
    when: dict[Hashable, tuple[float, float]] = {}
    moved = True
    while moved:
        moved = False
        for queue in queues.values():
            free = 0.0
            for name in queue:
                if name not in when:
                    job = jobs[name]
                    if any(need not in when for need, _ in job.needs) or (job.along and job.along[0] not in when):
                        break
                    start = max([free, *(when[need][1] + delay for need, delay in job.needs)])
                    if job.along:
                        start = max(start, when[job.along[0]][0] + job.along[1])
                    when[name] = start, start + job.work_s
                    moved = True
                free = when[name][1]
    assert len(when) == len(jobs), "the queues wait for each other"
    return when
