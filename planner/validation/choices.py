"""The layouts that a measured row may have run: its own where it states one, else the usual ones to choose from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from costmodel.even_split import even_split
from costmodel.layouts import POLICIES, Policy
from costmodel.schedules import SCHEDULES
from costmodel.schema.errors import InvalidSpec, UnknownName
from costmodel.schema.layout import Layout, RecomputePolicy
from costmodel.schema.model import ModelSpec, MoEBlock
from planner.placement import Placement
from planner.schedules.names import canonical_name
from planner.stage_ends import check_stages
from planner.validation.row import MeasuredRow
from planner.validation.stack import Stack

MICRO_BATCHES = (1, 2, 4, 8, 16, 32, 64)
"""Micro-batch sizes to choose from where a row states none."""

_BLOCK = re.compile(r"block\D*(\d+)")
_ZERO = re.compile(r"zero\D?([0-3])")


@dataclass(frozen=True)
class Degrees:
    """tp, pp and cp of a row, and the data-parallel degree that they leave."""

    tp: int
    pp: int
    cp: int
    dp: int


def candidate_degrees(row: MeasuredRow, stack: Stack, model: ModelSpec, devices_per_node: int) -> list[Degrees]:
    """The row's degrees; where it leaves tp or pp open, every split that its dp and the framework allow.

    Raises InvalidSpec where the stated degrees contradict the number of devices.
    """
    assert row.gpus is not None
    cp = row.cp or 1
    stated_dp = row.dp if row.tp is None or row.pp is None else None
    found = []
    for tp in [row.tp] if row.tp else _open_tp(row, stack, devices_per_node):
        for pp in [row.pp] if row.pp else _open_pp(row, stack, model):
            dp, rest = divmod(row.gpus, tp * pp * cp)
            if not rest and dp and (stated_dp is None or dp == stated_dp):
                found.append(Degrees(tp, pp, cp, dp))
    if stack.framework.fills_node and stated_dp is not None:
        widest = max((degrees.tp for degrees in found), default=1)
        found = [degrees for degrees in found if degrees.tp == widest]
    if not found:
        shown = " · ".join(
            f"{name} {value}"
            for name, value in (("tp", row.tp), ("pp", row.pp), ("cp", row.cp), ("dp", row.dp))
            if value
        )
        raise InvalidSpec(f"{shown} does not divide {row.gpus} devices")
    return found


def _open_tp(row: MeasuredRow, stack: Stack, devices_per_node: int) -> list[int]:
    """Powers of two inside a node; 1 where parameters are sharded instead."""
    if zero_stage(row, stack) == 3:
        return [1]
    heads = row.heads or devices_per_node
    return [tp for tp in (1, 2, 4, 8, 16) if tp <= devices_per_node and heads % tp == 0]


def _open_pp(row: MeasuredRow, stack: Stack, model: ModelSpec) -> list[int]:
    if zero_stage(row, stack) == 3:
        return [1]
    return [pp for pp in range(1, model.num_layers + 1) if model.num_layers % pp == 0]


def zero_stage(row: MeasuredRow, stack: Stack) -> int:
    """The stated sharding as a stage, else the framework's."""
    stated = row.sharding.lower()
    if match := _ZERO.search(stated):
        return int(match[1])
    if any(word in stated for word in ("hsdp", "fsdp", "full_shard")):
        return 3
    if "shard_grad" in stated:
        return 2
    return 0 if stated in ("none", "ddp") else stack.framework.zero_stage


def candidates(row: MeasuredRow, stack: Stack, model: ModelSpec, devices_per_node: int) -> Iterator[Placement]:
    """Every placement that the row may mean, under the first kind of recomputation to try.

    Raises InvalidSpec where no batch and no split of layers fits the stated degrees.
    """
    reason = None
    for degrees in candidate_degrees(row, stack, model, devices_per_node):
        for micro_batch in [row.micro_batch] if row.micro_batch else MICRO_BATCHES:
            for vpp in open_chunks(row, stack, model, degrees.pp):
                try:
                    yield _placement(row, stack, model, degrees, micro_batch, vpp, devices_per_node)
                except InvalidSpec as error:
                    if row.micro_batch or micro_batch == 1:
                        reason = error
    if reason is not None:
        raise reason


def open_chunks(row: MeasuredRow, stack: Stack, model: ModelSpec, pp: int) -> list[int]:
    """Chunks a rank: the stated ones; else one, or every even split where the framework's recipes interleave."""
    if row.vpp or row.schedule or pp == 1 or not stack.framework.interleaved:
        return [row.vpp or 1]
    per_rank, rest = divmod(model.num_layers, pp)
    return [1] if rest else [vpp for vpp in range(1, per_rank + 1) if per_rank % vpp == 0]


def _expert_tensor_parallel(row: MeasuredRow, stack: Stack, degrees: Degrees, experts: MoEBlock) -> int:
    """Over how many ranks each expert is split: as stated; else as the framework does, where ranks and shape allow."""
    stated = row.flags.get("etp") or row.flags.get("expert_tensor_parallel_size", "")
    if stated.isdecimal():
        return int(stated)
    ranks = degrees.tp * degrees.cp * degrees.dp
    fits = ranks % ((row.ep or 1) * degrees.tp) == 0 and experts.intermediate_size % degrees.tp == 0
    return degrees.tp if stack.framework.expert_tensor_parallel and fits else 1


