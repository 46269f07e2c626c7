"""Training: a plan carried through a whole run - how long, at what cost, and how much of that failures take."""

from __future__ import annotations

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from costmodel.schema.base import Spec
from costmodel.schema.prediction import Interval, Probability


class Goodput(Spec):
    """How much of the run's time makes progress.

    ``device_mtbf_s``: mean time between failures that one device, with its share of everything around it, causes;
    ``mtbf_s``: of the whole job. ``checkpoint_stall_s``: training stands still for so long at each checkpoint;
    ``checkpoint_write_s``: until it is on storage. ``restart_s``: from a failure to the first new step, reading the
    checkpoint back included. ``interval_s``: training time between two checkpoints.
    The four shares - progress, checkpoints' stalls, work that is done again, restarts - sum to 1.
    """

    share: NonNegativeFloat
    checkpoint_share: NonNegativeFloat
    lost_share: NonNegativeFloat
    restart_share: NonNegativeFloat
    device_mtbf_s: PositiveFloat
    mtbf_s: PositiveFloat
    checkpoint_bytes: NonNegativeFloat
    checkpoint_stall_s: NonNegativeFloat
    checkpoint_write_s: NonNegativeFloat
    restart_s: NonNegativeFloat
    interval_s: PositiveFloat
    asynchronous: bool = False
    assumptions: tuple[str, ...] = ()


class Training(Spec):
    """A run over so many tokens. ``time_s`` counts ``goodput``; its interval is the step time's.

    ``tokens``: at this batch size; ``critical_batch_tokens``: where they depend on it. ``on_time_probability``: of
    ending within ``deadline_s``. ``device_hours`` and ``cost`` (None without a price) are means.
    """

    tokens: PositiveFloat
    steps: PositiveInt
    time_s: Interval
    device_hours: PositiveFloat
    price_per_device_hour: PositiveFloat | None = None
    cost: PositiveFloat | None = None
    deadline_s: PositiveFloat | None = None
    on_time_probability: Probability | None = None
    critical_batch_tokens: PositiveFloat | None = None
    goodput: Goodput
