"""The rules of the space: which values a column may take, and which combinations are legal.

Model, batch, cluster and runtime make them. A rule is given the columns so far and says which rows are legal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from math import gcd
from typing import Any

import numpy as np
from numpy.typing import NDArray

from costmodel.layouts import OPTIMIZER_FORMATS, SCHEDULE_CODES, Layouts
from costmodel.pipeline import schedule_is_legal
from costmodel.schedules import SCHEDULES
from costmodel.schema.model import AttentionBlock, LinearAttentionBlock, Mamba2Block, MLABlock, ModelSpec, MoEBlock
from costmodel.schema.runtime import Runtime
from planner.constraints.rows import admits, named_values
from planner.constraints.techniques import optimizer_technique
from planner.request import Request
from planner.stage_ends import most_stages

MAX_MICRO_BATCH_SIZE = 64
MIN_TOKENS_PER_CP_RANK = 2048
"""Context parallelism below this many tokens a rank is left out: no sequence is short of memory there."""

MOST_PASSES = 2_000_000
"""Passes of one step's schedule, at most: more would neither be written to a plan nor simulated in reasonable time."""

VPP_CHOICES = {
    "interleaved-1f1b": (2, 3, 4, 5, 6, 8, 10, 12, 16), "bitpipe": (2,), "zeropp": (1, 2),
    "interleaved-1f1b+2bp": (2, 4), "bitpipe+2bp": (2,),
}  # fmt: skip
"""Stages a rank that are tried, by schedule."""

IF_ASKED = ("gpipe+2bp", "1f1b+2bp", "breadth-first+2bp", "hanayo+2bp")
"""Schedules that are tried where --schedule or --fix names them: zb-h1, zeropp, interleaved-1f1b+2bp or bitpipe+2bp is
as fast, or slower by less than a percent, with as many micro-batches alive (a test holds some sizes and times)."""

FEW_STAGES = (1, 2, 4, 8)
"""What is tried of every other schedule, as far as it allows."""

Table = dict[str, NDArray[Any]]
Rule = Callable[[Table], NDArray[np.bool_]]
Choice = tuple[str, Sequence[float], Rule]
"""A column, the values that are tried, and the rule that rows with them obey."""


@dataclass(frozen=True)
class HeadLimits:
    """What tensor and sequence-to-head parallelism must divide, over all blocks of the model."""

    heads: int
    experts: int


def divisors(number: int) -> list[int]:
    """All divisors, ascending."""
    return [d for d in range(1, number + 1) if number % d == 0]


def head_limits(request: Request) -> HeadLimits:
    """Greatest common divisors of head counts and of expert counts; 0 experts for a dense model."""
    experts = [
        block.num_experts for kind in request.model.kinds for block in kind.blocks if isinstance(block, MoEBlock)
    ]
    return HeadLimits(common_heads(request.model), gcd(*experts))


def common_heads(model: ModelSpec) -> int:
    """Greatest common divisor of head counts; the width of a model without heads."""
    heads = 0
    for block in (block for kind in model.kinds for block in kind.blocks):
        if isinstance(block, AttentionBlock | MLABlock | Mamba2Block):
            heads = gcd(heads, block.num_heads)
        elif isinstance(block, LinearAttentionBlock):
            heads = gcd(heads, block.num_value_heads)
    return heads or model.hidden_size


def allowed(request: Request, name: str, values: Iterable[float]) -> list[float]:
    """The values that --fix, --limit and --forbid leave."""
    return [value for value in values if admits(request, name, value)]


def any_row(table: Table) -> NDArray[np.bool_]:
    """The rule that nothing breaks."""
    return np.ones(len(table["tp"]), bool)


