"""Layer costs shared between rows: sweeps measure one model under few distinct splits."""

from __future__ import annotations

from dataclasses import dataclass, field

from costmodel.frozen import estimate_frozen_s
from costmodel.layer_table import PricedLayers
from costmodel.layers import LayerCosts, distinct_splits, estimate_layer_costs
from costmodel.layouts import Layouts
from planner.placement import Placement
from planner.problem import Problem


@dataclass(frozen=True)
class LayerTables:
    """Costs of one split of one model on one machine under one runtime, each computed once."""

    known: dict[tuple[object, ...], LayerCosts] = field(default_factory=dict)

    def price_layers(self, problem: Problem, placement: Placement) -> PricedLayers:
        """As ``costmodel.price.price_layers`` of the placement's one layout."""
        setting, layout = problem.setting, placement.layout
        layouts = Layouts.from_rows([(layout, placement.schedule)])
        split, index = distinct_splits(layouts, setting.workload.seq_len)
        degrees = (layout.tp, layout.cp_ring, layout.cp_ulysses, layout.ep, layout.etp, layout.micro_batch_size)
        # The global batch is no matter of a layer's.
        workload = setting.workload.model_copy(update={"global_batch_size": 1})
        machine = (setting.device.name, problem.cluster.levels)
        key = (setting.model, machine, workload, setting.runtime, degrees, layout.sequence_parallel)
        if key not in self.known:
            self.known[key] = estimate_layer_costs(setting, problem.network, split)
        frozen = estimate_frozen_s(setting, problem.network, layouts)
        return PricedLayers(setting, problem.network, layouts, self.known[key], index, frozen)
