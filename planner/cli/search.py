"""``plan``: search for the best layout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from costmodel.schema.errors import InvalidSpec
from planner.cli import options


def search(
    context: typer.Context,
    model: options.Model = None,
    gpus: options.GpuCounts = None,
    gpu: options.Gpu = None,
    cluster: options.Cluster = None,
    gpus_per_node: options.GpusPerNode = None,
    seq_len: options.SeqLen = None,
    lengths: options.Lengths = None,
    global_batch_size: options.GlobalBatchSize = None,
    precision: options.Precision = None,
    optimizer: options.Optimizer = None,
    grad_reduce_dtype: options.GradReduceDtype = None,
    moe_imbalance: options.MoeImbalance = None,
    moe_capacity_factor: options.MoeCapacityFactor = None,
    compile: options.Compile = False,
    runtime: options.RuntimeName = None,
    calibration: options.Calibration = None,
    fix: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE,…",
            help="What the layout must have: tp=8,recompute.0-3=full (plan constraints lists the keys).",
            rich_help_panel=options.LIMIT,
        ),
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=A..B,…",
            help="Between what it must stay: tp=..8,pp=2..,micro_batch_size=1/2.",
            rich_help_panel=options.LIMIT,
        ),
    ] = None,
    forbid: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME,…",
            help="What it must not use: pp, full-recompute, zb-h1, zero_stage=1.",
            rich_help_panel=options.LIMIT,
        ),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME,…", help="What it may use though it changes the numbers.", rich_help_panel=options.LIMIT
        ),
    ] = None,
    schedule: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME,…", help="The only schedules; auto: find an order too.", rich_help_panel=options.LIMIT
        ),
    ] = None,
    free_memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Hold this much of each GPU free: 4GiB.", rich_help_panel=options.LIMIT),
    ] = None,
    constraints: Annotated[
        Path | None,
        typer.Option(metavar="FILE.toml", help="All of these from a file.", rich_help_panel=options.LIMIT),
    ] = None,
    fit_probability: options.FitProbability = 0.95,
    robust: Annotated[
        bool,
        typer.Option(
            "--robust", help="The best plan under the figures' uncertainty, not by mean.", rich_help_panel=options.LIMIT
        ),
    ] = False,
    gap: Annotated[
        float,
        typer.Option(metavar="F", help="Stop when the proof is this close.", rich_help_panel=options.LIMIT),
    ] = 0.01,
    time_limit: Annotated[
        float,
        typer.Option(metavar="SECONDS", help="Stop after this long.", rich_help_panel=options.LIMIT),
    ] = 60.0,
    top: Annotated[
        int,
        typer.Option(metavar="K", help="How many runners-up to show.", rich_help_panel=options.SHOW),
    ] = 5,
    pareto: options.Pareto = False,
    tokens: options.Tokens = None,
    deadline: options.Deadline = None,
    price: options.Price = None,
    critical_batch: options.CriticalBatch = None,
    mtbf: options.Mtbf = None,
    checkpoint_bandwidth: options.CheckpointBandwidth = None,
    checkpoint_interval: options.CheckpointInterval = None,
    restart_time: options.RestartTime = None,
    async_checkpoints: options.AsyncCheckpoints = False,
    explain: options.Explain = False,
    out: options.Out = None,
    plot: options.Plot = None,
    json: options.Json = False,
) -> None:
    """How should this model be laid out on these GPUs? Without a command: search.

    plan --model llama-70b --gpus 64
    """
    if context.invoked_subcommand is not None:
        _refuse_stray_options(context)
        return
    if model is None:
        if not _given_options(context):
            print(context.get_help())
            return
        raise InvalidSpec("--model is missing: what to plan for", "like --model llama-70b; plan models lists them")
    from planner.cli.decide import decide
    from planner.cli.files import check_writable
    from planner.decisions.question import build_question
    from planner.request import Request, build_request
    from planner.sizes import Sizes, sizes_of

    check_writable(out)
    question = build_question(
        tokens=tokens,
        deadline=deadline,
        price=price,
        critical_batch=critical_batch,
        mtbf=mtbf,
        checkpoint_bandwidth=checkpoint_bandwidth,
        checkpoint_interval=checkpoint_interval,
        restart_time=restart_time,
        async_checkpoints=async_checkpoints,
    )
    histogram = None
    if lengths is not None:
        from planner.cli.lengths import read_lengths

        histogram = read_lengths(lengths, model, seq_len, global_batch_size)
        seq_len, global_batch_size = histogram.longest, histogram.sequences

    def ask(devices: int | None, batch: int | None = None) -> Request:
        return build_request(
            model,
            devices,
            gpu=gpu,
            cluster=cluster,
            gpus_per_node=gpus_per_node,
            seq_len=seq_len,
            global_batch_size=global_batch_size if batch is None else batch,
            precision=precision,
            optimizer=optimizer,
            grad_reduce_dtype=grad_reduce_dtype,
            moe_imbalance=moe_imbalance,
            moe_capacity_factor=moe_capacity_factor,
            compile=compile,
            runtime=runtime,
            calibration=calibration,
            fix=fix or (),
            limit=limit or (),
            forbid=forbid or (),
            allow=allow or (),
            schedules=schedule or (),
            free_memory=free_memory,
            constraints=constraints,
            fit_probability=fit_probability,
            gap=gap,
            time_limit_s=time_limit,
            top=top,
            robust=robust,
        )

    if histogram is not None:
        from planner.cli.lengths import answer_lengths

        unused = {"--robust": robust, "--pareto": pareto, "--explain": explain}
        answer_lengths(ask, gpus, question, histogram, unused, out=out, plot=plot, json=json)
        return

    def sizes() -> Sizes:
        return sizes_of(gpu, cluster, gpus_per_node)

    decide(ask, sizes, gpus, question, pareto=pareto, explain=explain, out=out, plot=plot, json=json)


def _refuse_stray_options(context: typer.Context) -> None:
    """``plan --model x predict`` would drop the option in silence: the command's own options go after its name."""
    for option in _given_options(context):
        command = context.invoked_subcommand
        raise InvalidSpec(f"{option} stands before the command {command}", f"plan {command} {option} …")


def _given_options(context: typer.Context) -> list[str]:
    """The options whose values are not their defaults."""
    return [
        parameter.opts[0]
        for parameter in context.command.params
        if context.params.get(parameter.name or "") not in (None, parameter.default, ())
    ]