def _placement(
    row: MeasuredRow,
    stack: Stack,
    model: ModelSpec,
    degrees: Degrees,
    micro_batch: int,
    vpp: int,
    devices_per_node: int,
) -> Placement:
    assert row.global_batch is not None
    microbatches, rest = divmod(row.global_batch, degrees.dp * micro_batch)
    if rest or not microbatches:
        raise InvalidSpec(
            f"the global batch {row.global_batch} does not divide by dp {degrees.dp} · micro-batch {micro_batch}"
        )
    schedule = schedule_of(row, degrees.pp, vpp, microbatches)
    if schedule != "interleaved-1f1b":
        vpp = 1
    check_stages(model, stack.runtime, degrees.pp, vpp, schedule)
    ulysses = row.flags.get("cp_comm_type", "").lower().startswith("a2a")
    shard, replicate = _data_parallel(row, degrees, devices_per_node)
    experts = next((b for kind in model.kinds for b in kind.blocks if isinstance(b, MoEBlock)), None)
    layout = Layout.load(
        {
            "tp": degrees.tp,
            "pp": degrees.pp,
            "vpp": vpp,
            "cp_ring": 1 if ulysses else degrees.cp,
            "cp_ulysses": degrees.cp if ulysses else 1,
            "ep": (row.ep or 1) if experts is not None else 1,
            "etp": _expert_tensor_parallel(row, stack, degrees, experts) if experts is not None else 1,
            "dp_shard": shard,
            "dp_replicate": replicate,
            "micro_batch_size": micro_batch,
            "num_microbatches": microbatches,
            "zero_stage": zero_stage(row, stack),
            "sequence_parallel": row.seq_parallel
            if row.seq_parallel is not None
            else stack.framework.sequence_parallel,
        },
        row.id,
    )
    lengths = stage_lengths(model.num_layers, layout.pp * layout.vpp, stack.framework.ends_are_layers)
    first = recompute_choices(row, stack)[0]
    return Placement(layout, schedule, lengths, policies_of(row, first, lengths))


def stage_lengths(num_layers: int, num_stages: int, ends_are_layers: bool) -> tuple[int, ...]:
    """Layers per stage, as equal as can be.

    ``ends_are_layers``: embedding, final norm and head count as one layer each, and what is left over goes to the first
    stages; where a stage would be left without a layer, the layers alone are split.
    """
    if ends_are_layers and num_stages > 1:
        base, extra = divmod(num_layers + 3, num_stages)
        modules = [base + (stage < extra) for stage in range(num_stages)]
        lengths = [modules[0] - 1, *modules[1:-1], modules[-1] - 2]
        if min(lengths) >= 1:
            return tuple(lengths)
    return tuple(even_split(num_layers, num_stages))


def _data_parallel(row: MeasuredRow, degrees: Degrees, devices_per_node: int) -> tuple[int, int]:
    """(sharded, replicated): all sharded, within a node under hybrid sharding, or in groups of the stated size."""
    size = degrees.dp
    stated = row.flags.get("zero1", "")
    if "hsdp" in row.sharding.lower() or "hybrid" in row.sharding.lower():
        size = max(devices_per_node // (degrees.tp * degrees.cp), 1)
    elif stated.isdecimal():
        size = int(stated)
    return (size, degrees.dp // size) if size <= degrees.dp and degrees.dp % size == 0 else (degrees.dp, 1)


def schedule_of(row: MeasuredRow, pp: int, vpp: int, microbatches: int) -> str:
    """The stated schedule where it is one that is priced; else 1F1B, interleaved where a rank has several chunks."""
    if vpp > 1 and pp > 1 and microbatches % pp == 0:
        return "interleaved-1f1b"
    try:
        stated = canonical_name(row.schedule) if row.schedule else "1f1b"
    except UnknownName:
        stated = "1f1b"
    fits = stated in SCHEDULES and SCHEDULES[stated].allows(pp, microbatches, 1)
    return stated if fits else "1f1b"


def recompute_choices(row: MeasuredRow, stack: Stack) -> tuple[RecomputePolicy, ...]:
    """The stated kind of recomputation alone, or the framework's kinds in the order in which they are tried."""
    stated = row.recompute.lower()
    if stated.startswith("selective"):
        return ("selective",)
    if stated.startswith("full"):
        return ("full",)
    return ("none",) if stated else stack.framework.recompute


def policies_of(row: MeasuredRow, recompute: RecomputePolicy, layers_per_stage: tuple[int, ...]) -> tuple[int, ...]:
    """Per layer: all alike; the first N of a stage where the row says ``block, N``; every second for ``(layer)``."""
    chosen, none = POLICIES.index(Policy(recompute)), POLICIES.index(Policy("none"))
    stated = row.recompute.lower()
    if match := _BLOCK.search(stated):
        return tuple(chosen if at < int(match[1]) else none for length in layers_per_stage for at in range(length))
    if stated == "selective (layer)":
        full = POLICIES.index(Policy("full"))
        return tuple(full if at % 2 else none for at in range(sum(layers_per_stage)))
    return (chosen,) * sum(layers_per_stage)
