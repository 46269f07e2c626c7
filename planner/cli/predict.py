"""``plan predict``: the same answer for one whole layout, without a search."""

from __future__ import annotations

from typing import Annotated

import typer

from planner.cli import options

LAYOUT = "The layout"


def predict(
    model: options.Model = None,
    gpus: options.Gpus = None,
    gpu: options.Gpu = None,
    cluster: options.Cluster = None,
    gpus_per_node: options.GpusPerNode = None,
    seq_len: options.SeqLen = None,
    global_batch_size: options.GlobalBatchSize = None,
    precision: options.Precision = None,
    optimizer: options.Optimizer = None,
    grad_reduce_dtype: options.GradReduceDtype = None,
    moe_imbalance: options.MoeImbalance = None,
    moe_capacity_factor: options.MoeCapacityFactor = None,
    compile: options.Compile = False,
    runtime: options.RuntimeName = None,
    calibration: options.Calibration = None,
    layout: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="JSON with a layout, or a plan file; - is standard input.", rich_help_panel=LAYOUT
        ),
    ] = None,
    tp: Annotated[int | None, typer.Option(help="Tensor parallel.", rich_help_panel=LAYOUT)] = None,
    pp: Annotated[int | None, typer.Option(help="Pipeline parallel.", rich_help_panel=LAYOUT)] = None,
    vpp: Annotated[
        int | None,
        typer.Option(help="Model chunks a pipeline rank; default what --schedule needs.", rich_help_panel=LAYOUT),
    ] = None,
    cp_ring: Annotated[int | None, typer.Option(help="Context parallel, ring.", rich_help_panel=LAYOUT)] = None,
    cp_ulysses: Annotated[
        int | None, typer.Option(help="Context parallel, all-to-all.", rich_help_panel=LAYOUT)
    ] = None,
    ep: Annotated[int | None, typer.Option(help="Expert parallel.", rich_help_panel=LAYOUT)] = None,
    etp: Annotated[int | None, typer.Option(help="Tensor parallel inside experts.", rich_help_panel=LAYOUT)] = None,
    dp_shard: Annotated[
        int | None, typer.Option(help="Data parallel, sharded; default what is left.", rich_help_panel=LAYOUT)
    ] = None,
    dp_replicate: Annotated[int | None, typer.Option(help="Data parallel, replicated.", rich_help_panel=LAYOUT)] = None,
    micro_batch_size: Annotated[
        int | None, typer.Option(help="Sequences in a micro-batch.", rich_help_panel=LAYOUT)
    ] = None,
    zero_stage: Annotated[
        int | None,
        typer.Option(help="0 nothing, 1 optimizer, 2 and gradients, 3 and parameters.", rich_help_panel=LAYOUT),
    ] = None,
    schedule: Annotated[str | None, typer.Option(help="Pipeline schedule.", rich_help_panel=LAYOUT)] = None,
    recompute: Annotated[str | None, typer.Option(help="none, selective or full.", rich_help_panel=LAYOUT)] = None,
    frozen_fill: Annotated[
        bool | None,
        typer.Option("--frozen-fill/--no-frozen-fill", help="Frozen parts in the bubbles.", rich_help_panel=LAYOUT),
    ] = None,
    sequence_parallel: Annotated[
        bool | None,
        typer.Option(
            "--sequence-parallel/--no-sequence-parallel", help="Beside tensor parallel.", rich_help_panel=LAYOUT
        ),
    ] = None,
    shard_params: Annotated[
        int | None, typer.Option(metavar="RANKS", help="Over which parameters are split.", rich_help_panel=LAYOUT)
    ] = None,
    shard_grads: Annotated[
        int | None, typer.Option(metavar="RANKS", help="Over which gradients are split.", rich_help_panel=LAYOUT)
    ] = None,
    shard_optim: Annotated[
        int | None, typer.Option(metavar="RANKS", help="Over which optimizer state is split.", rich_help_panel=LAYOUT)
    ] = None,
    reshard_after_forward: Annotated[
        int | None,
        typer.Option(metavar="RANKS", help="Over which backward gathers parameters.", rich_help_panel=LAYOUT),
    ] = None,
    optimizer_format: Annotated[
        str | None, typer.Option(help="Of its moments: fp32, int8, fp8, low-rank or bf16.", rich_help_panel=LAYOUT)
    ] = None,
    optimizer_offload: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="Of the optimizer, on the host: 0 to 1.", rich_help_panel=LAYOUT),
    ] = None,
    order: Annotated[
        str | None, typer.Option(metavar="AXIS,…", help="Mesh axes, innermost first.", rich_help_panel=LAYOUT)
    ] = None,
    expert_order: Annotated[
        str | None,
        typer.Option(metavar="AXIS,…", help="The experts' mesh axes, innermost first.", rich_help_panel=LAYOUT),
    ] = None,
    first_group: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Over several kinds of node, which group holds the first stages, from 0.",
            rich_help_panel=LAYOUT,
        ),
    ] = None,
    explain: options.Explain = False,
    out: options.Out = None,
    json: options.Json = False,
) -> None:
    """Price exactly one layout: the degrees given, no search.

    plan predict --model llama-70b --tp 8 --pp 4 --dp-shard 2
    """
    from costmodel.schema.errors import InvalidSpec
    from planner.cli.answer import deliver
    from planner.cli.files import check_writable
    from planner.cli.layout import GivenLayout
    from planner.request import build_request

    if model is None:
        raise InvalidSpec("--model is missing: what to predict", "like --model llama-70b; plan models lists them")
    check_writable(out)
    given = GivenLayout.read(layout) if layout is not None else GivenLayout()
    given = given.override(
        tp=tp,
        pp=pp,
        vpp=vpp,
        cp_ring=cp_ring,
        cp_ulysses=cp_ulysses,
        ep=ep,
        etp=etp,
        dp_shard=dp_shard,
        dp_replicate=dp_replicate,
        micro_batch_size=micro_batch_size,
        zero_stage=zero_stage,
        sequence_parallel=sequence_parallel,
        frozen_fill=frozen_fill,
        shard_params=shard_params,
        shard_grads=shard_grads,
        shard_optim=shard_optim,
        reshard_after_forward=reshard_after_forward,
        optimizer_format=optimizer_format,
        optimizer_offload=optimizer_offload,
        first_group=first_group,
        order=tuple(order.split(",")) if order else None,
        expert_order=tuple(expert_order.split(",")) if expert_order else None,
        schedule=schedule,
        recompute=recompute,
    )
    if gpus is None and cluster is None:
        gpus = given.num_ranks
    request = build_request(
        model,
        gpus,
        gpu=gpu,
        cluster=cluster,
        gpus_per_node=gpus_per_node,
        seq_len=seq_len,
        global_batch_size=global_batch_size,
        precision=precision,
        optimizer=optimizer,
        grad_reduce_dtype=grad_reduce_dtype,
        moe_imbalance=moe_imbalance,
        moe_capacity_factor=moe_capacity_factor,
        compile=compile,
        runtime=runtime,
        calibration=calibration,
    )
    whole = given.complete(request.cluster.num_devices, request.workload.global_batch_size, request.runtime)
    from planner.predict import predict_plan

    deliver(predict_plan(request, whole, given.schedule, given.recompute), explain=explain, out=out, json=json)
