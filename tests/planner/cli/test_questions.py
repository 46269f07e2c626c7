"""Sensitivity, explain against a layout, --robust, constraints: what they print and refuse on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from planner.cli.main import status_of

ASK = ("--model", "tiny", "--gpus", "4", "--gpu", "cpu", "--global-batch-size", "16", "--calibration", "none")


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan that the search gave under a few constraints."""
    path = tmp_path_factory.mktemp("plans") / "a.json"
    words = ("--fix", "schedule=1f1b,micro_batch_size=1", "--limit", "pp=..2", "--forbid", "full-recompute")
    assert status_of([*ASK, *words, "--top", "0", "--out", str(path), "--json"]) == 0
    return path


def test_sensitivity_as_table_and_as_json(plan: Any, searched: Path) -> None:
    table = plan("sensitivity", searched, "--change", "compute=2,memory=0.5")
    assert table.status == 0
    assert "Elasticity" in table.out
    assert "  compute   " in plan("sensitivity", searched, "--change", "compute=2", "--no-search").out
    document = json.loads(plan("sensitivity", searched, "--change", "compute=2", "--no-search", "--json").out)
    (one,) = document["outcomes"]
    assert (one["figure"], one["factor"], one["best_step_time_s"]) == ("compute", 2.0, None)
    assert one["plan"]["step_time_s"] < document["base"]["step_time_s"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--change", "compute"), "--change 'compute' is not FIGURE=FACTOR"),
        (("--change", "compute=fast"), "--change 'compute=fast' is not FIGURE=FACTOR"),
        (("--change", "speed=2"), "unknown figure 'speed'"),
        (("--change", "compute=0"), "compute times 0: a factor lies between 0.001 and 1000"),
        (("--change", "compute=nan"), "a factor lies between"),
        (("--time-limit", "0"), "--time-limit 0: must be more than 0 seconds"),
    ],
)
def test_sensitivity_refuses(plan: Any, searched: Path, arguments: tuple[str, ...], words: str) -> None:
    ending = plan("sensitivity", searched, *arguments)
    assert (ending.status, ending.out) == (2, "")
    assert words in ending.err
    assert "Traceback" not in ending.err


def test_explain_against_a_layout(plan: Any, searched: Path) -> None:
    ending = plan("explain", searched, "--against", "tp=1,pp=4,schedule=1f1b")
    assert "Asked for: --against tp=1" in ending.out
    assert ending.status == 0
    assert "Why B was not weighed" in ending.out
    assert "limit" in ending.out.partition("Why B was not weighed")[2]
    assert "What binds" in ending.out


@pytest.mark.parametrize(
    ("against", "status", "words"),
    [
        ("tp=3", 1, "--against asks for tp 3 = 3 ranks"),
        ("tq=3", 2, "unknown key of --against 'tq'"),
        ("ep=2", 2, "--against ep=2"),
        ("none.json", 2, "there is no file none.json"),
    ],
)
def test_explain_against_refuses(plan: Any, searched: Path, against: str, status: int, words: str) -> None:
    ending = plan("explain", searched, "--against", against)
    assert (ending.status, ending.out) == (status, "")
    assert words in ending.err


def test_a_file_with_an_equals_sign_is_a_file(plan: Any, searched: Path) -> None:
    other = searched.with_name("tp=1.json")
    other.write_text(searched.read_text())
    assert "They make the same choices" in plan("explain", searched, "--against", other).out


def test_robust_is_said(plan: Any) -> None:
    ending = plan(*ASK, "--robust", "--fix", "pp=1", "--top", "0")
    assert ending.status == 0
    assert "fastest by mean" in ending.out


def test_constraints_from_a_file_and_in_the_plan(plan: Any, tmp_path: Path) -> None:
    path = tmp_path / "limits.toml"
    path.write_text('forbid = ["tensor-parallelism"]\n[limit]\npp = { min = 2 }\n[fix.recompute]\n"0-1" = "full"\n')
    ending = plan(*ASK, "--constraints", path, "--json", "--top", "0")
    answer = json.loads(ending.out)
    assert answer["layout"]["tp"] == 1
    assert answer["layout"]["pp"] >= 2
    assert [layer["recompute"] for layer in answer["layers"][:2]] == ["full", "full"]
    assert answer["constraints"]["forbid"] == ["tp"]
    assert answer["constraints"]["limit"] == ["pp=2.."]
    assert answer["constraints"]["fix"] == ["recompute.0-1=full"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--constraints", "none.toml"), "none.toml"),
        (("--limit", "tp"), "--limit 'tp' is not KEY=VALUE"),
        (("--free-memory", "lots"), "--free-memory lots: must be an amount of memory"),
        (("--allow", "int4_optimizer"), "unknown technique in --allow 'int4_optimizer'"),
        (("--fix", "layers_per_stage=1/1"), "places 2 layers"),
    ],
)
def test_constraints_that_are_refused(plan: Any, arguments: tuple[str, ...], words: str) -> None:
    ending = plan(*ASK, *arguments)
    assert (ending.status, ending.out) == (2, "")
    assert words in ending.err


def test_no_layout_under_the_constraints(plan: Any) -> None:
    """What each of them alone keeps out is said."""
    ending = plan(*ASK, "--limit", "pp=2..,tp=2..,dp=2..", "--forbid", "vpp")
    assert ending.status == 1
    assert "--limit pp=2.." in ending.err
    assert "  - without --limit dp=2.. there are " in ending.err
    assert "without --forbid vpp" not in ending.err


def test_constraints_are_listed(plan: Any) -> None:
    assert "ring-attention" in plan("constraints", "cp_ring").out
    listed = json.loads(plan("constraints", "--json").out)
    assert {row["option"] for row in listed} == {"--fix, --limit", "--forbid", "--allow"}


@pytest.mark.parametrize("option", ["--robust", "--pareto", "--explain", "--price=2"])
def test_plans_for_mixed_lengths_refuse_what_they_would_not_use(plan: Any, tmp_path: Path, option: str) -> None:
    path = tmp_path / "lengths.csv"
    path.write_text("length,count\n64,8\n")
    ending = plan("--model", "tiny", "--gpus", "2", "--lengths", path, option)
    assert ending.status == 2
    assert ending.err.startswith("error: --")
    assert "--lengths" in ending.err


def test_an_edited_plan_is_refused_before_its_report(plan: Any, searched: Path, tmp_path: Path) -> None:
    document = json.loads(searched.read_text())
    document["pipeline"]["passes"]["0"] = "0F0 0Q0"
    path = tmp_path / "edited.json"
    path.write_text(json.dumps(document))
    ending = plan("explain", path)
    assert (ending.status, ending.out) == (2, "")
    assert "'0Q0'" in ending.err
