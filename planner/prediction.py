"""From an evaluated placement to the Prediction that a plan carries: terms, intervals, memory, traffic."""

from __future__ import annotations

from math import exp

import numpy as np

from costmodel.collectives import estimate_sent_bytes
from costmodel.flops import estimate_model_flops
from costmodel.gemm import peak_flops_per_s
from costmodel.layers import LAYER_TERMS
from costmodel.layouts import Column
from costmodel.memory import PARTS
from costmodel.offload import estimate_copied_s
from costmodel.pipeline import count_sends, edge_bytes
from costmodel.schema.prediction import Interval, MemoryPrediction, Prediction, StageMemory
from costmodel.sends import estimate_received_level_bytes
from planner.evaluate import Evaluated
from planner.order import without_frozen
from planner.simulator import simulate

Z_90 = 1.6448536
"""Standard normal quantile that leaves 5% above: the 90% interval is mean · exp(± Z_90 · sigma)."""


def predict(evaluated: Evaluated, assumptions: tuple[str, ...] = ()) -> Prediction:
    """Everything a user sees about one placement. The exposed terms of the breakdown sum to the mean step time."""
    setting = evaluated.problem.setting
    layout = evaluated.placement.layout
    step_s = evaluated.step_time_s
    spread = exp(Z_90 * setting.runtime.spread)
    flops = estimate_model_flops(setting.model, setting.workload)
    machine = _peak_flops_per_s(evaluated)
    breakdown = estimate_breakdown(evaluated)
    busy = breakdown["gemm_total_s"] + breakdown["attention_total_s"] + breakdown["elementwise_total_s"]
    again = 1.0 + (breakdown["recompute_exposed_s"] / busy if busy else 0.0)
    return Prediction(
        step_time_s=Interval(mean=step_s, low=step_s / spread, high=step_s * spread),
        tokens_per_s_per_device=setting.workload.tokens_per_step / step_s / layout.world_size,
        mfu=flops / step_s / machine,
        hfu=flops * again / step_s / machine,
        model_flops_per_step=flops,
        breakdown=breakdown,
        memory=_memory(evaluated),
        network=_network(evaluated),
        assumptions=assumptions,
    )


def estimate_breakdown(evaluated: Evaluated) -> dict[str, float]:
    """``<term>_exposed_s`` and ``<term>_total_s`` on the busiest pipeline rank, over the whole step.

    bubble: what that rank waits for the pipeline with instant sends; pp: what sends, and the collectives of a split
    vocabulary, add to that;
    frozen: frozen parts before the passes, or what they add to the makespan from the bubbles; in all, a rank's mean;
    shared_cores: what ranks on one host take from each other; jitter: waiting for the slowest device.
    """
    priced, times = evaluated.priced, evaluated.times
    # Of several copies a micro-batch crosses one.
    m = evaluated.placement.layout.num_microbatches / evaluated.schedule.copies
    rank = _busiest_rank(evaluated)
    layers = evaluated.of_rank(rank).layers
    exposed, total = _layer_terms(evaluated, rank)
    terms = {name: (m * exposed[i], m * total[i]) for i, name in enumerate(LAYER_TERMS)}
    costs, counts = layers.costs, priced.assignment.counts[0, rank]
    setting, here = layers.setting, (layers.index[0], slice(evaluated.problem.num_kinds))
    copied_s = estimate_copied_s(costs.host_bytes[here], costs.nvme_bytes[here], setting)
    no_more = np.zeros_like(copied_s)
    of_policies = {
        "recompute": (costs.recompute_s[here], no_more),
        "activation_offload": (costs.offload_s[here], copied_s),
        "activation_casts": (costs.narrow_s[here], no_more),
    }
    for name, (added_s, busy_s) in of_policies.items():
        exposed_s, total_s = (
            m * float(np.einsum("kp,kp->", counts, one)) for one in (added_s, np.maximum(added_s, busy_s))
        )
        terms[name] = (exposed_s, total_s)
    busy = sum(one for one, _ in terms.values())

    order, filled = without_frozen(evaluated.schedule), evaluated.own_device_makespan_s
    alone = filled if order is evaluated.schedule else simulate(order, times).makespan_s
    instant = evaluated.instant_makespan_s
    terms["bubble"] = (max(instant - busy, 0.0), max(instant - busy, 0.0))
    crossings = sum(_sends(evaluated, rank)) * float(layers.send_s[0])
    if evaluated.placement.layout.vocab_parallel:
        crossings += m * float(layers.vocabulary.total_s[0])
    terms["pp"] = (alone - instant, max(crossings, alone - instant))
    extras, last = priced.extras, evaluated.slowest_rank
    terms["dp"] = (float(extras.dp_exposed_s[0, last]), float(extras.dp_total_s[0, last]))
    terms["optimizer"] = (float(extras.optimizer_s[0, last]),) * 2
    terms["optimizer_offload"] = (float(extras.offload_exposed_s[0, last]), float(extras.offload_total_s[0, last]))
    frozen_s = float(extras.frozen_s[0, last])
    in_bubbles_s = m * float(layers.frozen.piece_s[0].sum()) / evaluated.placement.layout.pp
    terms["frozen"] = (frozen_s + filled - alone, frozen_s + max(in_bubbles_s, filled - alone))
    waited = (evaluated.simulation.makespan_s - filled) + (float(layers.contention[0]) - 1.0) * float(
        extras.exposed_s[0, last]
    )
    terms["shared_cores"] = (waited, waited)
    quiet = sum(one for one, _ in terms.values())
    terms["jitter"] = (evaluated.step_time_s - quiet,) * 2
    kept = {
        name: pair
        for name, pair in terms.items()
        if max(map(abs, pair)) > 0 or name in ("gemm", "attention", "elementwise", "recompute")
    }
    return {
        f"{name}_{which}_s": float(pair[i])
        for name, pair in kept.items()
        for i, which in enumerate(("exposed", "total"))
    }


