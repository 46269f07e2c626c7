"""Whether each pass of a schedule stands there exactly once."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from costmodel.schema.schedule import STAGE_KINDS, VOCAB_KINDS, Pass, PassKind, Schedule

Counts = Counter[Pass]

COMPUTE_KINDS = frozenset({PassKind.FORWARD, PassKind.BACKWARD, PassKind.INPUT_GRAD, PassKind.WEIGHT_GRAD})
"""Kinds that run one stage for one micro-batch."""

_EMBEDDING = frozenset({PassKind.VOCAB_IN_FORWARD, PassKind.VOCAB_IN_BACKWARD})
_TWO_BARRIERS = frozenset({PassKind.VOCAB_FORWARD, PassKind.VOCAB_BACKWARD})
_ONE_BARRIER = frozenset({PassKind.VOCAB_FORWARD, PassKind.VOCAB_WEIGHT_GRAD})


def miscounted(schedule: Schedule) -> list[str]:
    """What is missing or too much, one sentence each; empty when nothing is. Every pass stands on its own rank.

    A micro-batch crosses one copy of the model, where each stage runs F once, and either B once or I and W once.
    Vocabulary passes: VOCAB_IN_F goes with VOCAB_IN_B, VOCAB_F with either VOCAB_B or VOCAB_W; each rank runs each kind
    that the schedule has once per micro-batch; the model has one copy. A frozen model's pieces run once each, on any
    rank, for every micro-batch that has any.
    """
    counts = Counter(part for order in schedule.orders for step in order for part in step.parts or (step,))
    problems = [*_incomplete(schedule, counts), *_repeated(schedule, counts)]
    if schedule.kinds & VOCAB_KINDS:
        problems += _vocabulary(schedule, counts)
    if PassKind.FROZEN_FORWARD in schedule.kinds:
        problems += _frozen(counts)
    return problems


def _incomplete(schedule: Schedule, counts: Counts) -> Iterator[str]:
    crossings = _crossings(schedule, counts)
    for microbatch, copies in enumerate(crossings):
        if len(copies) != 1:
            which = f"copies {' and '.join(map(str, copies))}" if copies else "none of the copies"
            yield f"micro-batch {microbatch} crosses {which} of the model; it must cross one"
    for stage, rank in enumerate(schedule.stage_to_rank):
        copy = stage // schedule.stages_per_copy
        for microbatch, copies in enumerate(crossings):
            if copies != [copy]:
                continue
            forward, backward = Pass(PassKind.FORWARD, stage, microbatch), Pass(PassKind.BACKWARD, stage, microbatch)
            input_grad = Pass(PassKind.INPUT_GRAD, stage, microbatch)
            weight_grad = Pass(PassKind.WEIGHT_GRAD, stage, microbatch)
            # A micro-batch with any I or W is held to the split form.
            split = input_grad in counts or weight_grad in counts
            if split and backward in counts:
                yield f"rank {rank}: pass {backward} stands beside a split backward of the same micro-batch"
            for step in (forward, input_grad, weight_grad) if split else (forward, backward):
                if step not in counts:
                    yield f"rank {rank}: pass {step} is missing"


def _crossings(schedule: Schedule, counts: Counts) -> list[list[int]]:
    """Of each micro-batch the copies of the model that it meets."""
    if schedule.copies == 1:
        return [[0]] * schedule.num_microbatches
    met: list[set[int]] = [set() for _ in range(schedule.num_microbatches)]
    for kind, stage, microbatch, _ in counts:
        if kind in COMPUTE_KINDS:
            met[microbatch].add(stage // schedule.stages_per_copy)
    return [sorted(copies) for copies in met]


def _repeated(schedule: Schedule, counts: Counts) -> Iterator[str]:
    for part, times in counts.items():
        if times == 1 or part.kind in STAGE_KINDS:
            continue
        place = "" if part.kind is PassKind.FROZEN_FORWARD else f"rank {_rank_of(schedule, part)}: "
        yield f"{place}pass {part} stands {times} times in the order"


def _rank_of(schedule: Schedule, part: Pass) -> int:
    return part.stage if part.kind in VOCAB_KINDS else schedule.stage_to_rank[part.stage]


def _vocabulary(schedule: Schedule, counts: Counts) -> Iterator[str]:
    kinds = schedule.kinds & VOCAB_KINDS
    if schedule.copies > 1:
        yield f"vocabulary passes go with one copy of the model, not {schedule.copies}"
    if kinds & _EMBEDDING not in (frozenset(), _EMBEDDING):
        yield "VOCAB_IN_F and VOCAB_IN_B go together"
    if kinds - _EMBEDDING not in (frozenset(), _TWO_BARRIERS, _ONE_BARRIER):
        yield "VOCAB_F goes with VOCAB_B or with VOCAB_W, neither with both nor alone"
    for kind in sorted(kinds):
        for rank in range(schedule.num_ranks):
            for microbatch in range(schedule.num_microbatches):
                if (step := Pass(kind, rank, microbatch)) not in counts:
                    yield f"rank {rank}: pass {step} is missing"


def _frozen(counts: Counts) -> Iterator[str]:
    pieces: defaultdict[int, set[int]] = defaultdict(set)
    for part in counts:
        if part.kind is PassKind.FROZEN_FORWARD:
            pieces[part.microbatch].add(part.stage)
    num_pieces = 1 + max(max(own) for own in pieces.values())
    for microbatch, own in sorted(pieces.items()):
        for piece in range(num_pieces):
            if piece not in own:
                yield f"pass {Pass(PassKind.FROZEN_FORWARD, piece, microbatch)} is missing"
