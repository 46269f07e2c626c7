"""``plan schedule``: build, check and simulate one pipeline schedule."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from costmodel.schema.errors import InvalidSpec

TIMES = "Times of all of a rank's layers for one micro-batch, in any unit"


def schedule(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="gpipe, 1f1b, interleaved-1f1b, breadth-first, hanayo, chimera, bitpipe (each also with +2bp, which "
            "puts weight gradients off), breadth-first+fsdp, zb-h1, zb-h2, zb-v, v-half, v-min, dualpipe, dualpipe-v, "
            "zeropp, 1f1b-vocab-1, 1f1b-vocab-2; auto; or FILE.csv, an order.",
            show_default=False,
        ),
    ],
    pp: Annotated[int | None, typer.Option(metavar="P", help="Pipeline ranks.", show_default=False)] = None,
    microbatches: Annotated[
        int | None, typer.Option(metavar="M", help="Micro-batches in a step.", show_default=False)
    ] = None,
    vpp: Annotated[
        int | None, typer.Option(metavar="V", help="Chunks a rank; default what the schedule needs.")
    ] = None,
    f: Annotated[float, typer.Option("--f", help="Forward.", rich_help_panel=TIMES)] = 1.0,
    b: Annotated[float, typer.Option("--b", help="Backward, input gradient.", rich_help_panel=TIMES)] = 1.0,
    w: Annotated[float, typer.Option("--w", help="Backward, weight gradient.", rich_help_panel=TIMES)] = 1.0,
    comm: Annotated[float, typer.Option("--comm", help="Delay between two ranks.", rich_help_panel=TIMES)] = 0.0,
    recompute: Annotated[float, typer.Option(help="Recomputation in the backward.", rich_help_panel=TIMES)] = 0.0,
    wire: Annotated[
        float, typer.Option(help="How long a message occupies a rank's link; messages queue.", rich_help_panel=TIMES)
    ] = 0.0,
    gather: Annotated[float, typer.Option(help="Gathering the parameters (UNSHARD).", rich_help_panel=TIMES)] = 0.0,
    reduce: Annotated[float, typer.Option(help="Reducing the gradients (REDUCE_GRAD).", rich_help_panel=TIMES)] = 0.0,
    vocab: Annotated[
        float, typer.Option(help="The output layer's forward, for 1f1b-vocab-1 and -2.", rich_help_panel=TIMES)
    ] = 0.0,
    frozen: Annotated[
        str,
        typer.Option(metavar="S,S,…", help="Pieces of a frozen model, run in the bubbles.", rich_help_panel=TIMES),
    ] = "",
    optimizer: Annotated[
        float | None, typer.Option(help="The update, once all ranks are done.", rich_help_panel=TIMES)
    ] = None,
    post_validation: Annotated[
        bool, typer.Option("--post-validation", help="Each rank updates when it is done itself.", rich_help_panel=TIMES)
    ] = False,
    memory_cap: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Activations alive on a rank, in multiples of 1f1b's peak min(P, M); auto only. Default no limit.",
            show_default=False,
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the order as PyTorch reads it.")] = None,
    trace: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the timeline as Perfetto reads it.")] = None,
) -> None:
    """Build one schedule, check it, simulate it and draw it.

    plan schedule zb-h1 --pp 4 --microbatches 8

    plan schedule order.csv

    auto finds an order for the times given, under a memory cap, and is never slower than a published one of one copy
    of the model:

    plan schedule auto --pp 8 --microbatches 32 --b 1.25 --w 0.75 --comm 0.1 --memory-cap 0.5
    """
    from json import dumps

    from costmodel.passes import csv_losses, to_csv
    from planner.cli.files import check_writable, write_file
    from planner.cli.order import check_heeded, check_runs, parse_pieces, take_order
    from planner.schedules import PassTimes
    from planner.schedules.bubble_filling import fill_bubbles
    from planner.schedules.report import rank_times, summarize
    from planner.simulator import StepEnd, simulate

    check_writable(csv)
    check_writable(trace)
    more: dict[str, Any] = {"recompute": recompute, "wire": wire, "gather": gather, "reduce": reduce, "vocab": vocab}
    times = {"f": f, "b": b, "w": w, "comm": comm, **more, "optimizer": optimizer or 0.0}
    for option, time in times.items():
        if not 0 <= time < float("inf"):
            raise InvalidSpec(f"--{option} {time:g}: must be a finite number from 0")
    if f + b + w <= 0:
        raise InvalidSpec("--f, --b and --w are all 0: nothing would run", "give one of them a time")
    if post_validation and optimizer is None:
        raise InvalidSpec("--post-validation says when the update runs, but there is none", "give --optimizer a time")
    sizes = (("--pp", pp), ("--microbatches", microbatches), ("--vpp", vpp))
    check_heeded(name, {"wire": wire, "gather": gather, "reduce": reduce, "vocab": vocab})
    # What is recomputed runs inside the backward, before its input gradient.
    built, found = take_order(name, sizes, PassTimes(f, b + recompute, w, comm), memory_cap)
    check_runs(built, gather, reduce, vocab)
    pieces = parse_pieces(frozen)
    if pieces:
        built = fill_bubbles(built, rank_times(built, f, b, w, comm, **more), pieces)
    order = None if csv is None else to_csv(built)
    simulation = simulate(built, rank_times(built, f, b, w, comm, **more, frozen=pieces))
    end = None if optimizer is None else StepEnd(optimizer, post_validation=post_validation)
    summary = summarize(built, [], simulation, end)
    if csv is not None and order is not None:
        write_file(csv, order)
        for loss in csv_losses(built).changed:
            print(f"{csv}: {loss}", file=sys.stderr)
    if trace is not None:
        write_file(trace, dumps(simulation.trace(end=end).to_chrome()) + "\n")
    if json:
        print(dumps({**summary, **(found.figures() if found else {})}))
        return
    from planner.report.console import make_console
    from planner.report.schedule import print_schedule

    console = make_console()
    if found:
        console.print(found.summary() + ("; all without the frozen pieces" if pieces else ""))
    print_schedule(simulation, summary, console, transfers=gather + reduce > 0)
