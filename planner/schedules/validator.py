"""One check for any schedule, generated or read from a file."""

from __future__ import annotations

from collections import Counter

from costmodel.schema.schedule import Pass, PassKind, Schedule

_FULL = [PassKind.FORWARD, PassKind.BACKWARD]
_SPLIT = [PassKind.FORWARD, PassKind.INPUT_GRAD, PassKind.WEIGHT_GRAD]


def check_schedule(schedule: Schedule) -> list[str]:
    """What is wrong with ``schedule``, one sentence each, naming rank and pass; empty when it can run.

    Four rules, each looked at when the ones before it hold:

    1. Every pass stands on the rank of its stage, and stage and micro-batch exist.
    2. Each stage runs F once for each micro-batch, and either B once or I and W once.
    3. On a rank, F stands before B or I of the same stage and micro-batch, and I before W.
    4. Run in each rank's order, with every pass waiting for its inputs, the passes all end: F needs the F of the stage
       before, B and I need the B or I of the stage after. Sends don't block; a receive waits.
    """
    return _misplaced(schedule) or _miscounted(schedule) or _misordered(schedule) or _deadlocked(schedule)


def _misplaced(schedule: Schedule) -> list[str]:
    problems = [
        f"stage {stage} is placed on rank {rank}, but there are {schedule.num_ranks} ranks"
        for stage, rank in enumerate(schedule.stage_to_rank)
        if not 0 <= rank < schedule.num_ranks
    ]
    for rank, order in enumerate(schedule.orders):
        for step in order:
            if not 0 <= step.stage < schedule.num_stages:
                count = schedule.num_stages
                problems.append(f"rank {rank}: pass {step} names a stage that does not exist (there are {count})")
            elif schedule.stage_to_rank[step.stage] != rank:
                home = schedule.stage_to_rank[step.stage]
                problems.append(f"rank {rank}: pass {step} belongs on rank {home}, where stage {step.stage} lives")
            elif not 0 <= step.microbatch < schedule.num_microbatches:
                count = schedule.num_microbatches
                problems.append(f"rank {rank}: pass {step} names a micro-batch that does not exist (there are {count})")
    return problems


def _miscounted(schedule: Schedule) -> list[str]:
    counts = Counter(step for order in schedule.orders for step in order)
    problems = []
    for stage, rank in enumerate(schedule.stage_to_rank):
        for microbatch in range(schedule.num_microbatches):
            # A micro-batch with any I or W is held to the split form.
            split = any(Pass(kind, stage, microbatch) in counts for kind in _SPLIT[1:])
            wanted = _SPLIT if split else _FULL
            for kind in PassKind:
                step = Pass(kind, stage, microbatch)
                times, once = counts.get(step, 0), int(kind in wanted)
                if times < once:
                    problems.append(f"rank {rank}: pass {step} is missing")
                elif times > once:
                    problems.append(
                        f"rank {rank}: pass {step} stands {times} times in the order"
                        if once
                        else f"rank {rank}: pass {step} stands beside a split backward of the same micro-batch"
                    )
    return problems


def _misordered(schedule: Schedule) -> list[str]:
    problems = []
    for rank, order in enumerate(schedule.orders):
        seen: set[Pass] = set()
        for step in order:
            before = _earlier_here(step)
            if before is not None and before not in seen:
                problems.append(f"rank {rank}: pass {step} comes before {before}")
            seen.add(step)
    return problems


def _earlier_here(step: Pass) -> Pass | None:
    """The pass of the same stage and micro-batch that must come first."""
    if step.kind is PassKind.FORWARD:
        return None
    kind = PassKind.INPUT_GRAD if step.kind is PassKind.WEIGHT_GRAD else PassKind.FORWARD
    return step._replace(kind=kind)


def _deadlocked(schedule: Schedule) -> list[str]:
    """Let every rank run until it waits for something not yet done, round after round, until none moves."""
    done: set[Pass] = set()
    reached = [0] * schedule.num_ranks
    moved = True
    while moved:
        moved = False
        for rank, order in enumerate(schedule.orders):
            while reached[rank] < len(order):
                step = order[reached[rank]]
                sent = _received(step, schedule.num_stages)
                if sent and done.isdisjoint(sent):
                    break
                done.add(step)
                reached[rank] += 1
                moved = True
    problems = []
    for rank, order in enumerate(schedule.orders):
        if reached[rank] < len(order):
            step = order[reached[rank]]
            sent = _received(step, schedule.num_stages)
            home = schedule.stage_to_rank[sent[0].stage]
            problems.append(f"rank {rank}: deadlock, pass {step} waits for ever for {sent[0]} of rank {home}")
    return problems


def _received(step: Pass, num_stages: int) -> tuple[Pass, ...]:
    """The passes of the neighbouring stage of which one must have sent what ``step`` takes in; empty if none."""
    kind, stage, microbatch = step[:3]
    if kind is PassKind.FORWARD:
        return (Pass(kind, stage - 1, microbatch),) if stage > 0 else ()
    if kind is PassKind.WEIGHT_GRAD or stage + 1 == num_stages:
        return ()
    return Pass(PassKind.BACKWARD, stage + 1, microbatch), Pass(PassKind.INPUT_GRAD, stage + 1, microbatch)
