"""Curves, deadlines and prices from the command line: what is printed, written and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

TINY = ("--model", "tiny", "--gpu", "h100", "--calibration", "none", "--fix", "pp=1")


def test_a_curve_is_a_table_and_a_choice(plan: Any, tmp_path: Path) -> None:
    out = tmp_path / "plan.json"
    ending = plan(*TINY, "--gpus", "1,2", "--price", "2.5", "--out", out)
    assert ending.status == 0
    assert "strong scaling" in ending.out
    assert "1 GPU  the cheapest" in ending.out
    assert json.loads(out.read_text())["cluster"]["num_devices"] == 1
    assert "A run of 1.00T tokens" in plan("show", out).out


def test_the_curve_as_json(plan: Any) -> None:
    document = json.loads(plan(*TINY, "--gpus", "1..2", "--tokens", "5B", "--json").out)
    assert [point["num_devices"] for point in document["points"]] == [1, 2]
    assert document["chosen"] == 2
    first = document["points"][0]
    assert first["training"]["tokens"] == 5e9
    assert first["training"]["time_s"]["mean"] > first["training"]["steps"] * first["step_time_s"]["mean"]


def test_a_run_is_told_with_its_plan(plan: Any) -> None:
    asked = (
        "--gpus",
        2,
        "--tokens",
        "1B",
        "--mtbf",
        "100h",
        "--restart-time",
        "5min",
        "--checkpoint-bandwidth",
        "1GB/s",
    )
    ending = plan(*TINY, *asked, "--price", "$2")
    assert "A run of 1.00B tokens" in ending.out
    assert "A failure every 2.08 days" in ending.out
    assert "at 2 per GPU-hour" in ending.out
    assert "(--mtbf)" not in ending.out
    training = json.loads(plan(*TINY, *asked, "--checkpoint-interval", "1h", "--json").out)["training"]
    assert training["goodput"]["interval_s"] == 3600
    assert training["cost"] is None
    assert json.loads(plan(*TINY, "--gpus", 2, "--json").out)["training"] is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--gpus", "8..4"), ("--gpus 8..4", "8..1024")),
        (("--gpus", "8,12"), ("12", "8 or 16")),
        (("--gpus", "8", "--tokens", "lots"), ("--tokens lots", "15T")),
        (("--gpus", "8", "--deadline", "30d"), ("--deadline 30d", "--tokens")),
        (("--gpus", "8", "--critical-batch", "2M"), ("--critical-batch 2M", "--tokens")),
        (("--gpus", "8", "--tokens", "1T", "--deadline", "30"), ("--deadline 30", "unit")),
        (("--gpus", "8", "--price", "cheap"), ("--price cheap",)),
        (("--gpus", "8", "--mtbf", "0h"), ("--mtbf 0h",)),
        (("--gpus", "8", "--checkpoint-bandwidth", "fast"), ("--checkpoint-bandwidth fast", "2TB/s")),
    ],
)
def test_what_cannot_be_asked(plan: Any, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    ending = plan("--model", "tiny", *arguments)
    assert ending.status == 2
    assert ending.err.startswith("error: ")
    assert all(word in ending.err for word in words), ending.err
    assert ending.out == ""


@pytest.mark.parametrize("gpus", ["2", "1,2"])
def test_a_deadline_that_is_missed(plan: Any, gpus: str) -> None:
    ending = plan(*TINY, "--gpus", gpus, "--tokens", "1T", "--deadline", "1h")
    assert ending.status == 1
    assert ending.err.startswith("error: ")
    assert "days" in ending.err
    assert "hint: " in ending.err
