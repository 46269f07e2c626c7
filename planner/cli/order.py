"""The order of passes that ``plan schedule`` is about: named, found for given times, or read from a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from costmodel.schema.errors import InvalidSpec
from costmodel.schema.schedule import PassKind, Schedule

if TYPE_CHECKING:
    from planner.schedules import PassTimes
    from planner.synthesis import Synthesis

MOST_CELLS = 500_000
"""Forward passes of the largest schedule that is built: some ten seconds and a few hundred MB."""

MOST_CELLS_SEARCHED = 65_536
"""Of the largest one that ``auto`` searches for: half a minute."""

Sizes = tuple[tuple[str, "int | None"], ...]
"""--pp, --microbatches and --vpp, each with what was given for it."""


def take_order(
    name: str, sizes: Sizes, times: PassTimes, memory_cap: float | None
) -> tuple[Schedule, Synthesis | None]:
    """The order, checked; for ``auto`` also how it was found. Raises InvalidSpec, UnknownName, Infeasible."""
    from costmodel.passes import check_schedule

    if name.strip().lower() == "auto":
        found = _search(sizes, times, memory_cap)
        return found.schedule, found
    if memory_cap is not None:
        raise InvalidSpec(f"--memory-cap {memory_cap:g} bounds the schedule 'auto' alone, not {name!r}", "leave it out")
    built = _read(name, sizes) if name.lower().endswith(".csv") else _build(name, sizes, times)
    if problems := check_schedule(built):
        others = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise InvalidSpec(f"{name} cannot run: {problems[0]}{others}")
    return built, None


def parse_pieces(text: str) -> list[float]:
    """``0.5,0.25`` -> [0.5, 0.25]. Raises InvalidSpec."""
    try:
        pieces = [float(piece) for piece in text.split(",")] if text else []
    except ValueError:
        raise InvalidSpec(f"--frozen {text}: must be times with commas between them, like 0.5,0.25") from None
    if not all(0 <= piece < float("inf") for piece in pieces):
        raise InvalidSpec(f"--frozen {text}: each must be a finite number from 0")
    return pieces


def check_heeded(name: str, given: Mapping[str, float]) -> None:
    """Of the times ``given`` by option, those that ``auto`` cannot look at must be 0. Raises InvalidSpec."""
    if name.strip().lower() != "auto":
        return
    for option, time in given.items():
        if time:
            raise InvalidSpec(
                f"--{option} {time:g}: auto finds an order for --f, --b, --w, --comm and --recompute alone",
                "add it to --comm" if option == "wire" else "leave it out, or name a schedule",
            )


def check_runs(schedule: Schedule, gather: float, reduce: float, vocab: float) -> None:
    """A time other than 0 must be that of some pass of the schedule. Raises InvalidSpec."""
    for option, time, kind, hint in (
        ("gather", gather, PassKind.UNSHARD, "zeropp and breadth-first+fsdp have them"),
        ("reduce", reduce, PassKind.REDUCE_GRAD, "zeropp and breadth-first+fsdp have them"),
        ("vocab", vocab, PassKind.VOCAB_FORWARD, "1f1b-vocab-1 and 1f1b-vocab-2 have them"),
    ):
        if time and kind not in schedule.kinds:
            raise InvalidSpec(f"--{option} {time:g}: {schedule.name} has no passes {kind.value}", hint)


def _read(path: str, sizes: Sizes) -> Schedule:
    """The order in a CSV file, which says itself how large it is."""
    from costmodel.passes import from_csv
    from planner.cli.files import read_text

    if not Path(path).exists():
        raise InvalidSpec(f"there is no file {path}", "write one with: plan schedule NAME … --csv FILE")
    for option, value in sizes:
        if value is not None:
            raise InvalidSpec(f"{option} {value} goes with a schedule's name; {path} says itself how large it is")
    return from_csv(read_text(path), Path(path).stem, path)


def _search(sizes: Sizes, times: PassTimes, memory_cap: float | None) -> Synthesis:
    """The best order for the times, under the cap."""
    from planner.synthesis.uniform import synthesize_uniform

    (_, pp), (_, microbatches), (_, vpp) = sizes
    _check_sizes("auto", sizes)
    assert pp is not None
    assert microbatches is not None
    _check_cells(pp, microbatches, vpp or 2, MOST_CELLS_SEARCHED)
    return synthesize_uniform(pp, microbatches, times, vpp, memory_cap)


def _build(name: str, sizes: Sizes, times: PassTimes) -> Schedule:
    """A schedule by name, in the order that suits the times where it heeds them."""
    from planner.schedules import SCHEDULES, build_schedule, canonical_name

    kind = SCHEDULES[canonical_name(name)]
    _check_sizes(kind.name, sizes)
    # Only --vpp can be missing here.
    pp, microbatches, chunks = (value or kind.vpp for _, value in sizes)
    _check_cells(pp, microbatches, chunks, MOST_CELLS)
    return build_schedule(kind.name, pp, microbatches, chunks, times)


def _check_sizes(name: str, sizes: Sizes) -> None:
    for option, value in sizes:
        if value is None and option != "--vpp":
            raise InvalidSpec(f"{option} is missing: a schedule named {name} comes in any size")
        if value is not None and value < 1:
            raise InvalidSpec(f"{option} {value}: must be a whole number from 1")


def _check_cells(pp: int, microbatches: int, chunks: int, most: int) -> None:
    from planner.report.units import plural

    if pp * chunks * microbatches > most:
        raise InvalidSpec(
            f"--pp {pp} with {plural(chunks, 'chunk')} a rank and --microbatches {microbatches} is too much to build "
            f"here: their product may be {most:,} at most",
            f"take --microbatches {max(1, min(microbatches, 4 * pp))}: a schedule repeats itself after a few per rank"
            if 4 * pp * pp * chunks <= most
            else f"take fewer {'chunks' if chunks > pp else 'ranks'}",
        )
