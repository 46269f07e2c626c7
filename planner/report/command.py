"""The command that makes a plan again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from itertools import groupby

from costmodel.even_split import even_split
from costmodel.schedules import SCHEDULES
from costmodel.schema.errors import InvalidSpec
from costmodel.schema.layout import AXES, EXPERT_AXES
from costmodel.schema.plan import Plan, PlanLayer
from costmodel.schema.workload import Workload
from planner.report.line import DEGREES, recompute_counts

_GROUPS = ("shard_params", "shard_grads", "shard_optim", "reshard_after_forward")


def plan_command(plan: Plan) -> str:
    """``plan predict …`` where all layers are alike and stages even; else ``plan … --fix …`` with what each layer does.
    For an order of passes that was found, and for policies that no key names, a sentence: the file alone has them.
    """
    if plan.pipeline.schedule not in SCHEDULES:
        return f"The order of passes was found ({plan.pipeline.schedule}): it is in the plan's file alone."
    if _layers_alike(plan) and _stages_even(plan):
        return f"plan predict {_question(plan)} {layout_flags(plan)}"
    if any(layer.offload_to != "host" or layer.saved_dtype != "as-computed" for layer in plan.layers):
        return "What each layer keeps, in how many bits and where, is in the plan's file alone (--out FILE)."
    return f"plan {_question(plan)} {pins(plan)}"


def pins(plan: Plan) -> str:
    """``--fix tp=8,pp=4,…,recompute.0-65=selective,activation_offload.0-65=1``: the layout and every layer."""
    layout, wanted = plan.layout, plan.constraints
    fixed = [f"{name}={getattr(layout, name)}" for name in DEGREES if getattr(layout, name) > 1]
    fixed += [f"{name}={getattr(layout, name)}" for name in ("micro_batch_size", "zero_stage")]
    fixed.append(f"schedule={plan.pipeline.schedule}")
    fixed += [f"{name}={getattr(layout, name)}" for name in (*_GROUPS, "first_group") if getattr(layout, name)]
    if layout.optimizer_format != "fp32":
        fixed.append(f"optimizer_format={layout.optimizer_format}")
    if layout.optimizer_offload:
        fixed.append(f"optimizer_offload={layout.optimizer_offload!r}")
    if layout.tp > 1:
        fixed.append(f"sequence_parallel={str(layout.sequence_parallel).lower()}")
    if plan.model.frozen_parts:
        fixed.append(f"frozen_fill={str(layout.frozen_fill).lower()}")
    if layout.order != AXES:
        fixed.append("order=dp-outermost")
    if not _stages_even(plan):
        fixed.append(f"layers_per_stage={'/'.join(map(str, plan.pipeline.layers_of_copy))}")
    fixed += _runs(plan.layers)
    options = [f"--fix {','.join(fixed)}", *(f"--allow {name}" for name in wanted.allow)]
    if wanted.free_bytes:
        options.append(f"--free-memory {wanted.free_bytes / 2**30:g}GiB")
    usual = type(wanted).model_fields["fit_probability"].default
    if wanted.fit_probability != usual:
        options.append(f"--fit-probability {wanted.fit_probability:g}")
    return " ".join(options)


def _layers_alike(plan: Plan) -> bool:
    kept = all(layer.offload == 0 and layer.saved_dtype == "as-computed" for layer in plan.layers)
    return kept and len(recompute_counts(plan)) == 1


def _stages_even(plan: Plan) -> bool:
    lengths = plan.pipeline.layers_of_copy
    return lengths == tuple(even_split(len(plan.layers), len(lengths)))


def _runs(layers: tuple[PlanLayer, ...]) -> Iterator[str]:
    """``recompute.0-65=selective``, ``activation_offload.66-79=hidden``; a share of a layer is the one that hides."""
    said: dict[str, list[str]] = {
        "recompute": [layer.recompute for layer in layers],
        "activation_offload": ["hidden" if 0 < layer.offload < 1 else f"{layer.offload:g}" for layer in layers],
    }
    for key, values in said.items():
        if len(set(values)) == 1:
            yield f"{key}={values[0]}"
            continue
        start = 0
        for value, run in groupby(values):
            last = start + sum(1 for _ in run) - 1
            yield f"{key}.{start}{f'-{last}' if last > start else ''}={value}"
            start = last + 1


def layout_flags(plan: Plan) -> str:
    """``--tp 8 --pp 4 … --schedule 1f1b --recompute none``: every degree that is not its default.

    Where layers differ in their recomputation, the policy of most of them: the file alone says it all.
    """
    layout = plan.layout
    flags = [f"--{name.replace('_', '-')} {getattr(layout, name)}" for name in DEGREES if getattr(layout, name) > 1]
    if layout.dp_shard == 1:
        flags.append("--dp-shard 1")
    flags.append(f"--micro-batch-size {layout.micro_batch_size}")
    flags.append(f"--zero-stage {layout.zero_stage}")
    flags.append(f"--schedule {plan.pipeline.schedule}")
    flags.append(f"--recompute {recompute_counts(plan).most_common(1)[0][0]}")
    if not layout.sequence_parallel:
        flags.append("--no-sequence-parallel")
    if layout.frozen_fill:
        flags.append("--frozen-fill")
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


def _question(plan: Plan) -> str:
    """Model, devices, workload and runtime, as options."""
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
    return " ".join(question)


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
    return ["--cluster CLUSTER.toml", f"--gpus {number}"] if plan.calibration is None else question
