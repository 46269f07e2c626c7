"""The commands do what they say: reading, writing, printing, and handing the right question on."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from costmodel.schema.errors import Infeasible, SolverTimeout
from planner.schedules.names import DEFERRED, NAMES


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch, make_plan: Any) -> list[Any]:
    """Stands in for search and prediction: records each question and answers with the small plan."""
    import planner.search.space  # noqa: F401  (constraints look into the space, which the stand-in has not)

    asked: list[Any] = []
    search, predict = ModuleType("planner.search"), ModuleType("planner.predict")

    def find_plan(request: Any, on_progress: Any = None) -> Any:
        asked.append((request,))
        return make_plan()

    def predict_plan(request: Any, layout: Any, schedule: str, recompute: str) -> Any:
        asked.append((request, layout, schedule, recompute))
        return make_plan()

    search.find_plan = find_plan  # type: ignore[attr-defined]
    predict.predict_plan = predict_plan  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "planner.search", search)
    monkeypatch.setitem(sys.modules, "planner.predict", predict)
    return asked


def test_show_prints_the_report(plan: Any, plan_file: Any) -> None:
    ending = plan("show", plan_file())
    assert ending.status == 0
    assert "small on 8 × h100" in ending.out
    assert ending.err == ""
    assert "\x1b" not in ending.out


def test_show_json_is_the_plan_itself(plan: Any, plan_file: Any, make_plan: Any) -> None:
    ending = plan("show", plan_file(), "--json")
    assert json.loads(ending.out) == json.loads(make_plan().model_dump_json())


def test_a_plan_from_standard_input(plan: Any, plan_file: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = plan_file()
    monkeypatch.setattr(sys, "stdin", io.StringIO(path.read_text()))
    assert plan("show", "-").out == plan("show", path).out


def test_explain_says_more(plan: Any, plan_file: Any) -> None:
    path = plan_file()
    short, long = plan("show", path).out, plan("explain", path).out
    assert len(long) > len(short)
    assert "2·M·N·K" in long
    assert "2·M·N·K" not in short
    assert long.startswith(plan("show", path, "--explain").out.rstrip())


def test_explain_against(plan: Any, plan_file: Any) -> None:
    ours = plan_file("a", constraints={"fix": ["tp=2"]})
    theirs = plan_file("b", layout={"tp": 4, "dp_shard": 1, "micro_batch_size": 8})
    ending = plan("explain", ours, "--against", theirs)
    assert ending.status == 0
    assert "micro_batch_size" in ending.out
    assert "What binds A\n  ·  Asked for: --fix tp=2." in ending.out


def test_trace_is_what_the_simulator_ran(plan: Any, plan_file: Any, tmp_path: Path, make_plan: Any) -> None:
    out = tmp_path / "trace.json"
    assert plan("trace", plan_file(), "--out", out).status == 0
    events = json.loads(out.read_text())["traceEvents"]
    for rank, order in make_plan().pipeline.passes.items():
        mine = [event for event in events if event["pid"] == int(rank) and event.get("cat") == "compute"]
        assert [event["name"] for event in sorted(mine, key=lambda event: event["ts"])] == order.split()
    assert json.loads(plan("trace", plan_file()).out)["traceEvents"] == events


def test_search_hands_the_question_on(plan: Any, answers: list[Any], tmp_path: Path) -> None:
    out = tmp_path / "plan.json"
    ending = plan(
        *("--model", "tiny", "--gpus", 8, "--gpu", "cpu", "--gpus-per-node", 8, "--seq-len", 64),
        *(
            "--fix",
            "tp=2,zero-stage=1",
            "--fix",
            "recompute=full",
            "--forbid",
            "cp-ring,ZB-H1",
            "--schedule",
            "Schedule1F1B",
        ),
        *(
            "--gap",
            0.05,
            "--time-limit",
            9,
            "--top",
            2,
            "--fit-probability",
            0.9,
            "--calibration",
            "none",
            "--out",
            out,
        ),
    )
    assert ending.status == 0, ending.err
    (request,) = answers[0]
    assert request.model.name == "tiny"
    assert request.cluster.num_devices == 8
    assert (request.workload.seq_len, request.workload.global_batch_size, request.workload.precision) == (
        64,
        32,
        "fp32",
    )
    assert dict(request.fixed) == {"tp": 2, "zero_stage": 1, "recompute": "full"}
    assert request.forbidden == {"cp_ring", "zb-h1"}
    assert request.schedules == ("1f1b",)
    assert (request.gap, request.time_limit_s, request.top, request.fit_probability) == (0.05, 9, 2, 0.9)
    assert f"written to {out}" in ending.out
    assert plan("show", out).status == 0


def test_search_json_is_the_plan(plan: Any, answers: list[Any], make_plan: Any) -> None:
    ending = plan("--model", "tiny", "--gpus", 8, "--json")
    assert json.loads(ending.out) == json.loads(make_plan().model_dump_json())


def test_every_default_is_said(plan: Any, answers: list[Any]) -> None:
    plan("--model", "llama-70b", "--gpus", 64, "--calibration", "none")
    request = answers[0][0]
    workload = request.workload
    assert (workload.seq_len, workload.global_batch_size) == (8192, 512)
    assert (workload.precision, workload.master_dtype, workload.grad_reduce_dtype) == ("bf16", "fp32", "fp32")
    assert (workload.optimizer, request.runtime.name, request.device.name) == ("adamw", "torch", "h100")
    said = " ".join(request.assumptions)
    options = ("gpu", "seq-len", "global-batch-size", "precision", "optimizer", "grad-reduce-dtype", "runtime")
    assert all(f"--{option})" in said for option in options)
    given = ("--gpu", "h100", "--seq-len", 8192, "--global-batch-size", 512, "--precision", "bf16")
    plan("--model", "llama-70b", "--gpus", 64, "--calibration", "none", *given)
    fewer = " ".join(answers[1][0].assumptions)
    assert answers[1][0].workload == workload
    assert not any(f"--{option})" in fewer for option in ("gpu", "seq-len", "global-batch-size", "precision"))


def test_infeasible_says_why(plan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def find_plan(request: Any, on_progress: Any = None) -> Any:
        raise Infeasible("no layout of tiny fits 7 GPUs", ["7 divides no degree"], "8 GPUs work")

    search = ModuleType("planner.search")
    search.find_plan = find_plan  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "planner.search", search)
    ending = plan("--model", "tiny", "--gpus", 8)
    assert ending.status == 1
    assert ending.err.splitlines() == [
        "error: no layout of tiny fits 7 GPUs",
        "  - 7 divides no degree",
        "hint: 8 GPUs work",
    ]


@pytest.mark.parametrize(("raised", "status"), [(KeyboardInterrupt(), 130), (SolverTimeout("no answer in 1 s"), 3)])
def test_other_endings(plan: Any, monkeypatch: pytest.MonkeyPatch, raised: BaseException, status: int) -> None:
    def find_plan(request: Any, on_progress: Any = None) -> Any:
        raise raised

    search = ModuleType("planner.search")
    search.find_plan = find_plan  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "planner.search", search)
    ending = plan("--model", "tiny", "--gpus", 8)
    assert ending.status == status
    assert len(ending.err.splitlines()) == 1


def test_a_bug_keeps_its_traceback(plan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def find_plan(request: Any, on_progress: Any = None) -> Any:
        raise ZeroDivisionError

    search = ModuleType("planner.search")
    search.find_plan = find_plan  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "planner.search", search)
    with pytest.raises(ZeroDivisionError):
        plan("--model", "tiny", "--gpus", 8)


def test_schedule_json(plan: Any, tmp_path: Path) -> None:
    csv, trace = tmp_path / "order.csv", tmp_path / "trace.json"
    arguments = ("schedule", "1f1b", "--pp", 4, "--microbatches", 8, "--json", "--csv", csv, "--trace", trace)
    summary = json.loads(plan(*arguments).out)
    assert summary["valid"]
    assert summary["makespan"] == pytest.approx(3 * (8 + 4 - 1))
    assert summary["bubble_fraction"] == pytest.approx(3 / 11)
    assert summary["peak_activations"] == [4, 3, 2, 1]
    assert summary["passes"] == 4 * 8 * 2
    rows = csv.read_text().splitlines()
    assert [row.replace(",", " ") for row in rows] == [summary["order"][str(rank)] for rank in range(4)]
    events = json.loads(trace.read_text())["traceEvents"]
    ends = [event["ts"] + event["dur"] for event in events if event["ph"] == "X"]
    assert max(ends) == pytest.approx(33e6)


def test_schedule_from_a_file(plan: Any, tmp_path: Path) -> None:
    csv, again = tmp_path / "order.csv", tmp_path / "again.csv"
    named = json.loads(plan("schedule", "zb-h1", "--pp", 3, "--microbatches", 4, "--csv", csv, "--json").out)
    assert json.loads(plan("schedule", csv, "--csv", again, "--json").out) == named
    assert again.read_text() == csv.read_text()
    drawn = plan("schedule", csv)
    assert drawn.status == 0
    assert "order: 3 ranks, 4 micro-batches" in drawn.out


def test_csv_that_torchtitan_cannot_use(plan: Any, tmp_path: Path) -> None:
    csv = tmp_path / "order.csv"
    csv.write_text("1F0,1B0\n0F0,0B0\n")
    ending = plan("schedule", csv, "--csv", tmp_path / "again.csv", "--json")
    assert ending.status == 0
    assert "torchtitan cannot build stages on ranks [1, 0]" in ending.err


def test_csv_of_what_pytorch_cannot_run(plan: Any, tmp_path: Path) -> None:
    csv, again = tmp_path / "order.csv", tmp_path / "again.csv"
    csv.write_text("0F0,3F1,0B0,3B1\n2F1,1F0,1B0,2B1\n")
    ending = plan("schedule", csv, "--csv", again, "--json")
    assert ending.status == 1
    assert ending.err.count("2 copies of the model") == 1
    assert not again.exists()


def test_schedule_with_its_optimizer(plan: Any, tmp_path: Path) -> None:
    """1F1B's ranks end at 33 to 24; each update is as long as it is, and the trace shows them."""
    trace = tmp_path / "trace.json"
    sizes = ("schedule", "1f1b", "--pp", 4, "--microbatches", 8, "--optimizer", 2)
    assert json.loads(plan(*sizes, "--json", "--trace", trace).out)["step"] == pytest.approx(35)
    events = json.loads(trace.read_text())["traceEvents"]
    assert [event["ts"] for event in events if event["name"] == "optimizer"] == [33e6] * 4
    assert json.loads(plan(*sizes, "--post-validation", "--json").out)["step"] == pytest.approx(35)
    assert "step with its optimizer 35" in plan(*sizes).out
    assert json.loads(plan(*sizes[:-2], "--json").out)["step"] is None


