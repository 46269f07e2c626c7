"""VocabularyPasses: what the pipeline runs of the split vocabulary, and what it puts around the stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from costmodel.passes.actions import ActionKind
from costmodel.schema.schedule import PassKind, Schedule
from executor.clock import PassClock
from executor.vocabulary.collectives import Collectives
from executor.vocabulary.embedding import SplitEmbedding
from executor.vocabulary.output import SplitOutput
from executor.vocabulary.part import VocabularyPart
from executor.vocabulary.rows import Rows


class VocabularyPasses:
    """The passes of ``schedule`` on this rank's ``part`` of the vocabulary. ``group``: the pipeline's ranks;
    ``compute``: the type of hidden states and products.
    """

    def __init__(
        self, part: VocabularyPart, schedule: Schedule, group: ProcessGroup, compute: torch.dtype, clock: PassClock
    ) -> None:
        self.num_microbatches = schedule.num_microbatches
        self.collectives = Collectives(group)
        rank, first, last = self.collectives.rank, schedule.stage_to_rank[0], schedule.stage_to_rank[-1]
        self.rows = [Rows(module.weight, rank, compute) for module in (part.embed_tokens, part.lm_head)]
        self.embedding = SplitEmbedding(self.rows[0], self.collectives, first, clock)
        self.output = SplitOutput(
            self.rows[1],
            self.collectives,
            last,
            clock,
            joint_product=PassKind.VOCAB_WEIGHT_GRAD in schedule.kinds,
        )

    @property
    def actions(self) -> Mapping[ActionKind, Callable[[int, int], None]]:
        """How to run each kind; functions of stage and micro-batch."""
        return {
            ActionKind.VOCAB_IN_FORWARD: self.embedding.look_up,
            ActionKind.SUM_EMBEDDED: self.embedding.add_parts,
            ActionKind.BROADCAST_HIDDEN: self.output.share_hidden,
            ActionKind.VOCAB_FORWARD: self.output.forward,
            ActionKind.SUM_STATISTICS: self.output.share_statistics,
            ActionKind.VOCAB_BACKWARD: self.output.backward,
            ActionKind.SUM_VOCAB_GRADIENT: self.output.add_parts,
            ActionKind.VOCAB_WEIGHT_GRAD: self.output.weight_gradient,
            ActionKind.BROADCAST_GRADIENT: self.embedding.share_gradient,
            ActionKind.VOCAB_IN_BACKWARD: self.embedding.add_gradient,
        }

    def begin(self, tokens: Tensor, targets: Tensor) -> None:
        """Take a step's tokens and targets [micro-batches · B, T], and the weights as they are now."""
        self.embedding.tokens = tokens.chunk(self.num_microbatches)
        self.output.targets = targets.chunk(self.num_microbatches)
        for rows in self.rows:
            rows.refresh()

    def end(self) -> list[Tensor]:
        """Wait for what is under way; the losses of the step's micro-batches on the last stage's rank, else none."""
        self.collectives.wait()
        self.output.wait()
        losses, self.output.losses = self.output.losses, []
        return losses

    def take_embedded(self, microbatch: int) -> Tensor:
        """What the first stage takes in: a leaf that requires its gradient."""
        return self.embedding.take(microbatch)

    def give_hidden(self, microbatch: int, hidden: Tensor) -> None:
        """What the last stage put out, without its graph."""
        self.output.give(microbatch, hidden)

    def take_output_gradient(self, microbatch: int) -> Tensor:
        """The gradient of what the last stage put out."""
        return self.output.take_gradient(microbatch)

    def give_input_gradient(self, microbatch: int, gradient: Tensor) -> None:
        """The gradient of what the first stage took in."""
        self.embedding.give_gradient(microbatch, gradient)
