"""A step's sequences as a histogram: how many there are of each length."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from costmodel.schema.errors import InvalidSpec

MOST_LENGTHS = 48
"""Distinct lengths that are told apart; of more, neighbours count as the longest of them."""

COLUMNS = ("length", "count")


@dataclass(frozen=True)
class Histogram:
    """``counts[j]`` sequences of ``lengths[j]`` tokens in one step; lengths ascend."""

    lengths: tuple[int, ...]
    counts: tuple[int, ...]

    @property
    def sequences(self) -> int:
        return sum(self.counts)

    @property
    def tokens(self) -> int:
        return sum(length * count for length, count in zip(self.lengths, self.counts, strict=True))

    @property
    def longest(self) -> int:
        return self.lengths[-1]

    def merged(self, most: int = MOST_LENGTHS) -> Histogram:
        """At most ``most`` lengths, each standing for those up to it: the range in equal ratios."""
        if len(self.lengths) <= most:
            return self
        edges = np.geomspace(self.lengths[0], self.longest, most)
        home = np.searchsorted(edges * (1.0 + 1e-9), self.lengths)
        counts: dict[int, int] = {}
        for bucket in np.unique(home).tolist():
            inside = np.flatnonzero(home == bucket)
            counts[self.lengths[inside[-1]]] = sum(self.counts[i] for i in inside)
        return Histogram(tuple(counts), tuple(counts.values()))


def read_histogram(path: Path, longest: int | None = None) -> Histogram:
    """A CSV file with the columns ``length`` and ``count``; lengths may stand in any order and more than once.

    ``longest``: the model's longest sequence. Raises InvalidSpec, with the line, for a file that cannot be read, a
    missing column, a cell that is no whole number from 1, and a longer sequence.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InvalidSpec(f"--lengths {path}: {error.strerror or 'cannot be read'}") from None
    except UnicodeDecodeError:
        raise InvalidSpec(f"--lengths {path}: not a text file") from None
    rows = csv.reader(io.StringIO(text))
    header = [name.strip().lower() for name in next(rows, [])]
    for name in COLUMNS:
        if name not in header:
            raise InvalidSpec(f"{path} line 1: the column {name} is missing", "the header line is: length,count")
    found: dict[int, int] = {}
    for cells in rows:
        if not any(cell.strip() for cell in cells):
            continue
        length, count = (_whole(path, rows.line_num, name, cells, header.index(name)) for name in COLUMNS)
        if longest is not None and length > longest:
            raise InvalidSpec(f"{path} line {rows.line_num}: length {length} is more than the model's {longest} tokens")
        found[length] = found.get(length, 0) + count
    if not found:
        raise InvalidSpec(f"{path} line {rows.line_num}: no sequences below the header", "give lines like 4096,128")
    ordered = sorted(found)
    return Histogram(tuple(ordered), tuple(found[length] for length in ordered))


def _whole(path: Path, line: int, name: str, cells: list[str], position: int) -> int:
    text = cells[position].strip() if position < len(cells) else ""
    if not text.isascii() or not text.isdecimal() or int(text) < 1:
        raise InvalidSpec(f"{path} line {line}: {name} {text!r} is no whole number from 1")
    return int(text)