def test_schedule_times_of_links_and_recomputation(plan: Any) -> None:
    """One micro-batch over two ranks: (1 + 2 + 0.5) each, and two messages of 3 + 4."""
    sizes = ("schedule", "1f1b", "--pp", 2, "--microbatches", 1, "--json")
    times = ("--recompute", 0.5, "--comm", 3, "--wire", 4)
    assert json.loads(plan(*sizes, *times).out)["makespan"] == pytest.approx(7 + 14)


def test_schedule_drawing_fits(plan: Any) -> None:
    ending = plan("schedule", "interleaved-1f1b", "--pp", 4, "--microbatches", 8)
    assert ending.status == 0
    assert "2 chunks a rank" in ending.out
    assert max(map(len, ending.out.splitlines())) <= 100
    assert plan("schedule", "1f1b", "--pp", 1, "--microbatches", 1).out.startswith("1f1b: 1 rank, 1 micro-batch\n")
    assert "in micro-batches: 1 to 3\n" in plan("schedule", "1f1b", "--pp", 65, "--microbatches", 3).out


def test_schedule_help_names_every_schedule(plan: Any) -> None:
    printed = " ".join(plan("schedule", "--help").out.replace("│", " ").split())
    for name in NAMES:
        assert name.removesuffix(DEFERRED) in printed, name


@pytest.mark.parametrize(("command", "name"), [("models", "tiny"), ("gpus", "h100"), ("runtimes", "torch")])
def test_catalogs(plan: Any, command: str, name: str) -> None:
    table = plan(command, name)
    assert table.status == 0
    assert any(line.split()[0] == name for line in table.out.splitlines()[1:])
    assert name in [row["name"] for row in json.loads(plan(command, "--json").out)]
    assert "nothing by that name" in plan(command, "no-such-thing").out


@pytest.mark.parametrize("command", [(), ("predict", "--ep", "8")])
def test_the_load_of_experts_is_part_of_the_question(plan: Any, answers: list[Any], command: tuple[str, ...]) -> None:
    asked = ("--model", "mixtral-8x7b", "--gpus", "8", "--runtime", "megatron", "--calibration", "none")
    assert plan(*command, *asked, "--moe-imbalance", "1.5").status == 0
    assert plan(*command, *asked, "--moe-capacity-factor", "1").status == 0
    busy, capped = (question[0].workload for question in answers)
    assert (busy.moe_imbalance, busy.moe_capacity_factor) == (1.5, None)
    assert capped.moe_capacity_factor == 1.0
