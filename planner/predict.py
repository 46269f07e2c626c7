"""Price exactly one layout, without search."""

from __future__ import annotations

from time import perf_counter

from costmodel.even_split import even_split
from costmodel.layouts import POLICIES
from costmodel.schedules import SCHEDULES
from costmodel.schema.errors import Infeasible, InvalidSpec
from costmodel.schema.layout import AXES, Layout
from costmodel.schema.plan import Certificate, Plan
from planner.assemble import build_plan
from planner.evaluate import evaluate
from planner.mixed import check_mixed
from planner.placement import Placement
from planner.problem import Problem
from planner.request import Request
from planner.search.frozen import check_frozen
from planner.search.rules import can_interleave, can_split_vocabulary, divisors, head_limits, same_pipelines
from planner.spread import with_spread
from planner.stage_ends import check_stages


def predict_plan(request: Request, layout: Layout, schedule: str, recompute: str = "none") -> Plan:
    """The plan of one given layout: layers split evenly, one recompute policy for all.

    Raises InvalidSpec when the layout contradicts the request (ranks, batch, runtime), the schedule its sizes.
    """
    check_layout(request, layout, schedule, recompute)
    return price_given(request, layout, schedule, [policy.name for policy in POLICIES].index(recompute))


def price_given(request: Request, layout: Layout, schedule: str, policy: int) -> Plan:
    """``predict_plan`` of a layout that is known to suit the request, with an index into POLICIES."""
    began = perf_counter()
    problem = Problem.from_request(request).on_axis()
    lengths = tuple(even_split(len(problem.kinds), layout.pp * layout.vpp))
    placement = Placement(layout, schedule, lengths, (policy,) * len(problem.kinds))
    evaluated = evaluate(with_spread(problem, placement, request.fit, request.calibration), placement)
    certificate = Certificate(
        status="given",
        gap=None,
        lower_bound_s=None,
        considered=1,
        evaluated=1,
        pruned={},
        wall_s=perf_counter() - began,
    )
    return build_plan(evaluated, certificate, request.assumptions + priced_beyond(request, layout))


def check_layout(request: Request, layout: Layout, schedule: str, recompute: str) -> None:
    """Refuse in one sentence what the request cannot mean."""
    world, batch = request.cluster.num_devices, request.workload.global_batch_size
    if layout.world_size != world:
        raise Infeasible(
            f"the layout's degrees multiply to {layout.world_size} ranks, the cluster has {world} devices",
            hint="pp · dp_replicate · dp_shard · cp_ring · cp_ulysses · tp must equal --gpus",
        )
    processed = layout.dp * layout.micro_batch_size * layout.num_microbatches
    if processed != batch:
        raise InvalidSpec(
            f"dp {layout.dp} · micro-batch {layout.micro_batch_size} · {layout.num_microbatches} micro-batches"
            f" = {processed}, not the global batch {batch}",
            f"the batch must divide by dp · micro-batch = {layout.dp * layout.micro_batch_size}",
        )
    runtime = request.runtime
    if schedule not in runtime.schedules:
        raise InvalidSpec(f"schedule {schedule!r}: the runtime {runtime.name} has {', '.join(runtime.schedules)}")
    check_stages(request.model, runtime, layout.pp, layout.vpp, schedule)
    if not can_interleave(runtime, schedule, layout.pp, layout.num_microbatches):
        raise InvalidSpec(
            f"schedule {schedule!r}: {runtime.name} runs it with micro-batches in multiples of pp = {layout.pp},"
            f" not with {layout.num_microbatches}"
        )
    if recompute not in runtime.recompute:
        raise InvalidSpec(f"recompute {recompute!r}: the runtime {runtime.name} has {', '.join(runtime.recompute)}")
    if layout.zero_stage not in runtime.state.zero_stages:
        stages = ", ".join(map(str, runtime.state.zero_stages))
        raise InvalidSpec(f"zero_stage {layout.zero_stage}: the runtime {runtime.name} has {stages}")
    if layout.sequence_parallel and layout.tp > 1 and runtime.sequence_parallel == "never":
        raise InvalidSpec(f"sequence_parallel true: the runtime {runtime.name} never does it", "--no-sequence-parallel")
    _check_vocabulary(request, layout, schedule)
    check_frozen(request, layout)
    _check_splits(request, layout)
    check_mixed(request.cluster, layout, schedule)