def degree_choices(request: Request) -> list[Choice]:
    """tp, pp, the two kinds of context parallelism, and the expert mesh."""
    limits = head_limits(request)
    world, model = request.cluster.num_devices, request.model
    ways = divisors(world)
    inner = int(request.cluster.levels[0].size)
    seq_len = request.workload.seq_len
    context = request.runtime.context_parallel
    wide, named_etp = named_values(request, "tp"), named_values(request, "etp")
    tp = [d for d in divisors(limits.heads) if d in ways and (d <= inner or d in wide)]
    most_cp = _most_cp(request)
    cp = [d for d in ways if d == 1 or (seq_len % (2 * d) == 0 and d <= most_cp)]
    ep = [d for d in divisors(limits.experts or 1) if world % d == 0]
    if not request.runtime.expert_parallel:
        ep = [1]
    etp = [d for d in tp if d == 1 or (limits.experts and request.runtime.expert_tensor_parallel)]
    stages = most_stages(model, request.runtime)
    choices: list[Choice] = [
        ("tp", tp, lambda t: world % t["tp"] == 0),
        ("pp", [d for d in ways if d <= stages], lambda t: world % (t["tp"] * t["pp"]) == 0),
        (
            "cp_ulysses",
            cp if "ulysses" in context else (1,),
            lambda t: (
                (world % (t["tp"] * t["pp"] * t["cp_ulysses"]) == 0) & (limits.heads % (t["tp"] * t["cp_ulysses"]) == 0)
            ),
        ),
        ("cp_ring", cp if "ring" in context else (1,), lambda t: _cp_legal(t, world, seq_len, most_cp)),
        ("etp", etp, lambda t: (t["etp"] == 1) | (t["etp"] == t["tp"]) | np.isin(t["etp"], named_etp)),
        ("ep", ep, lambda t: (t["world"] // t["pp"]) % (t["etp"] * t["ep"]) == 0),
    ]
    return [(name, allowed(request, name, values), legal) for name, values, legal in choices]


def _most_cp(request: Request) -> int:
    """As many ranks as have enough tokens each, or as the user names."""
    ring, ulysses, both = (max(named_values(request, f"cp{of}"), default=1) for of in ("_ring", "_ulysses", ""))
    return max(request.workload.seq_len // MIN_TOKENS_PER_CP_RANK, ring * ulysses, both)


def _cp_legal(table: Table, world: int, seq_len: int, most: int) -> NDArray[np.bool_]:
    cp = table["cp_ring"] * table["cp_ulysses"]
    return np.asarray(
        (world % (table["tp"] * table["pp"] * cp) == 0) & ((cp == 1) | ((cp <= most) & (seq_len % (2 * cp) == 0)))
    )


def micro_batch_choice(request: Request) -> Choice:
    """Micro-batches that divide each replica's share of the batch."""
    batch = request.workload.global_batch_size
    few = range(1, min(MAX_MICRO_BATCH_SIZE, batch) + 1)
    sizes = [d for d in sorted({*few, *named_values(request, "micro_batch_size")}) if batch % d == 0]
    name = "micro_batch_size"
    return name, allowed(request, name, sizes), lambda t: batch % (t["dp"] * t[name]) == 0


def schedule_choices(request: Request) -> list[Choice]:
    """Schedules, and the stages a rank that are tried of each."""
    names = [name for name in SCHEDULE_CODES if name in request.runtime.schedules and admits(request, "schedule", name)]
    if request.schedules is not None:
        names = [name for name in names if name in request.schedules]
    asked = {*(request.schedules or ()), *named_values(request, "schedule")}
    names = [name for name in names if name in asked or name not in IF_ASKED]
    most = [most_stages(request.model, request.runtime, whole=form.barriers == 0) for form in SCHEDULES.values()]
    tried = {SCHEDULE_CODES.index(name): VPP_CHOICES.get(name, FEW_STAGES) for name in names}
    named = named_values(request, "vpp")
    vpps = sorted({vpp for choices in tried.values() for vpp in choices} | set(named))

    def lone(t: Table) -> NDArray[np.bool_]:
        """With one stage every schedule is gradient accumulation; only 1f1b stands for it."""
        return np.asarray((t["pp"] > 1) | (t["schedule"] == SCHEDULE_CODES.index("1f1b")))

    def is_tried(t: Table) -> NDArray[np.bool_]:
        """Whatever was named, and else what is tried of the row's schedule."""
        if named:
            return any_row(t)
        of_own = [(t["schedule"] == code) & np.isin(t["vpp"], vpps) for code, vpps in tried.items()]
        return np.asarray(np.any(of_own, axis=0))

    def legal(t: Table) -> NDArray[np.bool_]:
        columns: dict[str, Any] = {field.name: t.get(field.name, t["tp"]) for field in fields(Layouts)}
        stages = t["pp"] * t["vpp"]
        filled = stages <= np.array(most)[t["schedule"]]
        short = 2 * stages * t["num_microbatches"] <= MOST_PASSES
        rounds = can_interleave(request.runtime, t["schedule"], t["pp"], t["num_microbatches"])
        return np.asarray(is_tried(t) & rounds & schedule_is_legal(Layouts(**columns)) & filled & short)

    codes = [SCHEDULE_CODES.index(name) for name in names]
    return [("schedule", codes, lone), ("vpp", allowed(request, "vpp", vpps), legal)]


def split_vocabulary(request: Request, table: Table) -> Table:
    """Whether the row's schedule splits the vocabulary, where the runtime and the model can."""
    splits = np.array([form.barriers > 0 for form in SCHEDULES.values()])[table["schedule"]]
    keep = ~splits | can_split_vocabulary(request, table["pp"], table["tp"])
    return {name: column[keep] for name, column in (table | {"vocab_parallel": splits.astype(np.int64)}).items()}


def can_split_vocabulary(request: Request, pp: Any, tp: Any) -> Any:
    """Whether the runtime splits the model's vocabulary over ``pp`` ranks beside ``tp``, each with a row at least."""
    rules, model = request.runtime.vocab_parallel, request.model
    if rules is None or (model.tie_word_embeddings and not rules.tied) or not model.has_head:
        return (pp < 0) & (tp < 0)
    rows = -(-model.vocab_size // pp)
    return (rows * (pp - 1) < model.vocab_size) & (rules.beside_tensor | (tp == 1))


def can_interleave(runtime: Runtime, schedule: Any, pp: Any, num_microbatches: Any) -> Any:
    """Whether the runtime's interleaved 1F1B takes so many micro-batches; ``schedule``: a name, or codes."""
    interleaved = "interleaved-1f1b" if isinstance(schedule, str) else SCHEDULE_CODES.index("interleaved-1f1b")
    return runtime.interleaves_any_number | (schedule != interleaved) | (num_microbatches % pp == 0)


def sequence_parallel_choice(request: Request) -> Choice:
    """With tp = 1 there is nothing to split, and 1 stands for both."""
    never = request.runtime.sequence_parallel == "never" or not admits(request, "sequence_parallel", True)
    always = request.runtime.sequence_parallel == "always" or not admits(request, "sequence_parallel", False)
    name = "sequence_parallel"
    if never:
        return name, (0, 1), lambda t: (t[name] == 1) == (t["tp"] == 1)
    if always:
        return name, (1,), any_row
    return name, (0, 1), lambda t: (t[name] == 1) | (t["tp"] > 1)


def order_choice(request: Request) -> Choice:
    """Data parallel outermost is a layout of its own only where pipeline neighbours could share a node."""
    levels = request.cluster.levels
    inner = int(levels[0].size) if len(levels) <= 2 else request.cluster.num_devices
    experts = head_limits(request).experts > 0

    def legal(t: Table) -> NDArray[np.bool_]:
        both = (t["pp"] > 1) & (t["dp"] > 1)
        near = t["tp"] * t["cp_ring"] * t["cp_ulysses"]
        alike = same_pipelines(t["etp"] * t["ep"], near) if experts else True
        return np.asarray((t["order"] == 0) | (both & (near < inner) & alike))

    return "order", (0, 1), legal


def same_pipelines(expert_ranks: Any, near_ranks: Any) -> Any:
    """Whether etp · ep lets pipelines lie inside data parallelism: only where it equals tp · cp do the experts' mesh
    and the other one step from stage to stage alike.

    Source: Megatron-LM, core/parallel_state.py, which refuses other meshes.
    """
    return expert_ranks == near_ranks


def shard_choice(request: Request) -> Choice:
    """Over how many replicas state is split; the others keep copies."""
    return (
        "dp_shard",
        allowed(request, "dp_shard", divisors(request.cluster.num_devices)),
        lambda t: t["dp"] % t["dp_shard"] == 0,
    )


def zero_choice(request: Request) -> Choice:
    """Plain data parallelism is dp_shard = 1; sharding needs somebody to share with."""
    over_cp, rules = request.runtime.state.shards_over_cp, request.runtime.vocab_parallel

    def legal(t: Table) -> NDArray[np.bool_]:
        cp = t["cp_ring"] * t["cp_ulysses"] if over_cp else np.ones_like(t["tp"])
        beside_parts = (t["vocab_parallel"] == 0) | np.isin(t["zero_stage"], () if rules is None else rules.zero_stages)
        shared = np.where(t["zero_stage"] == 0, t["dp_shard"] == 1, t["dp_shard"] * cp > 1)
        return np.asarray(beside_parts & shared)

    return "zero_stage", allowed(request, "zero_stage", request.runtime.state.zero_stages), legal


def format_choice(request: Request) -> Choice:
    """The optimizer's formats that the runtime has and --allow names, by code; one for all without moments."""
    usable = [
        OPTIMIZER_FORMATS.index(name)
        for name in request.runtime.optimizer_formats
        if name == "fp32" or optimizer_technique(name) in request.allowed
    ]
    return "optimizer_format", usable if request.workload.optimizer_state_bytes else [0], any_row


def offload_choice(request: Request) -> Choice:
    """Shares of the optimizer on the host: none, all, and what the user names; what else is worth trying comes with
    prices (``offload.py``)."""
    name, runtime = "optimizer_offload", request.runtime
    if not runtime.optimizer_offload or request.device.vendor == "cpu":
        return name, (0.0,), any_row
    named = named_values(request, name) if runtime.partial_optimizer_offload else ()
    return name, [share for share in sorted({0.0, 1.0, *named}) if admits(request, name, share)], any_row
