"""How much of a step's work a rank keeps alive, counted on the order alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction

from costmodel.schema.errors import InvalidSpec
from costmodel.schema.schedule import Pass, PassKind, Schedule

_ENDS = frozenset({PassKind.BACKWARD, PassKind.WEIGHT_GRAD})


def peak_in_flight(schedule: Schedule) -> list[float]:
    """The most that each rank keeps alive, in micro-batches of all of its layers.

    A stage's activations live from its F to its W (to its B when not split) and weigh what the stage is of its rank's
    layers: 1 over the number of the copy's stages there. A pair holds both its parts' until it ends.
    """
    return [float(max((alive for _, alive in _alive(schedule, rank)), default=0)) for rank in range(schedule.num_ranks)]


def over_limit(schedule: Schedule, limit: float | Sequence[float]) -> list[str]:
    """Of each rank that keeps more than ``limit`` alive, in micro-batches of all of its layers, the first pass that
    goes beyond. ``limit``: one figure, or one per rank. Raises InvalidSpec for another number of figures.
    """
    limits = list(limit) if isinstance(limit, Sequence) else [limit] * schedule.num_ranks
    if len(limits) != schedule.num_ranks:
        raise InvalidSpec(
            f"limit has {len(limits)} figures; it needs one, or one for each of {schedule.num_ranks} ranks"
        )
    problems = []
    for rank, most in enumerate(limits):
        # Limits such as 4 / 3 are not exact, the weights are.
        beyond = next(((step, alive) for step, alive in _alive(schedule, rank) if alive > most * (1 + 1e-9)), None)
        if beyond is not None:
            step, alive = beyond
            problems.append(f"rank {rank}: pass {step} makes {float(alive):g} micro-batches alive, beyond {most:g}")
    return problems


def _alive(schedule: Schedule, rank: int) -> Iterator[tuple[Pass, Fraction]]:
    """Each pass of the rank that starts something, and what is alive with it."""
    per_copy = schedule.stages_per_copy
    sharing = Counter(stage // per_copy for stage, home in enumerate(schedule.stage_to_rank) if home == rank)
    alive = Fraction(0)
    for step in schedule.orders[rank]:
        for part in step.work:
            if part.kind is PassKind.FORWARD:
                alive += Fraction(1, sharing[part.stage // per_copy])
                yield step, alive
        for part in step.work:
            if part.kind in _ENDS:
                alive -= Fraction(1, sharing[part.stage // per_copy])
