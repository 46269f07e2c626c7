"""Every kind of bad input: one sentence, a hint where something would work, the right status, never a traceback."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest


def assert_sentence(ending: Any, status: int, *words: str) -> None:
    """``error: …`` on the first line, naming each of ``words``; nothing on standard output."""
    assert ending.status == status, ending
    first, *rest = ending.err.splitlines()
    assert first.startswith("error: "), ending.err
    assert "Traceback" not in ending.err
    assert all(line.startswith(("hint: ", "  - ")) for line in rest), ending.err
    for word in words:
        assert word in ending.err, ending.err
    assert ending.out == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--gpus", "8"), ("--model is missing",)),
        (("--model", "lama-70b", "--gpus", "8"), ("unknown model 'lama-70b'", "llama-70b")),
        (("--model", "tiny"), ("--gpus is missing",)),
        (("--model", "tiny", "--gpus", "0"), ("--gpus 0", "from 1")),
        (("--model", "tiny", "--gpus", "two"), ("two",)),
        (("--model", "tiny", "--gpus", "8", "--gpu", "h101"), ("'h101'", "h100")),
        (("--model", "tiny", "--gpus", "8", "--runtime", "torhc"), ("'torhc'", "torch")),
        (("--model", "tiny", "--gpus", "8", "--seq-len", "0"), ("--seq-len 0",)),
        (("--model", "tiny", "--gpus", "8", "--global-batch-size", "-4"), ("--global-batch-size -4",)),
        (("--model", "tiny", "--gpus", "8", "--precision", "bf61"), ("'bf61'", "bf16")),
        (("--model", "tiny", "--gpus", "8", "--gpu", "a100-80g", "--precision", "fp8"), ("fp8", "a100-80g", "bf16")),
        (("--model", "tiny", "--gpus", "8", "--optimizer", "adamx"), ("'adamx'", "adamw")),
        (("--model", "tiny", "--gpus", "8", "--grad-reduce-dtype", "int4"), ("'int4'", "fp32")),
        (("--model", "tiny", "--gpus", "8", "--fit-probability", "95"), ("--fit-probability 95", "0.95")),
        (("--model", "tiny", "--gpus", "8", "--gap", "-1"), ("--gap -1",)),
        (("--model", "tiny", "--gpus", "8", "--time-limit", "0"), ("--time-limit 0",)),
        (("--model", "tiny", "--gpus", "8", "--top", "-1"), ("--top -1",)),
        (("--model", "tiny", "--gpus", "8", "--cluster", "nowhere.toml"), ("nowhere.toml",)),
        (("--model", "tiny", "--gpus", "8", "--calibration", "nowhere.json"), ("nowhere.json",)),
        (("--model", "tiny", "--gpus", "8", "--fix", "tp"), ("--fix 'tp'", "tp=8,pp=4")),
        (("--model", "tiny", "--gpus", "8", "--fix", "tq=2"), ("'tq'", "tp")),
        (("--model", "tiny", "--gpus", "8", "--fix", "tp=0"), ("--fix tp=0", "from 1")),
        (("--model", "tiny", "--gpus", "8", "--fix", "zero_stage=4"), ("zero_stage=4", "0, 1, 2, 3")),
        (("--model", "tiny", "--gpus", "8", "--fix", "recompute=some"), ("recompute=some", "selective")),
        (("--model", "tiny", "--gpus", "8", "--fix", "tp=2", "--fix", "tp=4"), ("tp twice",)),
        (("--model", "tiny", "--gpus", "8", "--fix", "schedule=2f2b"), ("'2f2b'",)),
        (("--model", "tiny", "--gpus", "8", "--forbid", "sleep"), ("'sleep'",)),
        (("--model", "tiny", "--gpus", "8", "--schedule", "zb-h9"), ("'zb-h9'", "zb-h1")),
        (("--model", "tiny", "--gpus", "8", "--frobnicate"), ("--frobnicate", "--help")),
        (("frobnicate",), ("frobnicate", "--help")),
        (("--model", "tiny", "show", "x.json"), ("--model stands before the command show",)),
    ],
)
def test_search_refuses(plan: Any, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    assert_sentence(plan(*arguments), 2, *words)


def test_fixed_degrees_that_no_layout_can_have(plan: Any) -> None:
    ending = plan("--model", "tiny", "--gpus", "8", "--fix", "tp=3")
    assert_sentence(ending, 1, "tp 3", "8 devices", "6 and 9")


def test_a_number_of_devices_that_no_layout_divides(plan: Any) -> None:
    """11 ranks: more than the 8 layers, and a divisor of neither heads nor batch. The search itself says so."""
    assert_sentence(plan("--model", "tiny", "--gpu", "cpu", "--gpus", "11", "--calibration", "none"), 1, "tiny", "11")


def test_a_number_of_devices_that_fills_no_nodes(plan: Any) -> None:
    assert_sentence(plan("--model", "tiny", "--gpus", "11"), 2, "11", "8 or 16")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ("--model is missing",)),
        (("--model", "tiny", "--tp", "2", "--gpus", "5"), ("2 ranks", "5 GPUs")),
        (("--model", "tiny", "--tp", "0"), ("tp", "0")),
        (("--model", "tiny", "--tp", "2", "--recompute", "half"), ("'half'",)),
        (("--model", "tiny", "--tp", "2", "--schedule", "2f2b"), ("'2f2b'",)),
        (("--model", "tiny", "--pp", "2", "--schedule", "auto"), ("'auto'", "plan --schedule auto")),
        (("--model", "tiny", "--gpus", "8", "--global-batch-size", "12"), ("12", "multiple of 8")),
        (("--model", "tiny", "--tp", "2", "--order", "tp,pp"), ("order",)),
        (("--model", "tiny", "--tp", "2", "--ep", "4"), ("ep 4",)),
        (("--model", "tiny", "--layout", "nowhere.json"), ("nowhere.json",)),
        (("--model", "tiny", "--moe-imbalance", "2"), ("--moe-imbalance 2", "no experts")),
        (("--model", "mixtral-8x7b", "--moe-capacity-factor", "0"), ("--moe-capacity-factor 0", "above 0")),
    ],
)
def test_predict_refuses(plan: Any, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    assert_sentence(plan("predict", "--gpu", "h100", *arguments), 2, *words)


def test_layout_file_with_an_unknown_key(plan: Any, tmp_path: Path) -> None:
    path = tmp_path / "layout.json"
    path.write_text('{"tp": 2, "dp_shards": 4}')
    assert_sentence(plan("predict", "--model", "tiny", "--layout", path), 2, "'dp_shards'", "dp_shard")


@pytest.mark.parametrize("command", ["show", "explain", "trace", "run"])
def test_missing_plan_file(plan: Any, command: str, tmp_path: Path) -> None:
    assert_sentence(plan(command, tmp_path / "none.json"), 2, "there is no file", "none.json")


@pytest.mark.parametrize("command", ["show", "explain", "trace", "run"])
def test_truncated_plan_file(plan: Any, plan_file: Any, command: str) -> None:
    path = plan_file()
    path.write_text(path.read_text()[:700])
    assert_sentence(plan(command, path), 2, str(path), "not whole JSON", "line 1")


def test_plan_of_another_schema_version(plan: Any, plan_file: Any) -> None:
    assert_sentence(plan("show", plan_file(schema_version=2)), 2, "schema_version 2", "reads 1")


def test_json_that_is_no_plan(plan: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("[1, 2]")
    assert_sentence(plan("show", path), 2, "is no plan")


def test_binary_file(plan: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(b"\xff\xfe\x00\x80")
    assert_sentence(plan("show", path), 2, "not a text file")


def test_folder_in_place_of_a_plan(plan: Any, tmp_path: Path) -> None:
    assert_sentence(plan("show", tmp_path), 2, "cannot read")


def test_plan_for_more_ranks_than_there_are(plan: Any, plan_file: Any) -> None:
    assert_sentence(plan("show", plan_file(layout={"tp": 4})), 2, "layout needs 16 ranks, cluster has 8 devices")


def test_plan_with_a_field_too_many(plan: Any, plan_file: Any) -> None:
    assert_sentence(plan("show", plan_file(layout={"tpp": 2})), 2, "layout.tpp")


@pytest.mark.parametrize("command", [("--model", "tiny", "--gpus", "8"), ("predict", "--model", "tiny", "--gpus", "8")])
def test_unwritable_out_is_refused_before_the_work(plan: Any, command: tuple[str, ...], tmp_path: Path) -> None:
    ending = plan(*command, "--out", tmp_path / "missing" / "plan.json")
    assert_sentence(ending, 2, "cannot write", "there is no folder", "mkdir -p")
    assert_sentence(plan(*command, "--out", tmp_path), 2, "cannot write", "it is a folder")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_folder_without_permission(plan: Any, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    ending = plan("--model", "tiny", "--gpus", "8", "--out", tmp_path / "plan.json")
    tmp_path.chmod(0o700)
    assert_sentence(ending, 2, "not writable")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("1f1b", "--pp", "4"), ("--microbatches",)),
        (("1f1c", "--pp", "4", "--microbatches", "8"), ("'1f1c'", "1f1b")),
        (("1f1b", "--pp", "0", "--microbatches", "8"), ("--pp 0",)),
        (("1f1b", "--pp", "4", "--microbatches", "8", "--vpp", "0"), ("--vpp 0",)),
        (("1f1b", "--pp", "4", "--microbatches", "8", "--f", "-1"), ("--f -1",)),
        (("1f1b", "--pp", "4", "--microbatches", "8", "--wire", "-1"), ("--wire -1",)),
        (("1f1b", "--pp", "4", "--microbatches", "8", "--optimizer", "-2"), ("--optimizer -2",)),
        (("1f1b", "--pp", "4", "--microbatches", "8", "--post-validation"), ("--post-validation", "--optimizer")),
        (("1f1b", "--pp", "4", "--microbatches", "8", "--f", "0", "--b", "0", "--w", "0"), ("all 0",)),
        (("1f1b", "--pp", "4", "--microbatches", "8", "--comm", "inf"), ("--comm inf", "a finite number from 0")),
        (("1f1b", "--pp", "4", "--microbatches", "8", "--gather", "1"), ("1f1b has no passes UNSHARD", "zeropp")),
        (("gpipe", "--pp", "4", "--microbatches", "8", "--reduce", "1"), ("gpipe has no passes REDUCE_GRAD",)),
        (("1f1b", "--pp", "4", "--microbatches", "8", "--vocab", "1"), ("no passes VOCAB_F", "1f1b-vocab-2")),
        (("auto", "--pp", "4", "--microbatches", "8", "--wire", "1"), ("--wire 1: auto", "add it to --comm")),
        (("auto", "--pp", "4", "--microbatches", "8", "--memory-cap", "inf"), ("cap inf must be a finite number",)),
        (("interleaved-1f1b", "--pp", "4", "--microbatches", "8", "--vpp", "99999"), ("take fewer chunks",)),
        (("1f1b", "--pp", "99999", "--microbatches", "8"), ("1 chunk a rank", "take fewer ranks")),
        (("chimera", "--pp", "3", "--microbatches", "6"), ("an even pp", "take pp = 4 or the schedule 1f1b")),
    ],
)
def test_schedule_refuses(plan: Any, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    assert_sentence(plan("schedule", *arguments), 2, *words)


def test_both_plans_from_standard_input(plan: Any) -> None:
    assert_sentence(plan("explain", "-", "--against", "-"), 2, "standard input", "once")


def test_run_without_torch(plan: Any, plan_file: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert_sentence(plan("run", plan_file()), 2, "PyTorch", "parlay[torch]")


def test_run_for_no_steps(plan: Any, plan_file: Any) -> None:
    assert_sentence(plan("run", plan_file(), "--steps", "0"), 2, "--steps 0")


def test_run_on_missing_data(plan: Any, plan_file: Any, tmp_path: Path) -> None:
    assert_sentence(plan("run", plan_file(), "--data", tmp_path / "none.txt"), 2, "none.txt")


def test_sentences_name_no_python(plan: Any, plan_file: Any) -> None:
    """What a person reads says nothing about validators or types of the implementation."""
    for path in (plan_file("a", layout={"tp": "many"}), plan_file("b", workload={"precision": "fp7"})):
        assert not re.search(r"pydantic|ValidationError|<class", plan("show", path).err)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--fix", "pp=2", "--forbid", "pp"), ("--fix pp=2", "--forbid pp")),
        (("--fix", "recompute=full", "--forbid", "recompute"), ("recompute=full", "--forbid recompute")),
        (("--fix", "recompute=full", "--forbid", "full"), ("recompute=full", "--forbid full")),
        (("--fix", "zero_stage=3", "--forbid", "zero3"), ("zero_stage=3", "--forbid zero3")),
        (("--fix", "sequence_parallel=true", "--forbid", "sequence-parallel"), ("--forbid sequence_parallel",)),
        (("--fix", "vocab_parallel=true", "--forbid", "vocab-parallel"), ("--forbid vocab_parallel",)),
        (("--fix", "schedule=gpipe", "--forbid", "gpipe"), ("schedule=gpipe", "--forbid gpipe")),
        (("--fix", "schedule=gpipe", "--schedule", "1f1b"), ("schedule=gpipe", "--schedule 1f1b")),
        (("--fix", "schedule=zb-v,vpp=3"), ("--fix vpp=3", "'zb-v' needs pp >= 2, vpp = 2")),
        (("--fix", "schedule=chimera,pp=1"), ("--fix pp=1", "'chimera' needs an even pp")),
        (("--fix", "schedule=auto"), ("'auto'", "plan --schedule auto")),
        (("--schedule", "breadth-first+fsdp"), ("'breadth-first+fsdp'", "the runtime torch has gpipe, 1f1b")),
        (("--gpus", "12", "--gpu", "h100"), ("12 (--gpus)", "8 or 16", "--gpus-per-node")),
        (("--model", ""), ("--model is empty", "plan models")),
    ],
)
def test_options_that_contradict(plan: Any, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    assert_sentence(plan("--model", "tiny", "--gpus", "4", "--gpu", "cpu", *arguments), 2, *words)


@pytest.mark.parametrize("fix", ["pp=1", "recompute=none", "zero_stage=0"])
def test_fixing_what_is_forbidden_anyway(plan: Any, fix: str) -> None:
    forbidden = {"pp=1": "pp", "recompute=none": "recompute", "zero_stage=0": "zero3"}[fix]
    asked = ("--model", "tiny", "--gpus", "2", "--gpu", "cpu", "--json")
    assert plan(*asked, "--fix", fix, "--forbid", forbidden).status == 0


@pytest.mark.parametrize("command", ["show", "explain", "trace"])
def test_layers_that_contradict_the_stages(plan: Any, plan_file: Any, command: str) -> None:
    path = plan_file()
    document = json.loads(path.read_text())
    document["pipeline"]["layers_per_stage"][0] += 1
    path.write_text(json.dumps(document))
    assert_sentence(plan(command, path), 2, str(path), "pipeline.layers_per_stage")


def test_a_plan_with_nan(plan: Any, plan_file: Any) -> None:
    path = plan_file()
    document = json.loads(path.read_text())
    document["prediction"]["step_time_s"]["mean"] = float("nan")
    path.write_text(json.dumps(document))
    assert_sentence(plan("show", path), 2, "prediction.step_time_s.mean = nan", "finite")


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ({"step_time_s": {"mean": -1.0, "low": 0.1, "high": 0.4}}, "prediction.step_time_s.mean = -1.0: "),
        (
            {"step_time_s": {"mean": 0.5, "low": 0.1, "high": 0.4}},
            "mean = 0.5 must lie between low = 0.1 and high = 0.4",
        ),
        ({"memory": {"fits_probability": 1.5}}, "prediction.memory.fits_probability = 1.5: "),
        ({"memory": {"host_bytes": -1.0}}, "prediction.memory.host_bytes = -1.0: "),
    ],
)
def test_a_plan_with_impossible_figures(plan: Any, plan_file: Any, figures: dict[str, Any], words: str) -> None:
    assert_sentence(plan("show", plan_file(prediction=figures)), 2, words)


def test_a_plan_nested_without_end(plan: Any, tmp_path: Path) -> None:
    path = tmp_path / "deep.json"
    path.write_text("[" * 100_000)
    assert_sentence(plan("show", path), 2, str(path), "deeper")


def test_resuming_from_a_file(plan: Any, plan_file: Any) -> None:
    path = plan_file()
    assert_sentence(plan("run", path, "--resume", path), 2, f"--resume {path}", "folder")


@pytest.mark.parametrize(
    ("text", "arguments", "words"),
    [
        ("0F0,0B0\n1F0,1C0\n", (), ("order.csv, line 2, cell 2", "'1C0' is not a pass")),
        ("0F0,0B0\n1B0,1F0\n", (), ("order.csv cannot run", "1B0 comes before 1F0")),
        ("0F0,0B0\n", ("--pp", "1"), ("--pp 1", "says itself")),
        (None, (), ("there is no file", "order.csv", "--csv FILE")),
    ],
)
def test_schedule_files_it_refuses(
    plan: Any, tmp_path: Path, text: str | None, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    path = tmp_path / "order.csv"
    if text is not None:
        path.write_text(text)
    assert_sentence(plan("schedule", path, *arguments), 2, *words)


def test_a_schedule_too_large_to_build(plan: Any) -> None:
    ending = plan("schedule", "1f1b", "--pp", "100000000", "--microbatches", "400000000")
    assert_sentence(ending, 2, "--pp 100000000", "500,000", "fewer ranks")
