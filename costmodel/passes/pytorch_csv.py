"""A schedule as the CSV file that PyTorch's pipelining runtime and torchtitan load: a row per rank, a cell per pass.

Facts of the "compute_only" form, as PyTorch 2.13 reads it:

- kinds are F, B, I, W and pairs, each stage on one rank and every micro-batch through every stage; any placement of
  stages will do;
- sends, receives, gathers and reductions are placed by PyTorch, which refuses a file that states them;
- the losses of the last stage are looked up in the order of its forwards, as if that were the order of micro-batches;
- torchtitan cuts models into looped stages only, or a V of two a rank where its ``pipeline_parallel_schedule`` names
  ZBVZeroBubble or DualPipeV.

Source: torch.distributed.pipelining.schedules (``_load_csv``, ``_validate_schedule``); torchtitan's
distributed/pipeline_parallel.py.
"""

from __future__ import annotations

import csv
import io
import re
from typing import NamedTuple

from costmodel.schema.errors import Infeasible, InvalidSpec
from costmodel.schema.schedule import NO_MICROBATCH, STAGE_KINDS, VOCAB_KINDS, Pass, PassKind, Schedule, parse_pass

_COMMUNICATION = re.compile(r"\d+(SEND|RECV)_[FB]\d+")


class Losses(NamedTuple):
    """What a CSV file does to a schedule, one sentence each. ``refused``: it would not load, or compute something else;
    ``changed``: it loads and runs, but not quite as stated.
    """

    refused: tuple[str, ...]
    changed: tuple[str, ...]


def csv_losses(schedule: Schedule) -> Losses:
    """What PyTorch's CSV form cannot express of ``schedule``; both empty when nothing, ``changed`` when refused."""
    refused, changed = [], []
    if schedule.copies > 1:
        refused.append(
            f"its {schedule.copies} copies of the model each take some of the micro-batches, and PyTorch runs every "
            "micro-batch through every stage"
        )
    if kinds := sorted(schedule.kinds & VOCAB_KINDS):
        refused.append(f"PyTorch has no passes {', '.join(kinds)}: its vocabulary is not split over pipeline ranks")
    if PassKind.FROZEN_FORWARD in schedule.kinds:
        refused.append("PyTorch has no pass FROZEN_F: it runs frozen models outside the pipeline")
    if crossed := _crossed_losses(schedule):
        refused.append(crossed)
    if refused:
        return Losses(tuple(refused), ())
    if kinds := sorted(schedule.kinds & STAGE_KINDS):
        changed.append(f"{', '.join(kinds)} are left out: PyTorch gathers and reduces by a rule of its own")
    if placement := _placement(schedule):
        changed.append(placement)
    return Losses((), tuple(changed))


def _crossed_losses(schedule: Schedule) -> str | None:
    last = schedule.num_stages - 1
    order = [
        part.microbatch
        for step in schedule.orders[schedule.stage_to_rank[last]]
        for part in step.work
        if part.kind is PassKind.FORWARD and part.stage == last
    ]
    if schedule.copies > 1 or order == sorted(order):
        return None
    early = next(one for one, other in zip(order, sorted(order), strict=True) if one != other)
    return (
        f"{last}F{early} comes out of the order of micro-batches, and PyTorch takes the last stage's losses to be in "
        "that order"
    )


def _placement(schedule: Schedule) -> str | None:
    num_ranks, homes = schedule.num_ranks, schedule.stage_to_rank
    if all(rank == stage % num_ranks for stage, rank in enumerate(homes)):
        return None
    there_and_back = (*range(num_ranks), *reversed(range(num_ranks)))
    if homes == there_and_back:
        return "torchtitan builds its V of stages only with pipeline_parallel_schedule = ZBVZeroBubble or DualPipeV"
    return f"torchtitan cannot build stages on ranks {list(homes)}; PyTorch's runtime itself can"


