"""How near the answer's own limits are, and what it spends to stay inside them."""

from __future__ import annotations

from dataclasses import replace

from costmodel.layouts import POLICIES, Policy
from costmodel.schema.errors import InvalidSpec, ParlayError
from costmodel.schema.model import MoEBlock
from planner.evaluate import Evaluated, evaluate
from planner.placement import Placement
from planner.problem import Problem
from planner.request import Request
from planner.schedules import build_schedule
from planner.search.frozen import check_frozen
from planner.search.infeasible import WIDEST

LONG_TOKENS = 2**16
"""Sequences from which on context parallelism is worth a word."""


def list_notes(request: Request, problem: Problem, best: Evaluated) -> tuple[str, ...]:
    """The margin that memory leaves, why activations are offloaded, where frozen parts run, what the runtime lacks, and
    what the next micro-batch size would do."""
    capacity = float(best.capacity_bytes[best.fullest_rank])
    peak = float(best.priced.memory.device[0, best.fullest_rank])
    notes = [
        f"Memory leaves {(capacity - peak) / 2**30:.1f} GiB free on the fullest device ({peak / capacity:.0%} used).",
        *_say_offload(request, problem, best),
        *_say_frozen(request, problem, best),
        *_say_lacking(request),
    ]
    doubled = _with_micro_batch(best, 2)
    if doubled is None:
        notes.append("The micro-batch cannot double: the batch of one replica does not divide by it.")
        return tuple(notes)
    larger = evaluate(problem, doubled)
    needed = float(larger.priced.peak_device_bytes[0])
    size = doubled.layout.micro_batch_size
    notes.append(
        f"Micro-batch {size} under the same choices would take {needed / 2**30:.1f} GiB ({_fits(request, larger)},"
        f" P = {larger.fits_probability:.2f}) and {_time(best, larger)}."
    )
    return tuple(notes)


def _say_offload(request: Request, problem: Problem, best: Evaluated) -> list[str]:
    """What the host has to hold; and the same layout with those activations kept, and computed again."""
    placement, host_bytes = best.placement, best.priced.memory.host[0]
    away = [index for index, policy in enumerate(placement.policies) if POLICIES[policy].offload != "none"]
    if not away:
        return []
    setting = best.of_rank(int(host_bytes.argmax())).layers.setting
    notes = []
    if host_bytes.max() > 0:
        notes.append(
            f"The host holds {host_bytes.max() * setting.devices_per_node / 2**30:,.0f} GiB of a node's"
            f" {setting.host.memory_bytes / 2**30:,.0f} GiB for it."
        )
    instead = {"with them kept": Policy("none"), "with those layers recomputed in full": Policy("full")}
    said = []
    for what, policy in instead.items():
        if policy.recompute not in request.runtime.recompute:
            continue
        policies = list(placement.policies)
        for index in away:
            policies[index] = POLICIES.index(policy)
        other = evaluate(problem, replace(placement, policies=tuple(policies)), best.schedule)
        needed = float(other.priced.peak_device_bytes[0]) / 2**30
        said.append(f"{what}, {needed:.1f} GiB ({_fits(request, other)}) and {_time(best, other)}")
    layers = f"{len(away)} layer{'' if len(away) == 1 else 's'}"
    said_so = f"Activations of {layers} leave the device; the same layout would take, {'; '.join(said)}."
    return [" ".join([said_so, *notes])]


def _say_frozen(request: Request, problem: Problem, best: Evaluated) -> list[str]:
    """What the frozen parts are, where they run, and what the other place would take, where there is one."""
    model, placement = request.model, best.placement
    if not model.frozen_parts:
        return []
    layout, names = placement.layout, " and ".join(part.model.name for part in model.frozen_parts)
    if layout.pp == 1:
        return [f"Frozen parts ({names}) run before the trained layers: without a pipeline there is no bubble to fill."]
    places = ("before the pipeline, on all devices", "in the pipeline's bubbles, for the next step")
    said = f"Frozen parts ({names}) run {places[layout.frozen_fill]}"
    moved = layout.model_copy(update={"frozen_fill": not layout.frozen_fill})
    try:
        check_frozen(request, moved)
    except InvalidSpec:
        return [f"{said}."]
    other = evaluate(problem, replace(placement, layout=moved))
    return [f"{said}; {places[moved.frozen_fill]}, it would take {_time(best, other)} ({_fits(request, other)})."]


def _say_lacking(request: Request) -> list[str]:
    """The ways to split a mixture or a long sequence that the runtime does not have."""
    runtime, model = request.runtime, request.model
    experts = any(isinstance(block, MoEBlock) for kind in model.kinds for block in kind.blocks)
    lacking = [
        f"{what} parallelism"
        for what, wanted in (
            ("expert", experts and not runtime.expert_parallel),
            ("context", request.workload.seq_len >= LONG_TOKENS and not runtime.context_parallel),
        )
        if wanted
    ]
    if not lacking:
        return []
    return [f"{runtime.name} has no {' and no '.join(lacking)}: another runtime may be faster (--runtime {WIDEST})."]


def _fits(request: Request, other: Evaluated) -> str:
    return "fits" if other.fits_probability >= request.fit_probability else "does not fit"


def _time(best: Evaluated, other: Evaluated) -> str:
    """``3.1% more time``."""
    change = other.step_time_s / best.step_time_s - 1.0
    return f"{abs(change):.1%} {'more' if change > 0 else 'less'} time"


def _with_micro_batch(best: Evaluated, factor: int) -> Placement | None:
    placement = best.placement
    layout = placement.layout
    if layout.num_microbatches % factor:
        return None
    doubled = layout.model_copy(
        update={
            "micro_batch_size": layout.micro_batch_size * factor,
            "num_microbatches": layout.num_microbatches // factor,
        }
    )
    changed = Placement(doubled, placement.schedule, placement.layers_per_stage, placement.policies)
    try:
        build_schedule(placement.schedule, doubled.pp, doubled.num_microbatches, doubled.vpp)
    except ParlayError:
        return None
    return changed
