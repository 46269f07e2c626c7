"""Amounts and numbers of GPUs as people type them."""

from __future__ import annotations

from typing import Any

import pytest

from costmodel.schema.errors import InvalidSpec
from planner.decisions.counts import parse_counts
from planner.decisions.units import amount, parse_bytes_per_s, parse_duration_s, parse_positive, parse_tokens


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("15T", 15e12), ("1.5e13", 1.5e13), ("300B", 3e11), ("300 b tokens", 3e11), ("4Mi", 4 * 2**20), ("1_000", 1000)],
)
def test_tokens(text: str, tokens: float) -> None:
    assert parse_tokens("--tokens", text) == pytest.approx(tokens, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30d", 2592000),
        ("12h", 43200),
        ("6w", 3628800),
        ("90 min", 5400),
        ("2 Days", 172800),
        ("50,000h", 1.8e8),
        ("5s", 5),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration_s("--deadline", text) == seconds


@pytest.mark.parametrize(("text", "rate"), [("2TB/s", 2e12), ("40 gb/s", 4e10), ("1GiB/s", 2**30), ("1e9 B/s", 1e9)])
def test_bandwidths(text: str, rate: float) -> None:
    assert parse_bytes_per_s("--checkpoint-bandwidth", text) == rate


def test_prices() -> None:
    assert parse_positive("--price", "2.5", "") == parse_positive("--price", "$2.5", "") == 2.5


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_tokens, "many"), (parse_tokens, "15X"), (parse_tokens, "-3T"), (parse_tokens, "0"),
        (parse_tokens, "nan"),
        (parse_tokens, "1e999"), (parse_duration_s, "30"), (parse_duration_s, "30 fortnights"), (parse_duration_s, ""),
        (parse_bytes_per_s, "2TB"), (parse_bytes_per_s, "2 Tbit/s"),
    ],
)  # fmt: skip
def test_what_is_no_amount(parse: Any, text: str) -> None:
    with pytest.raises(InvalidSpec, match=r"--option"):
        parse("--option", text)


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("64", (64,)),
        ("24,8,16,8", (8, 16, 24)),
        ("8..64", (8, 16, 32, 64)),
        ("8..100", (8, 16, 32, 64, 100)),
        ("8..1024:x4", (8, 32, 128, 512, 1024)),
        ("8..32:+8", (8, 16, 24, 32)),
        ("1, 8 .. 16", (1, 8, 16)),
        ("8..8", (8,)),
    ],
)
def test_numbers_of_gpus(text: str, counts: tuple[int, ...]) -> None:
    assert parse_counts(text) == counts


@pytest.mark.parametrize(
    "text", ["0", "-8", "8..4", "8..", "8..64:x1", "8..64:+0", "0..8", "8,,16", "two", "1..100000:+1", "8.5"]
)
def test_what_is_no_number_of_gpus(text: str) -> None:
    with pytest.raises(InvalidSpec, match="--gpus"):
        parse_counts(text)


@pytest.mark.parametrize(("value", "words"), [(1.5e13, "15T"), (3.2e9, "3.2B"), (1.5e6, "1.5M"), (4096.0, "4,096")])
def test_amounts_in_words(value: float, words: str) -> None:
    assert amount(value) == words
