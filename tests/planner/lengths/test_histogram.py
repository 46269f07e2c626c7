"""The CSV of lengths: what it may say, and one sentence with the line for everything else."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodel.schema.errors import InvalidSpec
from planner.lengths import Histogram, read_histogram


def write(folder: Path, text: str) -> Path:
    path = folder / "hist.csv"
    path.write_text(text)
    return path


def test_any_order_twice_and_other_columns(tmp_path: Path) -> None:
    path = write(tmp_path, "source,Count,length\nweb,3,4096\n\ncode,2,512\nbooks,4,4096\n")
    histogram = read_histogram(path, longest=8192)
    assert histogram == Histogram((512, 4096), (2, 7))
    assert (histogram.sequences, histogram.tokens, histogram.longest) == (9, 2 * 512 + 7 * 4096, 4096)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "line 1: the column length is missing"),
        ("length\n512\n", "line 1: the column count is missing"),
        ("length,count\n", "line 1: no sequences below the header"),
        ("length,count\n512,4\n1k,2\n", "line 3: length '1k' is no whole number from 1"),
        ("length,count\n512,0\n", "line 2: count '0' is no whole number from 1"),
        ("length,count\n512\n", "line 2: count '' is no whole number from 1"),
        ("length,count\n512,2.5\n", "line 2: count '2.5' is no whole number from 1"),
        ("length,count\n512,-1\n", "line 2: count '-1' is no whole number from 1"),
        ("length,count\n512,1\n9000,1\n", "line 3: length 9000 is more than the model's 8192 tokens"),
    ],
)
def test_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        read_histogram(write(tmp_path, text), longest=8192)
    assert says in refused.value.message
    assert "\n" not in refused.value.message


def test_no_such_file_and_no_text(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match="No such file"):
        read_histogram(tmp_path / "none.csv")
    path = tmp_path / "image.csv"
    path.write_bytes(b"\xff\xfe\x00\x9f")
    with pytest.raises(InvalidSpec, match="not a text file"):
        read_histogram(path)


@given(st.dictionaries(st.integers(1, 10**6), st.integers(1, 100), min_size=1, max_size=120), st.integers(2, 40))
@settings(deadline=None, max_examples=60)
def test_merging_keeps_every_sequence_and_shortens_none(found: dict[int, int], most: int) -> None:
    lengths = tuple(sorted(found))
    whole = Histogram(lengths, tuple(found[length] for length in lengths))
    merged = whole.merged(most)
    assert len(merged.lengths) <= max(most, 1)
    assert merged.sequences == whole.sequences
    assert merged.longest == whole.longest
    assert merged.tokens >= whole.tokens
    assert set(merged.lengths) <= set(lengths)
    assert tuple(sorted(merged.lengths)) == merged.lengths
    if len(lengths) <= most:
        assert merged == whole
