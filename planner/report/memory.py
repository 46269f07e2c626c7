"""Memory of each pipeline rank at its worst moment: the parts, the three figures, and the odds that it fits."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from costmodel.schema.plan import Plan
from costmodel.schema.prediction import StageMemory
from planner.report.console import ReportConsole, grid, heading, indented
from planner.report.terms import label
from planner.report.units import gibibytes, mebibytes, percent, size

MOST_RANKS = 8
MOST_PARTS = 6

COLUMNS = {
    "params": "params", "grads": "grads", "optimizer": "optim", "gathered": "gathered", "activations": "activ",
    "pending": "for W", "working": "work",
}  # fmt: skip
"""Parts of memory in a word that a column holds; ``label`` has the long ones."""


def print_memory(plan: Plan, console: ReportConsole, explain: bool = False) -> None:
    """One line a pipeline rank (the first, the fullest and the last of many unless ``explain``, and where the device
    changes).

    ``allocated`` is tensors, ``reserved`` what the allocator holds (this runs out), ``device`` what the driver shows.
    In GiB, or in MiB where all tensors together are less than one.
    """
    memory = plan.prediction.memory
    unit, write = ("GiB", gibibytes) if memory.allocated_bytes >= 2**30 else ("MiB", mebibytes)
    capacities = {stage.device: size(stage.capacity_bytes) for stage in memory.per_stage if stage.capacity_bytes}
    unlike = bool(capacities)
    there = ", ".join(f"{there} on {device}" for device, there in capacities.items())
    there = f"{there or size(memory.capacity_bytes)} are there"
    odds = f"{there}, P(fits) {percent(memory.fits_probability)}"
    heading(console, "Memory", f"{unit} per GPU at the worst moment; {odds}")
    shown = memory.per_stage
    if not explain and len(shown) > MOST_RANKS:
        fullest = max(shown, key=lambda stage: stage.device_bytes / (stage.capacity_bytes or memory.capacity_bytes))
        turns = [stage for before, stage in pairwise(shown) if before.device != stage.device]
        shown = tuple(stage for stage in shown if stage in (shown[0], fullest, *turns, shown[-1]))
    parts = _largest_parts(shown)
    others = _others(shown, parts)
    headers = [COLUMNS.get(part, label(part)) for part in parts] + (["other"] if any(others) else [])
    table = grid(
        ">rank",
        *(["on"] if unlike else []),
        *(f">{header}" for header in headers),
        ">allocated",
        ">reserved",
        ">device",
    )
    for stage, other in zip(shown, others, strict=True):
        share = stage.device_bytes / (stage.capacity_bytes or memory.capacity_bytes)
        colour = "red" if share > 1 else "yellow" if share > 0.95 else "green"
        table.add_row(
            str(stage.rank),
            *([str(stage.device)] if unlike else []),
            *(write(stage.parts.get(part, 0.0)) for part in parts),
            *([write(other)] if any(others) else []),
            write(stage.allocated_bytes),
            write(stage.reserved_bytes),
            f"[{colour}]{write(stage.device_bytes)}[/{colour}]",
        )
    console.print(indented(table))
    left_out = len(memory.per_stage) - len(shown)
    if left_out:
        console.print(f"  [dim]{left_out} ranks between them are left out (--explain)[/dim]")
    if memory.host_bytes > 0:
        console.print(f"  {size(memory.host_bytes)} of host memory per GPU")
    if memory.nvme_bytes > 0:
        console.print(f"  {size(memory.nvme_bytes)} of the node's drives per GPU")


def _largest_parts(stages: Sequence[StageMemory]) -> list[str]:
    """The parts that are largest on any rank, in the order in which the prediction gives them."""
    peaks: dict[str, float] = {}
    for stage in stages:
        for part, held_bytes in stage.parts.items():
            peaks[part] = max(peaks.get(part, 0.0), held_bytes)
    largest = sorted((part for part in peaks if peaks[part] > 0), key=lambda part: -peaks[part])[:MOST_PARTS]
    return [part for part in peaks if part in largest]


def _others(stages: Sequence[StageMemory], parts: Sequence[str]) -> list[float]:
    """Bytes on each rank that the named parts leave; 0 where that is rounding alone."""
    rest = [stage.allocated_bytes - sum(stage.parts.get(part, 0.0) for part in parts) for stage in stages]
    return [left if left > 1e-6 * stage.allocated_bytes else 0.0 for left, stage in zip(rest, stages, strict=True)]
