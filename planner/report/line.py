"""A layout in one line, as a person says it."""

from __future__ import annotations

from collections import Counter

from costmodel.schema.layout import Layout
from costmodel.schema.plan import Plan, PlanCluster
from planner.state_words import state_words

DEGREES = ("tp", "pp", "vpp", "cp_ring", "cp_ulysses", "ep", "etp", "dp_shard", "dp_replicate")


def recompute_counts(plan: Plan) -> Counter[str]:
    """How many layers follow each recomputation policy."""
    return Counter(layer.recompute for layer in plan.layers)


def devices_words(cluster: PlanCluster) -> str:
    """``64 × h100``, ``32 × h100 + 64 × a100-80g``."""
    return " + ".join(f"{number} × {device}" for number, device in cluster.counts)


def layout_words(layout: Layout) -> str:
    """``tp 8 · pp 4 · dp_shard 2, ZeRO-3``: the degrees above 1."""
    degrees = [f"{name} {getattr(layout, name)}" for name in DEGREES if getattr(layout, name) > 1]
    state = ("no state sharded", "ZeRO-1", "ZeRO-2", "ZeRO-3")[layout.zero_stage]
    vocabulary = [f"vocabulary over {layout.pp} ranks"] if layout.vocab_parallel else []
    frozen = ["frozen parts in the bubbles"] if layout.frozen_fill else []
    return ", ".join([" · ".join(degrees) or "one device", state, *state_words(layout), *vocabulary, *frozen])
