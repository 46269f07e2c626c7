"""A simulated schedule in the terminal: one row a rank, time from left to right."""

from __future__ import annotations

from collections.abc import Iterable
from textwrap import fill

import numpy as np

from costmodel.schema.schedule import Pass, PassKind
from planner.simulator.columns import passes_of
from planner.simulator.simulation import Simulation

_LOOKS = {
    PassKind.FORWARD: ("F", "blue", "forward"),
    PassKind.BACKWARD: ("B", "green", "backward"),
    PassKind.INPUT_GRAD: ("I", "cyan", "input gradient"),
    PassKind.WEIGHT_GRAD: ("W", "magenta", "weight gradient"),
    PassKind.OVERLAP: ("+", "bright_green", "both side by side"),
    PassKind.VOCAB_IN_FORWARD: ("E", "yellow", "embedding"),
    PassKind.VOCAB_IN_BACKWARD: ("D", "bright_yellow", "its gradient"),
    PassKind.VOCAB_FORWARD: ("S", "red", "output layer"),
    PassKind.VOCAB_BACKWARD: ("T", "bright_red", "its gradients"),
    PassKind.VOCAB_WEIGHT_GRAD: ("V", "bright_magenta", "its weight gradient"),
    PassKind.FROZEN_FORWARD: ("Z", "white", "frozen forward"),
    PassKind.UNSHARD: ("U", "yellow", "gather"),
    PassKind.REDUCE_GRAD: ("R", "red", "reduce"),
}
"""Kind -> letter, colour, words of the legend."""

_TRANSFERS = (PassKind.UNSHARD, PassKind.REDUCE_GRAD)
_OF_STAGES = tuple(_LOOKS)[:5] + _TRANSFERS
_IDLE = "·"

_Block = tuple[Pass, int, int]


def draw(simulation: Simulation, width: int = 100, markup: bool = False, transfers: bool = False) -> str:
    """Rows of at most ``width`` characters, and a legend; with ``markup``, rich's colour tags around each pass.

    A pass is as wide as its share of the makespan, rounded to columns. It shows its letter and micro-batch where they
    fit (``F12──``), else its letter; a pass narrower than half a column may not show. ``·`` is idle. Later stages of
    the same rank are drawn dim; a second copy of the model has small letters. ``transfers``: a further row under each
    rank that gathers or reduces.
    """
    schedule = simulation.schedule
    label_width = len(f"rank {schedule.num_ranks - 1} ")
    columns = max(width - label_width, 1)
    column_s = simulation.makespan_s / columns or 1.0
    begin_s = simulation.start_s.min()
    left = np.rint((simulation.start_s - begin_s) / column_s).astype(int).tolist()
    right = np.rint((simulation.finish_s - begin_s) / column_s).astype(int).tolist()
    later = _later_chunks(simulation)

    blocks = iter(zip(passes_of(schedule), left, right, strict=True))
    rows = []
    for rank, order in enumerate(schedule.orders):
        mine: list[_Block] = [next(blocks) for _ in order]

        def row(label: str, chosen: Iterable[_Block]) -> str:
            text, at = label, 0
            for step, start, end in chosen:
                text += _IDLE * (start - at)
                if end > start:
                    text += _block(step, end - start, schedule.stages_per_copy, step.stage in later, markup)
                at = end
            return text + _IDLE * (columns - at)

        beside = [block for block in mine if block[0].kind in _TRANSFERS]
        computes = (block for block in mine if block[0].kind in _LOOKS and block[0].kind not in _TRANSFERS)
        rows.append(row(f"rank {rank} ".rjust(label_width), computes))
        if transfers and beside:
            rows.append(row(" " * label_width, beside))
    indent = " " * label_width
    legend = fill(_legend(simulation, transfers), max(width, 60), initial_indent=indent, subsequent_indent=indent)
    return "\n".join([*rows, legend])


def _later_chunks(simulation: Simulation) -> set[int]:
    """The stages that are not the first of their copy on their rank."""
    schedule, seen, later = simulation.schedule, set(), set()
    for stage, rank in enumerate(schedule.stage_to_rank):
        place = stage // schedule.stages_per_copy, rank
        if place in seen:
            later.add(stage)
        seen.add(place)
    return later


def _block(step: Pass, width: int, first_copy: int, dim: bool, markup: bool) -> str:
    """``first_copy``: how many stages it has."""
    letter, colour, _ = _LOOKS[step.kind]
    labels = []
    for part in step.work:
        label = f"{_LOOKS[part.kind][0]}{part.stage if part.kind in _TRANSFERS else part.microbatch}"
        labels.append(label.lower() if part.kind in _OF_STAGES and part.stage >= first_copy else label)
    whole = "+".join(labels)
    short = letter if step.parts else whole[0]
    text = (whole if len(whole) < width else short).ljust(width, "─")
    return f"[{'dim ' if dim and step.kind in _OF_STAGES else ''}{colour}]{text}[/]" if markup else text


def _legend(simulation: Simulation, transfers: bool) -> str:
    """The kinds that take time, and nothing else."""
    schedule = simulation.schedule
    takes_time = (simulation.finish_s > simulation.start_s).tolist()
    timed = (step for step, takes in zip(passes_of(schedule), takes_time, strict=True) if takes)
    kinds = {part.kind for step in timed for part in (step, *step.parts)}
    shown = [
        f"{letter} {words}"
        for kind, (letter, _, words) in _LOOKS.items()
        if kind in kinds and (transfers or kind not in _TRANSFERS)
    ]
    if schedule.copies > 1:
        shown.append("small letters the second copy" if schedule.copies == 2 else "small letters the other copies")
    return f"{', '.join(shown)}; bubble {simulation.bubble_fraction:.1%}, {_IDLE} idle"
