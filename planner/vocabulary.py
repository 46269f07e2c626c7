"""Times of the passes that a vocabulary split over pipeline ranks adds to every rank."""

from __future__ import annotations

from costmodel.layer_table import PricedLayers
from costmodel.pipeline import count_barriers
from planner.simulator import VocabTimes


def vocabulary_times(layers: PricedLayers, sends: bool = True) -> VocabTimes:
    """Seconds of each rank's part of the vocabulary for one micro-batch; ``sends=False``: as if its collectives took no
    time. With one barrier VOCAB_F makes the input gradient as well.
    """
    (embed_s, logits_s), (embed_grad_s, grads_s) = layers.forward[0, -2:], layers.backward[0, -2:, 0]
    weight_s = layers.weight_grad[0, -1]
    joint = int(count_barriers(layers.layouts)[0]) == 1
    traffic = layers.vocabulary if sends else None
    return VocabTimes(
        embed_forward_s=embed_s,
        embed_backward_s=embed_grad_s,
        forward_s=logits_s + (max(grads_s - weight_s, 0.0) if joint else 0.0),
        backward_s=0.0 if joint else grads_s,
        weight_grad_s=weight_s if joint else 0.0,
        embedded_s=float(traffic.embedded_s[0]) if traffic else 0.0,
        statistics_s=float(traffic.statistics_s[0]) if traffic else 0.0,
        vocab_gradient_s=float(traffic.vocab_gradient_s[0]) if traffic else 0.0,
        broadcast_s=float(traffic.broadcast_s[0]) if traffic else 0.0,
    )
