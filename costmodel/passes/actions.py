"""Action: what one rank does next, passes and communication alike, as PyTorch's pipelining runtime names it."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from costmodel.schema.schedule import NO_MICROBATCH, Pass, PassKind

NOBODY = -1
"""The peer of an action that has none."""


class ActionKind(StrEnum):
    """Passes under their own names; sends and receives of one stage's activation (F), gradient (B) or frozen output;
    and the collectives over all pipeline ranks that vocabulary parallelism needs, each issued by every rank:

        SUM_EMBEDDED        the ranks' parts of the embedding, onto the rank of the first stage
        BROADCAST_HIDDEN    the last stage's activation, from its rank
        SUM_STATISTICS      the loss's statistics, onto all ranks
        SUM_VOCAB_GRADIENT  the ranks' parts of the output layer's input gradient, onto the rank of the last stage
        BROADCAST_GRADIENT  the first stage's input gradient, from its rank
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

    SEND_F = "SEND_F"
    RECV_F = "RECV_F"
    SEND_B = "SEND_B"
    RECV_B = "RECV_B"
    SEND_FROZEN = "SEND_FROZEN"
    RECV_FROZEN = "RECV_FROZEN"

    SUM_EMBEDDED = "SUM_EMBEDDED"
    BROADCAST_HIDDEN = "BROADCAST_HIDDEN"
    SUM_STATISTICS = "SUM_STATISTICS"
    SUM_VOCAB_GRADIENT = "SUM_VOCAB_GRADIENT"
    BROADCAST_GRADIENT = "BROADCAST_GRADIENT"


SENDS = frozenset({ActionKind.SEND_F, ActionKind.SEND_B, ActionKind.SEND_FROZEN})
RECEIVES = frozenset({ActionKind.RECV_F, ActionKind.RECV_B, ActionKind.RECV_FROZEN})
COLLECTIVES = frozenset(kind for kind in ActionKind if kind.startswith(("SUM_", "BROADCAST_")))


class Action(NamedTuple):
    """``stage``: of a send the stage whose output leaves, of a receive the one that takes it in, of a collective the
    first or last stage, of a pass its own. ``peer``: the other rank of a send or receive, the root of a collective,
    else NOBODY. ``parts``: the F and B of an overlap.
    """

    kind: ActionKind
    stage: int
    microbatch: int = NO_MICROBATCH
    peer: int = NOBODY
    parts: tuple[Action, ...] = ()

    def __str__(self) -> str:
        """PyTorch's form: ``2F0``, ``2SEND_F0``, ``2UNSHARD``, ``(0F1;3B0)OVERLAP_F_B``."""
        if self.parts:
            return f"({';'.join(map(str, self.parts))}){self.kind.value}"
        microbatch = "" if self.microbatch == NO_MICROBATCH else self.microbatch
        return f"{self.stage}{self.kind.value}{microbatch}"


_OF_PASS = {kind: ActionKind(kind.value) for kind in PassKind}


def action_of(step: Pass) -> Action:
    """The pass as an action."""
    parts = tuple(map(action_of, step.parts)) if step.parts else ()
    return Action(_OF_PASS[step.kind], step.stage, step.microbatch, NOBODY, parts)
