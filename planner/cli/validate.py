"""``plan validate``: the model against measured runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def validate(
    table: Annotated[Path, typer.Argument(metavar="TABLE.csv", help="Measured runs, one a line.", show_default=False)],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write every row's prediction as CSV.")] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw predicted against measured: .png, .svg or .pdf (needs matplotlib)."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Price a table of measured runs and say how far off the model is.

    The table needs the columns gpu, gpus, seq_len, global_batch, and model or a shape (layers, hidden, heads,
    ffn_hidden). It may have framework, precision, tp, pp, vpp, cp, ep, dp, sharding, micro_batch, schedule, recompute,
    and what was measured: step_time_s, mem_gib_peak with mem_kind, oom. What a row leaves out its framework fills in.

    plan validate runs.csv --out predicted.csv --plot predicted.svg
    """
    from json import dumps

    from planner.cli.files import check_writable, write_file
    from planner.validation.output import to_csv, to_json
    from planner.validation.pricing import price_rows
    from planner.validation.summary import summarise
    from planner.validation.table import read_table

    check_writable(out)
    check_writable(plot)
    if plot is not None:
        from planner.report.scatter import check_plot, draw_scatter

        check_plot(plot)
    results = price_rows(read_table(table))
    summary = summarise(results)
    if out is not None:
        write_file(out, to_csv(results))
    if plot is not None:
        write_file(plot, draw_scatter(results, plot))
    if json:
        print(dumps(to_json(summary, results), indent=1))
        return
    from planner.report.console import make_console
    from planner.report.validation import print_validation

    console = make_console()
    print_validation(summary, results, console)
    for path in (out, plot):
        if path is not None:
            console.print(f"\nwritten to {path}", style="dim", highlight=False)
