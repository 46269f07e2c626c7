"""The layer table of some layouts, and what else of a row's price depends on its degrees alone: sends, jitter."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from costmodel.collectives import Network
from costmodel.dataparallel import estimate_gather_jitter
from costmodel.frozen import FrozenSeconds, estimate_frozen_s
from costmodel.layers import LayerCosts, distinct_splits, estimate_layer_costs
from costmodel.layouts import Column, Layouts
from costmodel.ops import Setting
from costmodel.pipeline import estimate_busy_share
from costmodel.sends import estimate_send_s
from costmodel.vocabulary import VocabularyTraffic, estimate_vocabulary_traffic

JITTER_STD = 0.003
"""Spread of one device's step time. Prior; the slowest of N devices is sqrt(2 ln N) of it late."""


@dataclass(frozen=True)
class PricedLayers:
    """The layer table of some layouts: distinct costs, each row's index among them, and its frozen parts."""

    setting: Setting
    network: Network
    layouts: Layouts
    costs: LayerCosts
    index: NDArray[np.intp]
    frozen: FrozenSeconds

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_] | slice) -> PricedLayers:
        return self.of(self.layouts.take(rows), rows)

    def of(self, layouts: Layouts, rows: NDArray[np.intp] | NDArray[np.bool_] | slice) -> PricedLayers:
        """``layouts`` that differ from ``rows`` of this table in nothing that it depends on."""
        return PricedLayers(self.setting, self.network, layouts, self.costs, self.index[rows], self.frozen.take(rows))

    @cached_property
    def forward(self) -> Column:
        """[n, J] forward seconds per layer kind, embedding, head."""
        return self.costs.forward[self.index]

    @cached_property
    def backward(self) -> Column:
        """[n, J, P] full backward seconds."""
        return self.costs.backward[self.index]

    @cached_property
    def weight_grad(self) -> Column:
        """[n, J] the part of backward that a split may delay."""
        return self.costs.weight_grad_s[self.index]

    @cached_property
    def send_s(self) -> Column:
        """[n] from the end of a pass to its activation, or gradient, on the neighbouring pipeline rank."""
        return estimate_send_s(self.setting, self.network, self.layouts)

    @cached_property
    def busy_s(self) -> Column:
        """[n] the part of ``send_s`` in which the sending rank waits; it lengthens the pass."""
        return np.asarray(self.send_s * estimate_busy_share(self.setting, self.layouts))

    @cached_property
    def edge_s(self) -> Column:
        """[n] the rest of ``send_s``: a delay that occupies no rank."""
        return np.asarray(self.send_s - self.busy_s)

    @cached_property
    def vocabulary(self) -> VocabularyTraffic:
        """What a vocabulary split over pipeline ranks sends for each micro-batch."""
        return estimate_vocabulary_traffic(self.setting, self.network, self.layouts)

    @cached_property
    def contention(self) -> Column:
        """[n] how many ranks share one processor core, at least 1; 1 on devices of their own."""
        cores = self.setting.shared_cores
        if cores is None:
            return np.ones(len(self.layouts))
        return np.maximum(self.layouts.world_size / cores, 1.0)

    @cached_property
    def jitter(self) -> Column:
        """[n] share that waiting for the slowest of all devices adds: JITTER_STD · sqrt(2 ln N), and what stages 2
        and 3 add by waiting in every layer."""
        once = JITTER_STD * np.sqrt(2.0 * np.log(np.maximum(self.layouts.world_size, 1.0)))
        return np.asarray(once + estimate_gather_jitter(self.setting, self.layouts))


def price_layers(setting: Setting, network: Network, layouts: Layouts) -> PricedLayers:
    """Lower and price each distinct combination of degrees once."""
    split, index = distinct_splits(layouts, setting.workload.seq_len)
    costs, frozen = estimate_layer_costs(setting, network, split), estimate_frozen_s(setting, network, layouts)
    return PricedLayers(setting, network, layouts, costs, index, frozen)
