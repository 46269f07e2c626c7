"""Schedule: for each pipeline rank the ordered passes, as data.

Text form, as PyTorch's pipelining runtime writes it: stage, kind, micro-batch - ``2F0 0I1 0W1 3UNSHARD``; a pair of
passes that run side by side is ``(0F5;7B2)OVERLAP_F_B``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property, partial
from itertools import chain, repeat
from operator import itemgetter
from typing import NamedTuple

from costmodel.schema.errors import InvalidSpec

NO_MICROBATCH = -1
"""The micro-batch of a pass that concerns a stage as a whole."""


class PassKind(StrEnum):
    """What a pass does. ``stage`` is a pipeline stage except where said otherwise.

    F           forward
    B           full backward
    I           input-gradient part of the backward
    W           weight-gradient part of the backward
    OVERLAP     an F and a B (or I) of two micro-batches side by side; ``parts`` holds the two
    UNSHARD     gather the stage's parameters; no micro-batch
    RESHARD     drop the gathered parameters; no micro-batch
    REDUCE_GRAD reduce the stage's gradients over its data-parallel ranks; no micro-batch
    VOCAB_*     the embedding (VOCAB_IN_*) and the output layer with its loss, split over all pipeline ranks by
                vocabulary; ``stage`` is the rank, which holds that part
      VOCAB_IN_F  look tokens up; summed over ranks before the first stage's F
      VOCAB_IN_B  gradient of the part, after the first stage's backward
      VOCAB_F     logits and their statistics, after the last stage's F; statistics meet over ranks
      VOCAB_B     both gradients of the part from the statistics; input gradients are summed before the last stage's
                  backward
      VOCAB_W     weight gradient alone, where VOCAB_F has made the input gradient as well: nothing waits for it
    FROZEN_F    forward of one piece of a frozen model for the next step's data; ``stage`` numbers the pieces
    """

    FORWARD = "F"
    BACKWARD = "B"
    INPUT_GRAD = "I"
    WEIGHT_GRAD = "W"
    OVERLAP = "OVERLAP_F_B"
    UNSHARD = "UNSHARD"
    RESHARD = "RESHARD"
    REDUCE_GRAD = "REDUCE_GRAD"
    VOCAB_IN_FORWARD = "VOCAB_IN_F"
    VOCAB_IN_BACKWARD = "VOCAB_IN_B"
    VOCAB_FORWARD = "VOCAB_F"
    VOCAB_BACKWARD = "VOCAB_B"
    VOCAB_WEIGHT_GRAD = "VOCAB_W"
    FROZEN_FORWARD = "FROZEN_F"


STAGE_KINDS = frozenset({PassKind.UNSHARD, PassKind.RESHARD, PassKind.REDUCE_GRAD})
"""Kinds without a micro-batch."""

VOCAB_KINDS = frozenset(kind for kind in PassKind if kind.value.startswith("VOCAB"))
"""Kinds whose ``stage`` is a rank."""


class Pass(NamedTuple):
    """One micro-batch through one stage in one direction, or what PassKind says. ``parts``: the two of an OVERLAP,
    whose own stage and micro-batch are those of its F.
    """

    kind: PassKind
    stage: int
    microbatch: int = NO_MICROBATCH
    parts: tuple[Pass, ...] = ()

    def __str__(self) -> str:
        if self.parts:
            return f"({';'.join(map(str, self.parts))}){self.kind.value}"
        microbatch = "" if self.microbatch == NO_MICROBATCH else self.microbatch
        return f"{self.stage}{self.kind.value}{microbatch}"

    @property
    def work(self) -> tuple[Pass, ...]:
        """The passes that this one runs: its parts, or itself."""
        return self.parts or (self,)


def passes(kind: PassKind, stages: Iterable[int], microbatches: Iterable[int]) -> list[Pass]:
    """A pass of one kind for each stage and micro-batch, pair by pair, as many as the shorter has."""
    # Made without a Python call each, for an order may have a hundred thousand.
    return list(map(partial(tuple.__new__, Pass), zip(repeat(kind), stages, microbatches, repeat(()), strict=False)))


def overlap(forward: Pass, backward: Pass) -> Pass:
    """The two side by side, as one pass."""
    return Pass(PassKind.OVERLAP, forward.stage, forward.microbatch, (forward, backward))


_KINDS = "|".join(sorted((kind.value for kind in PassKind if kind is not PassKind.OVERLAP), key=len, reverse=True))
_PASS = re.compile(rf"(\d+)({_KINDS})(\d*)")
_PAIR = re.compile(rf"\(([^;()]+);([^;()]+)\){PassKind.OVERLAP.value}")


def parse_pass(text: str) -> Pass:
    """``2F0`` -> Pass(F, stage 2, micro-batch 0); ``2UNSHARD``; ``(2F1;2B0)OVERLAP_F_B``. Raises InvalidSpec on
    anything else.
    """
    pair = _PAIR.fullmatch(text)
    if pair is not None:
        forward, backward = parse_pass(pair[1]), parse_pass(pair[2])
        if forward.kind is PassKind.FORWARD and backward.kind in (PassKind.BACKWARD, PassKind.INPUT_GRAD):
            return overlap(forward, backward)
    match = _PASS.fullmatch(text)
    if match is not None:
        kind = PassKind(match[2])
        if bool(match[3]) != (kind in STAGE_KINDS):
            return Pass(kind, int(match[1]), int(match[3]) if match[3] else NO_MICROBATCH)
    raise InvalidSpec(f"pass {text!r} is not <stage><F|B|I|W><micro-batch>, like 2F0, nor any other kind of pass")


@dataclass(frozen=True)
class Schedule:
    """``orders[rank]``: that rank's passes in order. ``stage_to_rank[stage]``: where each stage lives.

    ``copies``: whole copies of the model, which some schedules run through the same ranks in opposite directions.
    Their stages are numbered one copy after the other, each in model order, and no activation passes between copies;
    every micro-batch crosses one of them.
    """

    name: str
    num_microbatches: int
    stage_to_rank: tuple[int, ...]
    orders: tuple[tuple[Pass, ...], ...]
    copies: int = 1

    @property
    def num_ranks(self) -> int:
        return len(self.orders)

    @property
    def num_stages(self) -> int:
        return len(self.stage_to_rank)

    @property
    def stages_per_copy(self) -> int:
        return self.num_stages // self.copies

    def is_first(self, stage: int) -> bool:
        """Whether the stage takes in tokens."""
        return stage % self.stages_per_copy == 0

    def is_last(self, stage: int) -> bool:
        """Whether the stage puts out the loss, or what the output layer takes in."""
        return (stage + 1) % self.stages_per_copy == 0

    @cached_property
    def kinds(self) -> frozenset[PassKind]:
        """The kinds of all passes, those inside pairs included."""
        # By identity, for an enum's hash is a Python call.
        kinds = {id(kind): kind for kind in map(itemgetter(0), chain.from_iterable(self.orders))}
        if id(PassKind.OVERLAP) in kinds:
            kinds |= {id(part.kind): part.kind for order in self.orders for step in order for part in step.parts}
        return frozenset(kinds.values())

    @property
    def splits_backward(self) -> bool:
        return PassKind.INPUT_GRAD in self.kinds

    def to_text(self) -> dict[str, str]:
        """{rank: "0F0 0F1 0I0 …"}, the plan file's form."""
        return {str(rank): " ".join(map(str, order)) for rank, order in enumerate(self.orders)}

    @classmethod
    def from_text(
        cls,
        name: str,
        num_microbatches: int,
        stage_to_rank: tuple[int, ...],
        passes: dict[str, str],
        copies: int = 1,
    ) -> Schedule:
        """Read the plan file's form back. Raises InvalidSpec when a rank is missing, a pass is malformed, or the
        stages don't divide into the copies.
        """
        ranks = sorted(passes, key=lambda rank: (len(rank), rank))
        if ranks != [str(rank) for rank in range(len(ranks))]:
            raise InvalidSpec(f"pipeline.passes names the ranks {', '.join(ranks)}; they must count up from 0")
        if copies < 1 or len(stage_to_rank) % copies:
            raise InvalidSpec(f"pipeline.copies = {copies} does not divide the {len(stage_to_rank)} stages")
        orders = tuple(tuple(parse_pass(text) for text in passes[rank].split()) for rank in ranks)
        return cls(name, num_microbatches, stage_to_rank, orders, copies)
