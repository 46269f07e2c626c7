"""What the catalogs hold - models, GPUs, runtimes - and ``plan constraints``: what can be asked of a layout."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated

import typer

Search = Annotated[str, typer.Argument(metavar="[TEXT]", help="Only names that contain this.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]


def models(text: Search = "", json: Json = False) -> None:
    """List the models that --model knows."""
    from costmodel.catalog.models import load_model, model_names
    from costmodel.parameters import count_model

    rows = []
    for name in _matching(model_names(), text):
        model = load_model(name)
        params = count_model(model)
        rows.append(
            {
                "name": name,
                "params": params.total,
                "active_params": params.active,
                "layers": model.num_layers,
                "hidden_size": model.hidden_size,
                "max_position_embeddings": model.max_position_embeddings,
            }
        )
    _print(rows, ("name", "params", "active_params", "layers", "hidden_size", "max_position_embeddings"), json)


def gpus(text: Search = "", json: Json = False) -> None:
    """List the GPUs that --gpu knows."""
    from costmodel.catalog.devices import device_names, load_device

    rows = []
    for name in _matching(device_names(), text):
        device = load_device(name)
        peaks = device.peak_flops_per_s
        rows.append(
            {
                "name": name,
                "vendor": device.vendor,
                "memory_bytes": device.memory_bytes,
                "memory_bytes_per_s": device.memory_bytes_per_s,
                "peak_flops_per_s": peaks.get("bf16", peaks.get("fp16", peaks.get("fp32", 0.0))),
                "cluster": device.default_cluster,
            }
        )
    _print(rows, ("name", "vendor", "memory_bytes", "memory_bytes_per_s", "peak_flops_per_s", "cluster"), json)


def runtimes(text: Search = "", json: Json = False) -> None:
    """List the training frameworks that --runtime knows."""
    from costmodel.catalog.runtimes import load_runtime, runtime_names

    rows: list[dict[str, object]] = []
    for name in _matching(runtime_names(), text):
        runtime = load_runtime(name)
        rows.append(
            {
                "name": name,
                "version": runtime.version,
                "zero_stages": list(runtime.state.zero_stages),
                "schedules": list(runtime.schedules),
                "recompute": list(runtime.recompute),
            }
        )
    _print(rows, ("name", "version", "zero_stages", "schedules", "recompute"), json)


def constraints(text: Search = "", json: Json = False) -> None:
    """List what --fix, --limit, --forbid and --allow know (docs/constraints.md)."""
    from planner.constraints.listing import list_allowed, list_forbidden, list_keys

    rows: list[dict[str, object]] = []
    for option, listed in (
        ("--fix, --limit", list_keys()),
        ("--forbid", list_forbidden()),
        ("--allow", list_allowed()),
    ):
        for name, *value, what in (list(row.values()) for row in listed):
            rows.append({"option": option, "name": name, "value": "".join(value), "what": what})
    shown = set(_matching((str(row["name"]) for row in rows), text))
    _print([row for row in rows if row["name"] in shown], ("option", "name", "value", "what"), json)


def _matching(names: Iterable[str], text: str) -> list[str]:
    from costmodel.catalog.names import canonical

    return [name for name in names if canonical(text) in canonical(name)]


def _print(rows: list[dict[str, object]], columns: Sequence[str], json: bool) -> None:
    if json:
        from json import dumps

        print(dumps(rows, indent=1))
        return
    from planner.report.catalog import print_catalog
    from planner.report.console import make_console

    print_catalog(rows, columns, make_console())