def _peak_flops_per_s(evaluated: Evaluated) -> float:
    """Of all devices together, by their datasheets."""
    layout, precision = evaluated.placement.layout, evaluated.problem.setting.workload.precision
    if not evaluated.by_group:
        return peak_flops_per_s(evaluated.problem.setting.device, precision) * layout.world_size
    each = layout.world_size // layout.pp
    settings = [evaluated.of_rank(rank).layers.setting for rank in range(layout.pp)]
    return sum(peak_flops_per_s(setting.device, precision) for setting in settings) * each


def _busiest_rank(evaluated: Evaluated) -> int:
    work = evaluated.priced.work
    return int((work.forward_s + work.backward_s)[0].argmax())


def _layer_terms(evaluated: Evaluated, rank: int) -> tuple[Column, Column]:
    """[T] exposed and total seconds of one micro-batch on a rank, by LAYER_TERMS."""
    priced = evaluated.of_rank(rank)
    costs, row, kinds = priced.layers.costs, priced.layers.index[0], evaluated.problem.num_kinds
    counts = priced.assignment.counts[0, rank].sum(axis=1)
    weights = np.concatenate([counts, [priced.assignment.embedding[0, rank]], [priced.assignment.head[0, rank]]])
    assert len(weights) == kinds + 2
    exposed = weights @ (costs.forward_s[row] + costs.backward_s[row])
    total = weights @ (costs.forward_total_s[row] + costs.backward_total_s[row])
    return exposed, total


def _memory(evaluated: Evaluated) -> MemoryPrediction:
    memory, mixed = evaluated.priced.memory, bool(evaluated.by_group)
    capacities = evaluated.capacity_bytes.tolist()
    stages = tuple(
        StageMemory(
            rank=rank,
            allocated_bytes=float(memory.allocated[0, rank]),
            reserved_bytes=float(memory.reserved[0, rank]),
            device_bytes=float(memory.device[0, rank]),
            parts={name: float(memory.parts[0, rank, i]) for i, name in enumerate(PARTS)},
            device=evaluated.of_rank(rank).layers.setting.device.name if mixed else None,
            capacity_bytes=capacities[rank] if mixed else None,
        )
        for rank in range(evaluated.placement.layout.pp)
    )
    return MemoryPrediction(
        peak_bytes_per_device=max(stage.device_bytes for stage in stages),
        allocated_bytes=max(stage.allocated_bytes for stage in stages),
        reserved_bytes=max(stage.reserved_bytes for stage in stages),
        capacity_bytes=capacities[evaluated.fullest_rank],
        fits_probability=evaluated.fits_probability,
        per_stage=stages,
        host_bytes=float(memory.host[0].max()),
        nvme_bytes=float(memory.nvme[0].max()),
    )


def _sends(evaluated: Evaluated, rank: int) -> tuple[float, float]:
    """Activations and gradients that the rank sends in a step."""
    layouts, m = evaluated.priced.layers.layouts, evaluated.placement.layout.num_microbatches
    activations, gradients = count_sends(layouts, np.array([[rank]]))
    return m * float(activations[0, 0]), m * float(gradients[0, 0])


def _network(evaluated: Evaluated) -> dict[str, float]:
    """Bytes that one device of the busiest rank sends per step, by level."""
    rank, layout = _busiest_rank(evaluated), evaluated.placement.layout
    priced = evaluated.of_rank(rank)
    layers, network = priced.layers, priced.layers.network
    kinds = evaluated.problem.num_kinds
    sent = layers.costs.sent_bytes[layers.index[0]]
    per_microbatch = np.einsum("kp,kpl->l", priced.assignment.counts[0, rank], sent[:kinds])
    per_microbatch = per_microbatch + priced.assignment.embedding[0, rank] * sent[kinds, 0]
    per_microbatch = per_microbatch + priced.assignment.head[0, rank] * sent[kinds + 1, 0]
    microbatches = layout.num_microbatches / evaluated.schedule.copies
    total = microbatches * per_microbatch + priced.sent_bytes[0, rank]
    if layout.pp > 1:
        share = network.traffic_share(2.0, layers.layouts.stride("pp").astype(np.float64))[0]
        message = estimate_sent_bytes("p2p", edge_bytes(evaluated.problem.setting, layers.layouts), 2)[0]
        crossed = share / max(float(share.sum()), 1e-30)
        received = estimate_received_level_bytes(layers.setting, network, layers.layouts)[0]
        total = total + sum(_sends(evaluated, rank)) * (message * crossed + received)
    if layout.vocab_parallel:
        total = total + microbatches * layers.vocabulary.sent_bytes[0]
    return {name: float(total[level]) for level, name in enumerate(network.names)}
