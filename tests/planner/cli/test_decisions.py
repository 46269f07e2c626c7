"""Curves, deadlines and prices from the command line: what is printed, written and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[3] / "examples"
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


def test_a_deadline_asks_how_many(plan: Any) -> None:
    document = json.loads(plan(*TINY, "--tokens", "100B", "--deadline", "3.1d", "--mtbf", "1e9h", "--json").out)
    (point,) = document["points"]
    assert document["chosen"] == point["num_devices"] == 2
    assert point["training"]["time_s"]["mean"] <= 3.1 * 86400
    assert point["training"]["on_time_probability"] >= 0.5
    assert "1 by a search" in document["said"] or "1 by the floor" in document["said"]


def test_a_critical_batch_size_chooses_the_batch(plan: Any, tmp_path: Path) -> None:
    out = tmp_path / "plan.json"
    few = ("--fix", "tp=1,cp_ring=1,cp_ulysses=1,zero_stage=0", "--global-batch-size", 8)
    ending = plan(*TINY, *few, "--tokens", "1B", "--critical-batch", "2000", "--gpus", "1,2", "--top", 0, "--out", out)
    assert ending.status == 0
    assert "as the critical batch size asks" in ending.out
    assert "ends the run soonest" in ending.out
    document = json.loads(out.read_text())
    assert document["notes"][0].startswith("A batch of ")
    assert document["training"]["critical_batch_tokens"] == 2000


def test_the_front_of_time_cost_and_memory(plan: Any) -> None:
    few = ("--fix", "tp=4,pp=1,zero_stage=1,micro_batch_size=1", "--calibration", "none", "--gpus", 8, "--pareto")
    ending = plan("--model", "llama-8b", *few)
    assert ending.status == 0
    assert "8 in 50%" in ending.out
    document = json.loads(plan(*TINY, "--gpus", 1, "--pareto", "--json").out)
    assert [point["memory_share"] for point in document["points"]] == [1.0]


def test_a_plot(plan: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "curve.svg"
    ending = plan(*TINY, "--gpus", "1,2", "--tokens", "1T", "--deadline", "2y", "--plot", out)
    assert ending.status == 0
    assert out.read_text().lstrip().startswith("<?xml")
    assert f"drawn in {out}" in ending.out


def test_an_interrupted_curve_is_printed_and_ends_as_interrupted(plan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import planner.search

    find_plan = planner.search.find_plan

    def find(request: Any, on_progress: Any = None) -> Any:
        if request.cluster.num_devices == 4:
            raise KeyboardInterrupt
        return find_plan(request, on_progress)

    monkeypatch.setattr(planner.search, "find_plan", find)
    ending = plan(*TINY, "--gpus", "1..8")
    assert ending.status == 130
    assert "Interrupted" in ending.out
    assert "2 GPUs  the fastest" in ending.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--gpus", "8..4"), ("--gpus 8..4", "8..1024")),
        (("--gpus", "8,12"), ("12", "8 or 16")),
        (("--gpus", "8", "--tokens", "lots"), ("--tokens lots", "15T")),
        (("--gpus", "8", "--deadline", "30d"), ("--deadline 30d", "--tokens")),
        (("--gpus", "8", "--critical-batch", "2M"), ("--critical-batch 2M", "--tokens")),
        (("--gpus", "8", "--tokens", "1T", "--deadline", "30"), ("--deadline 30", "unit")),
        (("--gpus", "8", "--plot", "curve.png"), ("--plot curve.png", "8..1024")),
        (("--gpus", "8,16", "--plot", "curve.txt"), ("--plot curve.txt", ".svg")),
        (("--tokens", "1T"), ("--gpus is missing",)),
        (("--pareto",), ("--pareto", "needs --gpus")),
        (("--tokens", "1T", "--deadline", "1d", "--gpu", "h101"), ("'h101'",)),
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


def test_of_unlike_groups_the_same_part_of_each_is_taken(plan: Any) -> None:
    few = ("--fix", "tp=1,pp=3,recompute=none,zero_stage=1,micro_batch_size=1", "--schedule", "1f1b", "--top", 0)
    asked = ("--model", "llama-3.2-1b", "--cluster", EXAMPLES / "cluster.toml", *few)
    document = json.loads(plan(*asked, "--tokens", "100B", "--gpus", "24,48", "--json").out)
    slow, fast = (point["step_time_s"]["mean"] for point in document["points"])
    assert fast < slow
    out = json.loads(plan(*asked, "--gpus", 48, "--json").out)
    assert [group["num_nodes"] for group in out["cluster"]["groups"]] == [2, 4]
    late = plan(*asked, "--tokens", "1T", "--deadline", "1h")
    assert late.status == 1
    assert "and 96 are the most" in late.err
    uneven = plan(*asked, "--gpus", "24..90")
    assert uneven.status == 2
    assert "72 or 96 are" in uneven.err