def _check_vocabulary(request: Request, layout: Layout, schedule: str) -> None:
    """The schedule says whether the vocabulary is split; the runtime and the model must be able to."""
    splits = SCHEDULES[schedule].barriers > 0
    if splits != layout.vocab_parallel:
        raise InvalidSpec(
            f"vocab_parallel {str(layout.vocab_parallel).lower()}: schedule {schedule!r} "
            + ("splits the vocabulary over pipeline ranks" if splits else "has both ends of the model whole"),
            "take 1f1b-vocab-1 or 1f1b-vocab-2 to split it, any other schedule not to",
        )
    runtime = request.runtime
    rules = runtime.vocab_parallel
    if splits and (rules is None or not can_split_vocabulary(request, layout.pp, layout.tp)):
        raise InvalidSpec(
            f"schedule {schedule!r}: {runtime.name} does not split the vocabulary of {request.model.name} over"
            f" pp = {layout.pp} beside tp = {layout.tp}",
            "it takes an embedding and a head of their own, a row on each rank, and tp = 1",
        )
    if splits and rules is not None and layout.zero_stage not in rules.zero_stages:
        stages = ", ".join(map(str, rules.zero_stages))
        raise InvalidSpec(
            f"zero_stage {layout.zero_stage}: with schedule {schedule!r} the runtime {runtime.name} has {stages}"
        )


def _check_splits(request: Request, layout: Layout) -> None:
    """What the degrees must divide."""
    limits = head_limits(request)
    across = layout.tp * layout.cp_ulysses
    if limits.heads % across:
        raise InvalidSpec(
            f"tp {layout.tp} · cp_ulysses {layout.cp_ulysses} = {across} does not divide the {limits.heads} heads of"
            f" {request.model.name}",
            f"take one of {', '.join(map(str, divisors(limits.heads)))}",
        )
    if layout.cp > 1 and request.workload.seq_len % (2 * layout.cp):
        raise InvalidSpec(f"cp {layout.cp}: a sequence of {request.workload.seq_len} must divide by 2 · cp")
    experts_over = layout.ep * layout.etp
    if experts_over > 1 and not limits.experts:
        raise InvalidSpec(f"ep {layout.ep} · etp {layout.etp}: {request.model.name} has no experts", "leave both at 1")
    if limits.experts and layout.order != AXES and not same_pipelines(experts_over, layout.tp * layout.cp):
        raise InvalidSpec(
            f"order {','.join(layout.order)}: with pipelines inside data parallelism the experts' mesh must take as"
            f" many ranks as the other: ep {layout.ep} · etp {layout.etp} is not tp {layout.tp} · cp {layout.cp}",
            "take the default order",
        )
    if limits.experts % layout.ep:
        raise InvalidSpec(f"ep {layout.ep} does not divide the {limits.experts} experts of {request.model.name}")


def priced_beyond(request: Request, layout: Layout) -> tuple[str, ...]:
    """What the layout asks of the runtime that it does not do, a sentence each: priced as if it did, and said so."""
    runtime = request.runtime
    asked = {
        "cp_ring": (layout.cp_ring > 1, "ring" in runtime.context_parallel),
        "cp_ulysses": (layout.cp_ulysses > 1, "ulysses" in runtime.context_parallel),
        "ep": (layout.ep > 1, runtime.expert_parallel),
        "etp": (layout.etp > 1, runtime.expert_tensor_parallel),
        "optimizer_offload": (layout.optimizer_offload > 0, runtime.optimizer_offload),
        "optimizer_format": (layout.optimizer_format != "fp32", layout.optimizer_format in runtime.optimizer_formats),
        "reshard_after_forward": (layout.reshard_after_forward > 0, "secondary" in runtime.state.shard_groups),
        "shard_params": (layout.shard_params > 0, "params" in runtime.state.shard_groups),
        "shard_optim": (layout.shard_optim > 0, "optimizer" in runtime.state.shard_groups),
    }
    return tuple(
        f"{name} {_shown(getattr(layout, name))} is priced as if {runtime.name} did it; it does not yet."
        for name, (wanted, offered) in asked.items()
        if wanted and not offered
    )


def _shown(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"
