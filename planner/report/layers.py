"""The layers, stage by stage, as runs of equal ones."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from costmodel.schema.plan import Plan, PlanLayer
from planner.report.console import ReportConsole, grid, heading, indented
from planner.report.units import percent, plural

SIGN = {"none": "·o", "selective": "sS", "full": "RQ"}
"""One character a layer: kept, partly recomputed, recomputed; the second where any of it is offloaded."""

WRAP = 40
"""Signs on a line of a strip."""


_PLACES = {"host": "on the host", "nvme": "on drives"}


def print_layers(plan: Plan, console: ReportConsole) -> None:
    """One line a stage: where it runs, its strip of layers, and the same in words."""
    heading(console, "Layers", "one sign each: · kept, s selective recompute, R full recompute; o, S, Q with offload")
    table = grid(">stage", ">rank", "", "")
    # Copies of the model hold the same.
    by_stage: dict[int, list[PlanLayer]] = {stage: [] for stage in range(len(plan.pipeline.layers_of_copy))}
    for layer in plan.layers:
        by_stage[layer.stage].append(layer)
    for stage, layers in by_stage.items():
        rank = plan.pipeline.stage_to_rank[stage]
        strip = "".join(SIGN[layer.recompute][layer.offload > 0] for layer in layers)
        rows = "\n".join(strip[start : start + WRAP] for start in range(0, len(strip), WRAP))
        words = in_words(layers) or ("the head alone" if stage else "the embedding alone")
        table.add_row(str(stage), str(rank), f"[cyan]{rows}[/cyan]", words)
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
    return ", ".join(runs)


def alone_words(plan: Plan) -> str:
    """``the embedding and the head on stages of their own``; empty where every stage holds a layer."""
    lengths = plan.pipeline.layers_per_stage
    alone = [end for end, length in (("the embedding", lengths[0]), ("the head", lengths[-1])) if length == 0]
    return f"{' and '.join(alone)} on {('a stage of its', 'stages of their')[len(alone) - 1]} own" if alone else ""


def activations_words(layers: Sequence[PlanLayer]) -> str:
    """``activations on the host: all of 66 layers, 56% of 14; in 8 bits: 3 layers``; empty where all stay whole on the
    device.
    """
    said = []
    for place, where in _PLACES.items():
        shares = [layer.offload for layer in layers if layer.offload > 0 and layer.offload_to == place]
        whole, partial = shares.count(1.0), sorted(share for share in shares if share < 1.0)
        named = [f"all of {plural(whole, 'layer')}"] if whole else []
        if partial:
            least, most = f"{partial[0]:.0%}", f"{partial[-1]:.0%}"
            some = least if least == most else f"{least} to {most}"
            named.append(f"{some} of {len(partial) if whole else plural(len(partial), 'layer')}")
        if named:
            said.append(f"{where}: {', '.join(named)}")
    narrow = sum(layer.saved_dtype != "as-computed" for layer in layers)
    if narrow:
        said.append(f"in 8 bits: {plural(narrow, 'layer')}")
    return f"activations {'; '.join(said)}" if said else ""
