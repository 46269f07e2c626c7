"""Which pass makes what, and what each pass waits for.

Passes are tied together by products. A product is local (used on the rank that makes it), or sent from one rank to
another, or joint: parts made on all ranks that a collective brings together.

    activation(s, m)   made by F            taken by F of the next stage; local: by B and I of s
    gradient(s, m)     made by B or I       taken by B or I of the stage before; local: by W of s
    embedded(m)        by all VOCAB_IN_F    taken by F of the first stage
    statistics(m)      by all VOCAB_F       taken by VOCAB_B or VOCAB_W; by the last stage's backward under VOCAB_W
    vocab_gradient(m)  by all VOCAB_B       taken by the last stage's backward
    frozen(k, m)       by FROZEN_F of k     taken by FROZEN_F of k + 1

Sources: Qi et al. 2023, "Zero Bubble Pipeline Parallelism" (I and W); Yeung et al. 2024, "Balancing Pipeline
Parallelism with Vocabulary Parallelism", sections 4 and 5 (VOCAB_*); Tian et al. 2024, "DiffusionPipe" (FROZEN_F).
"""

from __future__ import annotations

from typing import NamedTuple

from costmodel.schema.schedule import Pass, PassKind, Schedule

WHOLE = -1
"""The stage of a joint product."""


class Product(NamedTuple):
    """``what``: activation, gradient, embedded, statistics, vocab_gradient or frozen; ``stage``: WHOLE if joint."""

    what: str
    stage: int
    microbatch: int


_MAKES = {
    PassKind.FORWARD: "activation",
    PassKind.BACKWARD: "gradient",
    PassKind.INPUT_GRAD: "gradient",
    PassKind.FROZEN_FORWARD: "frozen",
}
_JOINS = {
    PassKind.VOCAB_IN_FORWARD: "embedded",
    PassKind.VOCAB_FORWARD: "statistics",
    PassKind.VOCAB_BACKWARD: "vocab_gradient",
}


class Rules:
    """The rules as they read for one schedule: its copies, and the form of its vocabulary passes if it has any."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self._per_copy = schedule.stages_per_copy
        kinds = schedule.kinds
        self.embeds_jointly = PassKind.VOCAB_IN_FORWARD in kinds
        self.loss_gradient: str | None = None
        if PassKind.VOCAB_FORWARD in kinds:
            self.loss_gradient = "vocab_gradient" if PassKind.VOCAB_BACKWARD in kinds else "statistics"

    def makes(self, step: Pass) -> Product | None:
        """What one pass (no OVERLAP) gives to others; of a joint product, its part."""
        if step.kind in _JOINS:
            return Product(_JOINS[step.kind], WHOLE, step.microbatch)
        what = _MAKES.get(step.kind)
        return None if what is None else Product(what, step.stage, step.microbatch)

    def takes(self, step: Pass) -> tuple[Product, ...]:
        """What one pass (no OVERLAP) waits for, the product made furthest away first; a local one last."""
        kind, stage, microbatch = step.kind, step.stage, step.microbatch
        per_copy = self._per_copy
        match kind:
            case PassKind.FORWARD:
                if stage % per_copy:
                    return (Product("activation", stage - 1, microbatch),)
                return (Product("embedded", WHOLE, microbatch),) if self.embeds_jointly else ()
            case PassKind.BACKWARD | PassKind.INPUT_GRAD:
                own = Product("activation", stage, microbatch)
                if (stage + 1) % per_copy:
                    return (Product("gradient", stage + 1, microbatch), own)
                return (Product(self.loss_gradient, WHOLE, microbatch), own) if self.loss_gradient else (own,)
            case PassKind.WEIGHT_GRAD:
                return (Product("gradient", stage, microbatch),)
            case PassKind.VOCAB_FORWARD:
                return (Product("activation", per_copy - 1, microbatch),)
            case PassKind.VOCAB_BACKWARD | PassKind.VOCAB_WEIGHT_GRAD:
                return (Product("statistics", WHOLE, microbatch),)
            case PassKind.VOCAB_IN_BACKWARD:
                return (Product("gradient", 0, microbatch),)
            case PassKind.FROZEN_FORWARD if stage > 0:
                return (Product("frozen", stage - 1, microbatch),)
        return ()
