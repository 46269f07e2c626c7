"""What the executor can run, as data, and the check that a plan asks for nothing else. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator

from costmodel.passes import check_schedule
from costmodel.schema.errors import InvalidSpec
from costmodel.schema.model import AttentionBlock, LayerKind, MLPBlock, ModelSpec
from costmodel.schema.plan import Plan
from costmodel.schema.schedule import VOCAB_KINDS, PassKind, Schedule

UNSUPPORTED_DEGREES = ("cp_ring", "cp_ulysses", "ep", "etp")
"""Layout degrees that must be 1."""

PRECISIONS = ("fp32", "tf32", "bf16")
"""Matrix product precisions; ``tf32`` is fp32 with TF32 matrix products where the device has them."""

PASSES = tuple(kind for kind in PassKind if kind is not PassKind.FROZEN_FORWARD)
"""Kinds of passes. Those of frozen parts are for programs of their own so far (executor/frozen.py)."""

OPTIMIZER_FORMATS = ("fp32", "int8")

OPTIMIZERS = ("adamw", "sgd", "sgd-momentum")


def check_runnable(plan: Plan) -> None:
    """Raise InvalidSpec with the first reason why the executor cannot run ``plan``; return when there is none."""
    for reason in reasons_not_runnable(plan):
        raise InvalidSpec(f"this plan cannot be run: {reason}")


def reasons_not_runnable(plan: Plan) -> Iterator[str]:
    """Every reason why the executor cannot run ``plan``, one sentence each; nothing when it can."""
    yield from _layout_reasons(plan)
    yield from _model_reasons(plan.model)
    yield from _split_reasons(plan)
    yield from _pipeline_reasons(plan)


def _layout_reasons(plan: Plan) -> Iterator[str]:
    layout, workload = plan.layout, plan.workload
    for name in UNSUPPORTED_DEGREES:
        if (degree := getattr(layout, name)) != 1:
            yield f"layout.{name} = {degree}, and the executor runs {name} = 1 only"
    if layout.optimizer_offload > 0:
        share = layout.optimizer_offload
        yield f"layout.optimizer_offload = {share}, and the executor keeps optimizer state on the device (0)"
    yield from _shard_reasons(plan)
    if workload.precision not in PRECISIONS:
        yield f"workload.precision = {workload.precision}, and the executor runs {', '.join(PRECISIONS)}"
    if workload.grad_reduce_dtype == "fp16":
        yield "workload.grad_reduce_dtype = fp16, and the executor reduces in bf16 or fp32"
    sequences = layout.dp * layout.num_microbatches * layout.micro_batch_size
    if sequences != workload.global_batch_size:
        yield (
            f"workload.global_batch_size = {workload.global_batch_size}, but dp {layout.dp} · num_microbatches "
            f"{layout.num_microbatches} · micro_batch_size {layout.micro_batch_size} = {sequences}"
        )


def _shard_reasons(plan: Plan) -> Iterator[str]:
    layout = plan.layout
    usual = {"shard_params": layout.dp_shard, "shard_grads": layout.dp_shard, "shard_optim": layout.dp_shard}
    for name, ranks in usual.items():
        if (size := getattr(layout, name)) not in (0, ranks):
            yield f"layout.{name} = {size}, and the executor splits it over dp_shard = {ranks} (0)"
    between = layout.reshard_after_forward
    if between and layout.pp > 1:
        yield f"layout.reshard_after_forward = {between}, and under a pipeline parameters stay gathered all step (0)"
    elif layout.tp > 1 and 1 < between < layout.dp_shard:
        yield f"layout.reshard_after_forward = {between}, and beside tp = {layout.tp} the executor runs 0 and 1"
    if layout.optimizer_format not in OPTIMIZER_FORMATS:
        formats = " or ".join(OPTIMIZER_FORMATS)
        yield f"layout.optimizer_format = {layout.optimizer_format}, and the executor keeps moments in {formats}"
    if layout.optimizer_format != "fp32" and plan.workload.optimizer != "adamw":
        yield f"workload.optimizer = {plan.workload.optimizer}, and moments in {layout.optimizer_format} are adamw's"


def _model_reasons(model: ModelSpec) -> Iterator[str]:
    if model.frozen_parts:
        names = ", ".join(part.model.name for part in model.frozen_parts)
        yield f"model.frozen_parts has {names}, and the executor trains one network without frozen parts"
    for field, value, runs in (
        ("norm", model.norm, ("rmsnorm",)),
        ("activation", model.activation, ("silu", "swiglu")),
        ("learned_positions", model.learned_positions, (0,)),
        ("embedding_norms", model.embedding_norms, (0,)),
        ("final_norms", model.final_norms, (1,)),
        ("has_head", model.has_head, (True,)),
        ("head_bias", model.head_bias, (False,)),
        ("extra_params", model.extra_params, (0,)),
        ("hidden_dropout", model.hidden_dropout, (0,)),
        ("attention_dropout", model.attention_dropout, (0,)),
        ("trains", model.trains, ("full",)),
    ):
        if value not in runs:
            yield f"model.{field} = {value}, and the executor's Llama has {field} = {' or '.join(map(str, runs))}"
    if model.vocab_size == 0:
        yield "model.vocab_size = 0, and the executor trains on tokens"
    used = {run.kind for run in model.runs}
    for kind in model.kinds:
        if kind.name in used:
            yield from _kind_reasons(kind)


def _kind_reasons(kind: LayerKind) -> Iterator[str]:
    blocks = " + ".join(block.kind for block in kind.blocks)
    if blocks != "attention + mlp" or kind.parallel or kind.encoder or kind.mtp or kind.extra_params:
        shape = "parallel " * kind.parallel + "encoder " * kind.encoder + "mtp " * kind.mtp + blocks
        yield f"layer kind {kind.name!r} is {shape}, and the executor runs attention + mlp, one after the other"
        return
    attention, mlp = kind.blocks
    assert isinstance(attention, AttentionBlock)
    assert isinstance(mlp, MLPBlock)
    for name, value, runs in (
        ("attention.norms", attention.norms, 1),
        ("attention.causal", attention.causal, True),
        ("attention.sliding_window", attention.sliding_window, None),
        ("attention.cross", attention.cross, False),
        ("attention.out_bias", attention.out_bias, False),
        ("attention.qk_norm", attention.qk_norm, "none"),
        ("attention.rotary", attention.rotary, True),
        ("attention.output_gate", attention.output_gate, False),
        ("attention.sinks", attention.sinks, False),
        ("mlp.norms", mlp.norms, 1),
        ("mlp.gated", mlp.gated, True),
        ("mlp.bias", mlp.bias, False),
    ):
        if value != runs:
            yield f"layer kind {kind.name!r} has {name} = {value}, and the executor runs {name} = {runs}"


def _split_reasons(plan: Plan) -> Iterator[str]:
    tp, model = plan.layout.tp, plan.model
    if tp == 1:
        return
    if plan.layout.sequence_parallel and plan.workload.seq_len % tp:
        yield f"workload.seq_len = {plan.workload.seq_len} does not divide by tp = {tp}, as sequence parallelism needs"
    if model.vocab_size % tp:
        yield f"model.vocab_size = {model.vocab_size} does not divide by tp = {tp}"
    for kind in model.kinds:
        for block in kind.blocks:
            for name in ("num_heads", "num_key_value_heads", "intermediate_size"):
                if (size := getattr(block, name, 0)) % tp:
                    yield f"{name} = {size} of layer kind {kind.name!r} does not divide by tp = {tp}"


def _pipeline_reasons(plan: Plan) -> Iterator[str]:
    layout, pipeline = plan.layout, plan.pipeline
    stages = [layer.stage for layer in plan.layers]
    per_copy = pipeline.num_stages // pipeline.copies
    counts = tuple(stages.count(stage) for stage in range(per_copy)) * pipeline.copies
    if stages != sorted(stages) or counts != pipeline.layers_per_stage:
        yield f"layers put {counts} layers on the stages, pipeline.layers_per_stage {pipeline.layers_per_stage}"
    if len(pipeline.stage_to_rank) != pipeline.num_stages or set(pipeline.stage_to_rank) != set(range(layout.pp)):
        yield (
            f"pipeline.stage_to_rank = {list(pipeline.stage_to_rank)} must put {pipeline.num_stages} stages "
            f"on all of {layout.pp} ranks"
        )
    elif layout.pp > 1:
        schedule = plan.schedule()
        if unknown := sorted(kind.value for kind in schedule.kinds - set(PASSES)):
            yield f"pipeline.passes has {', '.join(unknown)}, and the executor runs {', '.join(PASSES)}"
        if schedule.kinds & VOCAB_KINDS:
            yield from _vocabulary_reasons(plan, schedule)
        yield from (f"pipeline.passes, {problem}" for problem in check_schedule(schedule))


def _vocabulary_reasons(plan: Plan, schedule: Schedule) -> Iterator[str]:
    layout, model = plan.layout, plan.model
    split = "with the vocabulary split over pipeline ranks the executor runs"
    if not {PassKind.VOCAB_IN_FORWARD, PassKind.VOCAB_FORWARD} <= schedule.kinds:
        yield f"pipeline.passes splits one end of the model, and {split} both VOCAB_IN_F and VOCAB_F"
    if layout.tp > 1:
        yield f"layout.tp = {layout.tp}, and {split} tp = 1"
    if layout.dp_shard > 1 and layout.zero_stage > 0:
        yield f"layout.zero_stage = {layout.zero_stage} over dp_shard = {layout.dp_shard}, and {split} zero_stage = 0"
    if model.tie_word_embeddings:
        yield f"model.tie_word_embeddings = True, and {split} an embedding and a head of their own"
    if schedule.copies > 1:
        yield f"pipeline.copies = {schedule.copies}, and {split} one copy of the model"
    if -(-model.vocab_size // layout.pp) * (layout.pp - 1) >= model.vocab_size:
        yield f"model.vocab_size = {model.vocab_size} leaves one of pp = {layout.pp} ranks without a row"
