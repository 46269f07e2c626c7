"""The published runs as they ship: what each measured, and what the model under the shipped fit says of it.

``data/runs.csv`` is written by ``benchmarks/accuracy.py --rows``, from a table of published runs; its first line says
under which fit. It lets the dashboard show every run without pricing thousands anew.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from functools import cache
from importlib import resources
from pathlib import Path

from costmodel.schema.fit import Fit
from planner.validation.csv_table import convert_cells, field_kinds
from planner.validation.result import PricedRow
from planner.validation.row import MeasuredRow

RUN = (
    "id", "source", "model", "gpu", "gpus", "framework", "precision", "seq_len", "tp", "pp", "vpp", "cp", "ep", "dp",
    "micro_batch", "global_batch", "step_time_s", "mem_gib_peak", "mem_kind", "oom",
)  # fmt: skip
"""What a line keeps of a run."""

PRICE = ("step_time_s", "spread", "allocated_gib", "reserved_gib", "device_gib", "fits_probability")
"""What it keeps of its price, each in a column of the same name after ``predicted_``."""

NAME = "runs.csv"


def write_runs(results: Iterable[PricedRow], fit: Fit) -> str:
    """The priced rows as the file's text, five digits a figure."""
    stream = io.StringIO()
    stream.write(f"{stamp(fit)}\n")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow((*RUN, *(f"predicted_{name}" for name in PRICE)))
    for result in results:
        if result.priced:
            cells = [getattr(result.row, name) for name in RUN] + [getattr(result, name) for name in PRICE]
            writer.writerow([_cell(value) for value in cells])
    return stream.getvalue()


def read_runs(text: str) -> list[PricedRow]:
    """What ``write_runs`` wrote."""
    kinds = {name: kind for name, kind in field_kinds(MeasuredRow).items() if name in RUN}
    found = []
    for number, cells in enumerate(csv.DictReader(io.StringIO(text.split("\n", 1)[1])), start=1):
        row = MeasuredRow(number, **convert_cells(Path(NAME), number, cells, kinds))  # type: ignore[arg-type]
        price = {name: float(cells[f"predicted_{name}"]) for name in PRICE if cells[f"predicted_{name}"]}
        found.append(PricedRow(row, **price))  # type: ignore[arg-type]
    return found


def stamp(fit: Fit) -> str:
    """The file's first line: which fit the predictions are of."""
    behind = ", ".join(f"{table.rows:,} rows of {table.name} {table.sha256[:12]}" for table in fit.tables)
    return f"# priced under the fit of {fit.date} to {behind}"


@cache
def shipped_runs() -> tuple[PricedRow, ...]:
    """Every published run that could be priced, in the table's order."""
    return tuple(read_runs(_text()))


def shipped_stamp() -> str:
    """The first line of the file that ships."""
    return _text().split("\n", 1)[0]


def _text() -> str:
    return resources.files("planner.validation").joinpath(f"data/{NAME}").read_text(encoding="utf-8")


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    return f"{value:.5g}" if isinstance(value, float) else str(value)