def to_csv(schedule: Schedule) -> str:
    """The file's text: one row per rank, one cell per pass, without what PyTorch places itself.

    Raises Infeasible, with the reasons, when the file would not load or compute something else.
    """
    refused = csv_losses(schedule).refused
    if refused:
        raise Infeasible(f"schedule {schedule.name!r} cannot be written as PyTorch's CSV", refused)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for order in schedule.orders:
        writer.writerow([str(step) for step in order if step.kind not in STAGE_KINDS])
    return text.getvalue()


def from_csv(text: str, name: str, source: str = "the file") -> Schedule:
    """The schedule of such a file, called ``name``; it may state gathers and reductions, and have empty cells where
    a rank idles. Sends and receives, which PyTorch's "compute_comms" form has too, follow from the passes and are
    dropped. Stages live where their passes stand; stages that share no micro-batch are copies of the model.

    Raises InvalidSpec, naming line and cell of ``source``, for anything but a pass and for a stage on two ranks; for
    numbers of stages or micro-batches left out, and for a file without passes. Whether the order can run is left to
    ``check_schedule``.
    """
    orders: list[tuple[Pass, ...]] = []
    homes: dict[int, int] = {}
    # Spreadsheets put a byte order mark in front.
    for rank, row in enumerate(_rows(text.removeprefix("\ufeff"), source)):
        order = []
        for column, cell in enumerate(row):
            written = cell.strip()
            if not written or _COMMUNICATION.fullmatch(written):
                continue
            place = f"{source}, line {rank + 1}, cell {column + 1}"
            step = _pass_of(written, place)
            for part in step.work:
                if part.kind not in _HOMELESS and homes.setdefault(part.stage, rank) != rank:
                    raise InvalidSpec(f"{place}: {part} stands on rank {rank}, its stage lives on {homes[part.stage]}")
            order.append(step)
        orders.append(tuple(order))
    if not homes:
        raise InvalidSpec(f"{source} has no passes; it needs one row per rank, with cells like 2F0")
    for what, numbers in (("stage", set(homes)), ("micro-batch", _microbatches(orders))):
        gap = next((number for number in range(len(numbers)) if number not in numbers), None)
        if gap is not None:
            raise InvalidSpec(f"{source} has {what} {max(numbers)} but no {what} {gap}: they count up from 0")
    stage_to_rank = tuple(homes[stage] for stage in range(len(homes)))
    num_microbatches = len(_microbatches(orders))
    return Schedule(name, num_microbatches, stage_to_rank, tuple(orders), _copies(orders, len(homes)))


_HOMELESS = VOCAB_KINDS | {PassKind.FROZEN_FORWARD}
"""Kinds whose ``stage`` says nothing of where a stage lives."""


def _rows(text: str, source: str) -> list[list[str]]:
    try:
        return list(csv.reader(io.StringIO(text)))
    except csv.Error as error:
        raise InvalidSpec(f"{source} is not a CSV file: {error}") from None


def _pass_of(written: str, place: str) -> Pass:
    # Longer than any pass, and int() refuses numbers of some thousand digits.
    if len(written) <= 80:
        try:
            return parse_pass(written)
        except InvalidSpec:
            pass
    raise InvalidSpec(f"{place}: {written[:40]!r} is not a pass, like 2F0, 1UNSHARD or (0F1;1B0)OVERLAP_F_B")


def _microbatches(orders: list[tuple[Pass, ...]]) -> set[int]:
    return {part.microbatch for order in orders for step in order for part in step.work} - {NO_MICROBATCH}


def _copies(orders: list[tuple[Pass, ...]], num_stages: int) -> int:
    """Into how many equal runs the stages fall that no micro-batch goes beyond."""
    crossed: dict[int, set[int]] = {}
    for order in orders:
        for step in order:
            for part in step.work:
                if part.kind is PassKind.FORWARD:
                    crossed.setdefault(part.microbatch, set()).add(part.stage)
    for copies in range(num_stages, 1, -1):
        per_copy = num_stages // copies
        if num_stages % copies == 0 and all(
            len({stage // per_copy for stage in stages}) == 1 for stages in crossed.values()
        ):
            return copies
    return 1
