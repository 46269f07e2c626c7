"""Constraints as the words that ask for them again: what a plan file keeps of its question, and what names a layout."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from costmodel.schema.layout import Layout
from costmodel.schema.model import MoEBlock
from costmodel.schema.plan import PlanConstraints
from planner.constraints.keys import WORLD
from planner.constraints.read import Constraints, read_constraints
from planner.constraints.values import SYNTHESIZED, shown

if TYPE_CHECKING:
    from planner.request import Request


def constraints_of(request: Request) -> Constraints:
    """A request's own."""
    return Constraints(**{field.name: getattr(request, field.name) for field in fields(Constraints)})


def words_of(request: Request) -> PlanConstraints:
    """``fix = ("tp=8", "recompute.0-3=full")``, …: what ``asked_by`` reads back."""
    asked = constraints_of(request)
    return PlanConstraints(
        fix=(
            *(f"{key}={shown(value)}" for key, value in asked.fixed.items()),
            *(f"{pin}={shown(pin.value)}" for pin in asked.pins),
        ),
        limit=tuple(f"{key}={limit.words}" for key, limit in asked.limits.items() if limit.words),
        forbid=(
            *sorted(asked.forbidden),
            *(f"{key}={shown(value)}" for key, limit in asked.limits.items() for value in limit.never),
        ),
        allow=tuple(sorted(asked.allowed)),
        schedules=(*(asked.schedules or ()), *([SYNTHESIZED] if asked.synthesize else [])),
        free_bytes=asked.free_bytes,
        fit_probability=request.fit_probability,
    )


def asked_by(words: PlanConstraints) -> Constraints:
    """The constraints behind a plan. Raises InvalidSpec for words that are none."""
    return read_constraints(
        fix=words.fix,
        limit=words.limit,
        forbid=words.forbid,
        allow=words.allow,
        schedules=words.schedules,
        free_memory=f"{words.free_bytes!r}" if words.free_bytes else None,
    )


def options_of(words: PlanConstraints) -> tuple[str, ...]:
    """``--fix tp=8``, ``--forbid zb-h1``, …: as they would be typed."""
    free = (f"--free-memory {words.free_bytes / 2**30:g}GiB",) if words.free_bytes else ()
    named = (("--fix", words.fix), ("--limit", words.limit), ("--forbid", words.forbid), ("--allow", words.allow))
    schedules = tuple(f"--schedule {name}" for name in words.schedules)
    return (*(f"{option} {word}" for option, some in named for word in some), *schedules, *free)


def pins_of(request: Request, layout: Layout, schedule: str) -> tuple[str, ...]:
    """``("tp=4", "pp=8", "zero_stage=1", …)``: what ``--fix`` takes so that of the request's space this layout is left.

    Degrees of 1 that the others imply are not said, nor is anything that the runtime does in one way only.
    """
    runtime, state = request.runtime, request.runtime.state
    experts = any(isinstance(block, MoEBlock) for kind in request.model.kinds for block in kind.blocks)
    shards = {"shard_params": ("params", 3), "reshard_after_forward": ("secondary", 3), "shard_optim": ("optimizer", 1)}
    chosen = {
        **{name: getattr(layout, name) > 1 for name in WORLD},
        "vpp": layout.pp > 1,
        "ep": experts,
        "etp": experts and runtime.expert_tensor_parallel,
        "micro_batch_size": True,
        "zero_stage": True,
        **{
            name: layout.zero_stage >= stage and technique in state.shard_groups
            for name, (technique, stage) in shards.items()
        },
        "sequence_parallel": layout.tp > 1,
        "optimizer_format": layout.optimizer_format != "fp32" or bool(request.allowed),
        "optimizer_offload": runtime.optimizer_offload and request.device.vendor != "cpu",
        "order": layout.pp > 1 and layout.dp > 1,
    }
    words = [f"{name}={shown(getattr(layout, name))}" for name, said in chosen.items() if said]
    return (*words, f"schedule={schedule}")
