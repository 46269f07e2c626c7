"""One check for any schedule, generated, found or read from a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from costmodel.passes.counts import miscounted
from costmodel.passes.gathers import misgathered
from costmodel.passes.in_flight import over_limit
from costmodel.passes.rules import Product, Rules
from costmodel.passes.run import Stuck, run_passes
from costmodel.schema.schedule import NO_MICROBATCH, STAGE_KINDS, VOCAB_KINDS, Pass, PassKind, Schedule

_BACKWARDS = (PassKind.BACKWARD, PassKind.INPUT_GRAD)


def check_schedule(schedule: Schedule, limit: float | Sequence[float] | None = None) -> list[str]:
    """What is wrong with ``schedule``, one sentence each, naming rank and pass; empty when it can run.

    The rules, each looked at when the ones before it hold:

    1. Every pass stands on the rank of its stage (a vocabulary pass on the rank it names), stage and micro-batch exist,
       and a pair is an F and a B or I.
    2. Every micro-batch crosses one copy of the model: there each stage runs F once, and either B once or I and W once;
       in other copies nothing. Vocabulary passes: counts.py. A frozen model's pieces stand once for each micro-batch
       that has any.
    3. Run in each rank's order, with every pass waiting for what it takes (rules.py), the passes all end. Sends don't
       block; a receive waits; the parts of a pair both wait before either starts.
    4. A stage with UNSHARD is gathered at each of its passes, RESHARD drops what is gathered, and the last REDUCE_GRAD
       of a stage comes after its last B or W (gathers.py).
    5. With ``limit``, one figure or one per rank: no rank keeps more alive, in micro-batches of all of its layers
       (in_flight.py).
    """
    return (
        list(_misplaced(schedule))
        or miscounted(schedule)
        or _never_ending(schedule)
        or misgathered(schedule)
        or ([] if limit is None else over_limit(schedule, limit))
    )


def _misplaced(schedule: Schedule) -> Iterator[str]:
    num_ranks, num_stages, num_microbatches = schedule.num_ranks, schedule.num_stages, schedule.num_microbatches
    if schedule.copies < 1 or num_stages % schedule.copies:
        yield f"{schedule.copies} copies of a model don't share {num_stages} stages evenly"
        return
    for stage, rank in enumerate(schedule.stage_to_rank):
        if not 0 <= rank < num_ranks:
            yield f"stage {stage} is placed on rank {rank}, but there are {num_ranks} ranks"
    for rank, order in enumerate(schedule.orders):
        for step in order:
            if (step.parts or step.kind is PassKind.OVERLAP) and not _is_pair(step):
                yield f"rank {rank}: pass {step} does not pair an F with a B or I"
                continue
            for part in step.parts or (step,):
                kind, stage, microbatch, _ = part
                if kind in VOCAB_KINDS:
                    if stage != rank:
                        yield f"rank {rank}: pass {part} belongs on rank {stage}, whose part of the vocabulary it names"
                elif kind is PassKind.FROZEN_FORWARD:
                    if stage < 0:
                        yield f"rank {rank}: pass {part} names a piece that does not exist (they count up from 0)"
                elif not 0 <= stage < num_stages:
                    yield f"rank {rank}: pass {part} names a stage that does not exist (there are {num_stages})"
                    continue
                elif schedule.stage_to_rank[stage] != rank:
                    home = schedule.stage_to_rank[stage]
                    yield f"rank {rank}: pass {part} belongs on rank {home}, where stage {stage} lives"
                    continue
                if kind in STAGE_KINDS:
                    if microbatch != NO_MICROBATCH:
                        yield f"rank {rank}: pass {part} names a micro-batch, but concerns its stage as a whole"
                elif not 0 <= microbatch < num_microbatches:
                    count = num_microbatches
                    yield f"rank {rank}: pass {part} names a micro-batch that does not exist (there are {count})"


def _is_pair(step: Pass) -> bool:
    if step.kind is not PassKind.OVERLAP or len(step.parts) != 2:
        return False
    forward, backward = step.parts
    return forward.kind is PassKind.FORWARD and backward.kind in _BACKWARDS


_Makers = dict[Product, list[tuple[int, int, Pass]]]
"""Product -> (rank, position, pass) of each pass that makes it or a part of it."""


def _never_ending(schedule: Schedule) -> list[str]:
    stuck = run_passes(schedule)
    if not stuck:
        return []
    rules = Rules(schedule)
    makers: _Makers = {}
    for rank, order in enumerate(schedule.orders):
        for at, step in enumerate(order):
            for part in step.work:
                product = rules.makes(part)
                if product is not None:
                    makers.setdefault(product, []).append((rank, at, part))
    return list(_crossed(schedule, rules, makers)) or list(_deadlocked(schedule, stuck, makers))


def _crossed(schedule: Schedule, rules: Rules, makers: _Makers) -> Iterator[str]:
    """Passes that stand before one of their own rank that they need, or beside it."""
    for rank, order in enumerate(schedule.orders):
        for at, step in enumerate(order):
            for part in step.work:
                for product in rules.takes(part):
                    for home, place, maker in makers[product]:
                        if home == rank and place >= at:
                            how = "comes before" if place > at else "runs beside"
                            yield f"rank {rank}: pass {part} {how} {maker}"


def _deadlocked(schedule: Schedule, stuck: list[Stuck], makers: _Makers) -> Iterator[str]:
    reached = {rank: position for rank, position, _ in stuck}
    for rank, position, product in stuck:
        home, maker = next(
            (home, maker) for home, at, maker in makers[product] if home in reached and at >= reached[home]
        )
        step = schedule.orders[rank][position]
        yield f"rank {rank}: deadlock, pass {step} waits for ever for {maker} of rank {home}"
