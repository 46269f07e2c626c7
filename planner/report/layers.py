"""The layers, stage by stage, as runs of equal ones."""

from __future__ import annotations

from itertools import groupby

from costmodel.schema.plan import Plan, PlanLayer
from planner.report.console import ReportConsole, grid, heading, indented
from planner.report.units import percent

SIGN = {"none": "·o", "selective": "sS", "full": "RQ"}
"""One character a layer: kept, partly recomputed, recomputed; the second where any of it is offloaded."""

WRAP = 40
"""Signs on a line of a strip."""


def print_layers(plan: Plan, console: ReportConsole) -> None:
    """One line a stage: where it runs, its strip of layers, and the same in words."""
    heading(console, "Layers", "one sign each: · kept, s selective recompute, R full recompute; o, S, Q with offload")
    table = grid(">stage", ">rank", "", "")
    by_stage: dict[int, list[PlanLayer]] = {stage: [] for stage in range(plan.pipeline.num_stages)}
    for layer in plan.layers:
        by_stage[layer.stage].append(layer)
    for stage, layers in by_stage.items():
        rank = plan.pipeline.stage_to_rank[stage]
        strip = "".join(SIGN[layer.recompute][layer.offload > 0] for layer in layers)
        rows = "\n".join(strip[start : start + WRAP] for start in range(0, len(strip), WRAP))
        table.add_row(str(stage), str(rank), f"[cyan]{rows}[/cyan]", in_words(layers))
    console.print(indented(table))


def in_words(layers: list[PlanLayer]) -> str:
    """``18 dense, 2 dense full``, ``4 dense int8 (40.0% offloaded to nvme)`` for a stage's layers in their order."""
    runs = []
    for alike, run in groupby(layers, lambda layer: layer.model_copy(update={"index": 0, "stage": 0})):
        policy = "" if alike.recompute == "none" else f" {alike.recompute}"
        policy += "" if alike.saved_dtype == "as-computed" else f" {alike.saved_dtype}"
        to = "" if alike.offload_to == "host" else f" to {alike.offload_to}"
        waits = f" ({percent(alike.offload)} offloaded{to})" if alike.offload else ""
        runs.append(f"{sum(1 for _ in run)} {alike.kind}{policy}{waits}")
    return ", ".join(runs) or "no layers"
