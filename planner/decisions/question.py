"""Question: what is to be decided beyond the layout itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from costmodel.schema.errors import InvalidSpec
from costmodel.schema.plan import Plan
from planner.decisions.failures import Reliability
from planner.decisions.units import parse_bytes_per_s, parse_duration_s, parse_positive, parse_tokens
from planner.request import Request
from planner.search.run import Progress

Ask = Callable[[int | None, int | None], Request]
"""The request for so many devices (None: all of the cluster file's) at a global batch size (None: the asked one)."""

Find = Callable[[Request, Callable[[Progress], None] | None], Plan]
"""The search."""


@dataclass(frozen=True)
class Question:
    """A run of ``tokens``, within ``deadline_s``, at ``price_per_device_hour``; None: not asked.

    ``critical_batch_tokens``: the batch size may change too, and with it the tokens that the run takes.
    """

    tokens: float | None = None
    deadline_s: float | None = None
    price_per_device_hour: float | None = None
    critical_batch_tokens: float | None = None
    reliability: Reliability = field(default_factory=Reliability)

    @property
    def asked(self) -> bool:
        """Whether anything was."""
        return self != Question()


def build_question(
    *,
    tokens: str | None = None,
    deadline: str | None = None,
    price: str | None = None,
    critical_batch: str | None = None,
    mtbf: str | None = None,
    checkpoint_bandwidth: str | None = None,
    checkpoint_interval: str | None = None,
    restart_time: str | None = None,
    async_checkpoints: bool = False,
) -> Question:
    """Read amounts as they were typed. Raises InvalidSpec, naming option and value."""
    for option, value in (("--deadline", deadline), ("--critical-batch", critical_batch)):
        if value is not None and tokens is None:
            raise InvalidSpec(f"{option} {value}: needs --tokens, how much to train on", "like --tokens 15T")
    return Question(
        tokens=None if tokens is None else parse_tokens("--tokens", tokens),
        deadline_s=None if deadline is None else parse_duration_s("--deadline", deadline),
        price_per_device_hour=None if price is None else parse_positive("--price", price, "like 2.5"),
        critical_batch_tokens=None if critical_batch is None else parse_tokens("--critical-batch", critical_batch),
        reliability=Reliability(
            device_mtbf_s=None if mtbf is None else parse_duration_s("--mtbf", mtbf),
            storage_bytes_per_s=(
                None
                if checkpoint_bandwidth is None
                else parse_bytes_per_s("--checkpoint-bandwidth", checkpoint_bandwidth)
            ),
            interval_s=(
                None if checkpoint_interval is None else parse_duration_s("--checkpoint-interval", checkpoint_interval)
            ),
            restart_s=None if restart_time is None else parse_duration_s("--restart-time", restart_time),
            asynchronous=async_checkpoints,
        ),
    )
