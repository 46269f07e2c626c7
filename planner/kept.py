"""What an order of passes keeps on every rank, counted pass by pass: exact where closed forms only bound it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from costmodel.kept import KeptMicrobatches
from costmodel.layouts import Column
from costmodel.schema.schedule import PassKind, Schedule
from planner.simulator.columns import KINDS, columns_of
from planner.simulator.per_schedule import PerSchedule

Steps = NDArray[np.int64]

_CHANGED = {
    PassKind.FORWARD: (1, 0, 1, 0),
    PassKind.BACKWARD: (-1, 0, -1, 0),
    PassKind.INPUT_GRAD: (0, 1, -1, 0),
    PassKind.WEIGHT_GRAD: (-1, -1, 0, 0),
    PassKind.VOCAB_FORWARD: (0, 0, 0, 1),
    PassKind.VOCAB_BACKWARD: (0, 0, 0, -1),
    PassKind.VOCAB_WEIGHT_GRAD: (0, 0, 0, -1),
}
"""Kind -> what it adds to (alive, waiting, unreached, logits): from F to B or W, from I to W, from F to B or I, and of
a split vocabulary from VOCAB_F to VOCAB_B or VOCAB_W."""

_CHANGES = np.array([_CHANGED.get(kind, (0, 0, 0, 0)) for kind in KINDS], np.int64).T
_COUNTED = np.asarray(_CHANGES.any(axis=0))


@dataclass(frozen=True, eq=False)
class KeptCounts:
    """Micro-batches of each stage that its rank keeps, pass by pass.

    ``stage``: per rank the stage of every pass in its order, pairs taken apart, F first. ``alive``, ``waiting``,
    ``unreached``, ``logits``: per rank what each changes.
    """

    num_stages: int
    stage: tuple[Steps, ...]
    alive: tuple[Steps, ...]
    waiting: tuple[Steps, ...]
    unreached: tuple[Steps, ...]
    logits: tuple[Steps, ...]

    def peak(self, what: str, weights: Column) -> Column:
        """[ranks] the most of ``what`` that a rank ever keeps, a micro-batch of stage s counting ``weights[s]``."""
        changes = cast("tuple[Steps, ...]", getattr(self, what))
        # No release makes room before what it follows is there, so the sum never falls below 0 but by rounding.
        peaks = [
            float(np.cumsum(change * weights[stage]).max(initial=0.0))
            for stage, change in zip(self.stage, changes, strict=True)
        ]
        return np.array(peaks)

    def peak_at_once(self, alive: Column, waiting: Column) -> tuple[Column, Column]:
        """[ranks] bytes of activations, and of what waits for the weight gradient beside them, when both together are
        most; a micro-batch of stage s takes ``alive[s]`` from F on and ``waiting[s]`` from I to W."""
        most = np.zeros((2, len(self.stage)))
        for rank, stage in enumerate(self.stage):
            held = np.cumsum([self.alive[rank] * alive[stage], self.waiting[rank] * waiting[stage]], axis=1)
            most[:, rank] = held[:, held.sum(axis=0).argmax()]
        return most[0], most[1]

    def peak_logits(self, weights: Column) -> Column:
        """[ranks] the most logits that a rank ever keeps, where one micro-batch's count ``weights[s]`` on the last
        stage s and nothing on others; of a split vocabulary every rank's part counts as much."""
        if not any(change.any() for change in self.logits):
            return self.peak("unreached", weights)
        return self.peak("logits", np.full(self.num_stages, weights.max()))


_COUNTS: PerSchedule[KeptCounts] = PerSchedule()
_MICROBATCHES: PerSchedule[dict[tuple[int, ...], KeptMicrobatches]] = PerSchedule()


def count_kept(schedule: Schedule) -> KeptCounts:
    """Counted once per schedule object."""
    return _COUNTS.of(schedule, _count)


def _count(schedule: Schedule) -> KeptCounts:
    columns = columns_of(schedule)
    counted = np.flatnonzero(_COUNTED[columns.work_kind])
    ends = np.searchsorted(columns.owner[counted], np.cumsum(columns.lengths)[:-1])
    stage, *changes = (
        tuple(np.split(column, ends))
        for column in (columns.work_stage[counted], *_CHANGES[:, columns.work_kind[counted]])
    )
    alive, waiting, unreached, logits = changes
    return KeptCounts(schedule.num_stages, stage, alive, waiting, unreached, logits)


def count_kept_microbatches(schedule: Schedule, lengths: tuple[int, ...] = ()) -> KeptMicrobatches:
    """[1, ranks], a stage counting as its share of its rank's layers of one copy: by ``lengths``, the layers of each
    stage of a copy, or equal shares; of a rank without layers equal ones. Counted once per schedule object and lengths.
    """
    counted = _MICROBATCHES.of(schedule, lambda _: {})
    if lengths not in counted:
        counted[lengths] = _count_microbatches(schedule, lengths)
    return counted[lengths]


def _count_microbatches(schedule: Schedule, lengths: tuple[int, ...]) -> KeptMicrobatches:
    homes, per_copy = np.array(schedule.stage_to_rank), schedule.stages_per_copy
    layers = np.tile(np.array(lengths or (1,) * per_copy, np.float64), schedule.copies)
    layers = np.where(np.bincount(homes, layers)[homes] > 0.0, layers, 1.0)
    held = np.bincount(homes, layers)[homes] / schedule.copies
    last = np.array([float(schedule.is_last(stage)) for stage in range(schedule.num_stages)])
    kept, each = count_kept(schedule), layers / held
    return KeptMicrobatches(
        in_flight=kept.peak("alive", each)[None],
        waiting=kept.peak("waiting", each)[None],
        unreached=kept.peak_logits(last)[None],
    )


def count_ahead(schedule: Schedule) -> tuple[int, ...]:
    """Forwards of every rank before its first backward; 1 where every rank runs all of its forwards first, as then all
    lie on the way through a rank and back.
    """
    # What is unreached grows with every forward and falls with every backward; weight gradients leave it.
    changes = [change[change != 0] for change in count_kept(schedule).unreached]
    ahead = tuple(int((change < 0).argmax()) for change in changes)
    forwards_first = all(2 * first == len(change) for first, change in zip(ahead, changes, strict=True))
    return (1,) * len(ahead) if forwards_first else ahead
