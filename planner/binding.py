"""What keeps a plan from being faster: memory at which rank, what degrees must divide, the runtime, the user."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from costmodel.memory import MemoryColumns, claim_budget_bytes, device_budget_bytes
from costmodel.schema.plan import Plan
from planner.constraints import FORBIDDABLE, KEYS
from planner.constraints.words import options_of
from planner.evaluate import Evaluated, evaluate
from planner.placement import Placement
from planner.problem import Problem
from planner.request import request_from_plan
from planner.search.rules import MIN_TOKENS_PER_CP_RANK, head_limits

NEAR = 0.02
"""Share of the budget below which what is left of it holds nothing worth having."""

IDLE = 0.05
"""Share of a step that ranks wait for each other, from which the number of micro-batches is worth a word."""


@dataclass(frozen=True)
class Binding:
    """One limit that the plan has reached, in a sentence."""

    rule: Literal["memory", "batch", "divisibility", "runtime", "user"]
    says: str


def what_binds(plan: Plan) -> tuple[Binding, ...]:
    """The limits that the plan has reached, memory first; what it has left of others is not said."""
    problem, placement = Problem.from_plan(plan), Placement.from_plan(plan)
    evaluated = evaluate(problem, placement, plan.schedule())
    found = [_memory(plan, evaluated), _batch(plan, evaluated), *_degrees(plan), _runtime(plan), _user(plan)]
    return tuple(one for one in found if one is not None)


def _memory(plan: Plan, evaluated: Evaluated) -> Binding | None:
    """Memory binds where layers spend time to save it, or where next to none of the budget is left."""
    wanted = plan.constraints.fit_probability
    settings = [evaluated.of_rank(rank).layers.setting for rank in range(plan.layout.pp)]
    budget = np.array([claim_budget_bytes(setting, wanted) for setting in settings])

    def fullest(memory: MemoryColumns) -> tuple[int, float, str]:
        """The rank with most of its budget taken, what share, and what it has."""
        share = memory.claim[0] / budget
        rank = int(share.argmax())
        room = f"{device_budget_bytes(settings[rank], wanted) / 2**30:.1f} GiB keep P(fits) at {wanted:.2f}"
        return rank, float(share[rank]), room

    saving = sum(layer.recompute != "none" or layer.offload > 0 for layer in plan.layers)
    if saving:
        kept = replace(evaluated.placement, policies=(0,) * len(plan.layers))
        memory = evaluate(evaluated.problem, kept, evaluated.schedule).priced.memory
        most, share, room = fullest(memory)
        if share <= 1.0:
            return None
        return Binding(
            "memory",
            f"Memory: {saving} of {len(plan.layers)} layers recompute or offload; keeping everything would take"
            f" {memory.device[0, most] / 2**30:.1f} GiB on rank {most}, and {room}.",
        )
    rank, share, room = fullest(evaluated.priced.memory)
    if share < 1.0 - NEAR:
        return None
    used = evaluated.priced.memory.device[0][rank]
    return Binding("memory", f"Memory: rank {rank} takes {used / 2**30:.1f} GiB, and {room}.")


def _batch(plan: Plan, evaluated: Evaluated) -> Binding | None:
    layout, idle = plan.layout, evaluated.simulation.bubble_fraction
    if layout.pp == 1 or layout.micro_batch_size > 1 or idle < IDLE:
        return None
    return Binding(
        "batch",
        f"Batch: {plan.workload.global_batch_size} sequences give each of {layout.dp} pipelines"
        f" {layout.num_microbatches} micro-batches of one sequence; ranks idle {idle:.1%}.",
    )


def _degrees(plan: Plan) -> list[Binding]:
    layout, model, found = plan.layout, plan.model, []
    limits = head_limits(request_from_plan(plan, constrained=False))
    inner = plan.cluster.groups[0].levels[0]
    if layout.tp > 1 and layout.tp >= inner.size:
        found.append(f"tp {layout.tp} fills {inner.name}; a wider group would cross it")
    if layout.tp * layout.cp_ulysses > 1 and layout.tp * layout.cp_ulysses == limits.heads:
        found.append(f"tp · cp_ulysses = {limits.heads} leaves each rank one head of {model.name}")
    if layout.ep > 1 and layout.ep == limits.experts:
        found.append(f"ep {layout.ep} leaves each rank one expert")
    if layout.cp > 1 and plan.workload.seq_len // layout.cp < 2 * MIN_TOKENS_PER_CP_RANK:
        found.append(f"cp {layout.cp} leaves each rank {plan.workload.seq_len // layout.cp} tokens of a sequence")
    stages = layout.pp * layout.vpp
    if layout.pp > 1 and stages >= model.num_layers:
        found.append(f"pp · vpp = {stages} stages share {model.num_layers} layers")
    return [Binding("divisibility", f"Divisibility: {said}.") for said in found]


def _runtime(plan: Plan) -> Binding | None:
    """Techniques that the model and the sequence could use and the runtime does not have."""
    request = request_from_plan(plan, constrained=False)
    long = plan.workload.seq_len >= 2 * MIN_TOKENS_PER_CP_RANK
    could = {"cp_ring": long, "cp_ulysses": long, "optimizer_offload": True, "activation_offload": True}
    could |= dict.fromkeys(("ep", "etp"), head_limits(request).experts > 0)
    some = {"optimizer_offload": 1.0, "activation_offload": 1.0}
    lacks = [
        FORBIDDABLE[name].says
        for name, wanted in could.items()
        if wanted and not KEYS[name].runs(plan.runtime_spec, some.get(name, 2))
    ]
    return Binding("runtime", f"Runtime: {plan.runtime} does not have {', '.join(lacks)}.") if lacks else None


def _user(plan: Plan) -> Binding | None:
    said = options_of(plan.constraints)
    return Binding("user", f"Asked for: {' '.join(said)}.") if said else None
