"""A layout in one line: as flags that ``plan predict`` takes back, and as a person says it."""

from __future__ import annotations

import shlex
from collections import Counter

from costmodel.schedules import SCHEDULES
from costmodel.schema.errors import InvalidSpec
from costmodel.schema.layout import AXES, EXPERT_AXES, Layout
from costmodel.schema.plan import Plan, PlanCluster
from costmodel.schema.workload import Workload
from planner.state_words import state_words

_GROUPS = ("shard_params", "shard_grads", "shard_optim", "reshard_after_forward")
_DEGREES = ("tp", "pp", "vpp", "cp_ring", "cp_ulysses", "ep", "etp", "dp_shard", "dp_replicate")


def recompute_counts(plan: Plan) -> Counter[str]:
    """How many layers follow each recomputation policy."""
    return Counter(layer.recompute for layer in plan.layers)


def layout_flags(plan: Plan) -> str:
    """``--tp 8 --pp 4 … --schedule 1f1b --recompute none``: every degree that is not its default.

    Where layers differ in their recomputation, the policy of most of them: the file alone says it all.
    """
    layout = plan.layout
    flags = [f"--{name.replace('_', '-')} {getattr(layout, name)}" for name in _DEGREES if getattr(layout, name) > 1]
    if layout.dp_shard == 1:
        flags.append("--dp-shard 1")
    flags.append(f"--micro-batch-size {layout.micro_batch_size}")
    flags.append(f"--zero-stage {layout.zero_stage}")
    flags.append(f"--schedule {plan.pipeline.schedule}")
    flags.append(f"--recompute {recompute_counts(plan).most_common(1)[0][0]}")
    if not layout.sequence_parallel:
        flags.append("--no-sequence-parallel")
    flags += [f"--{name.replace('_', '-')} {getattr(layout, name)}" for name in _GROUPS if getattr(layout, name)]
    if layout.optimizer_format != "fp32":
        flags.append(f"--optimizer-format {layout.optimizer_format}")
    if layout.optimizer_offload:
        flags.append(f"--optimizer-offload {layout.optimizer_offload}")
    if layout.first_group:
        flags.append(f"--first-group {layout.first_group}")
    if layout.order != AXES:
        flags.append(f"--order {','.join(layout.order)}")
    if layout.expert_order != EXPERT_AXES:
        flags.append(f"--expert-order {','.join(layout.expert_order)}")
    return " ".join(flags)


def predict_command(plan: Plan) -> str:
    """The whole ``plan predict`` command that prices this layout again on the same question; for an order of passes
    that was found, which no command names, a sentence.
    """
    if plan.pipeline.schedule not in SCHEDULES:
        return f"The order of passes was found ({plan.pipeline.schedule}): it is in the plan's file alone."
    workload = plan.workload
    question = [
        f"--model {shlex.quote(_model_argument(plan))}",
        *_cluster_arguments(plan),
        f"--seq-len {workload.seq_len}",
        f"--global-batch-size {workload.global_batch_size}",
        f"--precision {workload.precision}",
        f"--optimizer {workload.optimizer}",
        f"--grad-reduce-dtype {workload.grad_reduce_dtype}",
        f"--runtime {shlex.quote(plan.runtime)}",
        *_routing_arguments(workload),
    ]
    compiled = plan.runtime_spec.compiled_kernels
    if compiled is not None and plan.runtime_spec.kernels == compiled:
        question.append("--compile")
    return f"plan predict {' '.join(question)} {layout_flags(plan)}"


def devices_words(cluster: PlanCluster) -> str:
    """``64 × h100``, ``32 × h100 + 64 × a100-80g``."""
    return " + ".join(f"{number} × {device}" for number, device in cluster.counts)


def layout_words(layout: Layout) -> str:
    """``tp 8 · pp 4 · dp_shard 2, ZeRO-3``: the degrees above 1."""
    degrees = [f"{name} {getattr(layout, name)}" for name in _DEGREES if getattr(layout, name) > 1]
    state = ("no state sharded", "ZeRO-1", "ZeRO-2", "ZeRO-3")[layout.zero_stage]
    vocabulary = [f"vocabulary over {layout.pp} ranks"] if layout.vocab_parallel else []
    return ", ".join([" · ".join(degrees) or "one device", state, *state_words(layout), *vocabulary])


def _model_argument(plan: Plan) -> str:
    """The catalog's name; a model from a file of the user's own is named as such."""
    from costmodel.catalog.models import model_names

    return plan.model.name if plan.model.name in model_names() else "CONFIG.json"


def _routing_arguments(workload: Workload) -> list[str]:
    """How tokens fall on experts, where that is not the default."""
    if workload.moe_capacity_factor is not None:
        return [f"--moe-capacity-factor {workload.moe_capacity_factor:g}"]
    usual = Workload.model_fields["moe_imbalance"].default
    return [] if workload.moe_imbalance == usual else [f"--moe-imbalance {workload.moe_imbalance:g}"]


def _cluster_arguments(plan: Plan) -> list[str]:
    """``--gpu h100 --gpus 64``, with the node's size where it is not the default; a file of the user's own is named."""
    from costmodel.catalog.clusters import default_cluster

    device, number = plan.cluster.device_spec, plan.cluster.num_devices
    question = [f"--gpu {device.name}", f"--gpus {number}"]
    per_node = plan.cluster.groups[0].devices_per_node
    for arguments in ((), (per_node,)):
        try:
            usual = default_cluster(device, number, *arguments)
        except InvalidSpec:
            continue
        if (usual.name, usual.groups) == (plan.cluster.spec.name, plan.cluster.groups):
            return [*question, *(f"--gpus-per-node {size}" for size in arguments)]
    return ["--cluster CLUSTER.toml"] if plan.calibration is None else question
