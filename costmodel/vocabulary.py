"""Collectives over the pipeline ranks in which the parts of a split vocabulary meet, once for every micro-batch.

    embedded        each rank's rows looked up, zeros elsewhere, are added on the first rank          one hidden state
    broadcast       the last stage's output goes to all ranks, the first stage's gradient likewise    one hidden state
    statistics      of each token the maximum, the sum and the target's logit of every rank's rows    3 fp32 a rank
    vocab_gradient  the parts of the last stage's input gradient are added there                      one hidden state

With one barrier statistics and gradient meet at once, so that ``statistics`` is both. A broadcast and a sum onto one
rank go round a chain of all ranks: as many bytes over each link as there are.
Source: Yeung, Qi, Lin, Wan 2024, "Balancing Pipeline Parallelism with Vocabulary Parallelism", section 4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from costmodel.collectives import Network, estimate_collective_s, estimate_level_bytes
from costmodel.layouts import Column, Layouts
from costmodel.ops import Setting
from costmodel.pipeline import count_barriers, edge_bytes

STATISTIC_BYTES = 3 * 4.0
"""Maximum, sum and the target's logit of one token, in fp32."""


@dataclass(frozen=True)
class VocabularyTraffic:
    """Seconds of each collective for one micro-batch, [n]; ``sent_bytes``: [n, L] of all, by one device and level."""

    embedded_s: Column
    broadcast_s: Column
    statistics_s: Column
    vocab_gradient_s: Column
    sent_bytes: Column

    @property
    def total_s(self) -> Column:
        """[n] of all collectives, the two broadcasts included."""
        return self.embedded_s + 2.0 * self.broadcast_s + self.statistics_s + self.vocab_gradient_s


def estimate_vocabulary_traffic(setting: Setting, network: Network, layouts: Layouts) -> VocabularyTraffic:
    """What splitting the vocabulary sends; nothing in rows where both ends are whole."""
    barriers, stride = count_barriers(layouts), layouts.stride("pp")
    ranks = np.where(barriers > 0, layouts.pp, 1)
    # A chain moves S over every link, an all-gather (ranks - 1) / ranks of its S.
    hidden = edge_bytes(setting, layouts) * ranks / np.maximum(ranks - 1, 1)
    tokens = layouts.micro_batch_size * setting.workload.seq_len / layouts.cp
    gathered = STATISTIC_BYTES * tokens * ranks
    launch_s = setting.device.kernel_launch_s

    def seconds(num_bytes: Column) -> Column:
        return estimate_collective_s(network, "all_gather", num_bytes, ranks, stride, launch_s)

    def sent(num_bytes: Column) -> Column:
        return estimate_level_bytes(network, "all_gather", num_bytes, ranks.astype(np.float64), stride)

    hidden_s, statistics_s = seconds(hidden), seconds(gathered)
    at_once = barriers == 1
    return VocabularyTraffic(
        embedded_s=hidden_s,
        broadcast_s=hidden_s,
        statistics_s=statistics_s + np.where(at_once, hidden_s, 0.0),
        vocab_gradient_s=np.where(at_once, 0.0, hidden_s),
        sent_bytes=4.0 * sent(hidden) + sent(gathered),
    )
