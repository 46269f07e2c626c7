"""``plan run`` end to end: workers in processes of their own, lines, table, record, resume, and an end by Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from plans import build_plan, small_model

from costmodel.schema.errors import InvalidSpec
from costmodel.schema.layout import Layout
from costmodel.schema.plan import Plan
from executor.launch import run_plan
from executor.record import load_record

LINE = re.compile(r"step (\d+) loss (\d+\.\d{4}) step_time_s \d+\.\d{3} tokens_per_s \d+( peak_gib \d+\.\d{3})?")


@pytest.fixture
def plan_path(tmp_path: Path) -> Path:
    layout = Layout(pp=2, num_microbatches=4, micro_batch_size=4)
    plan = build_plan(layout, model=small_model(4, vocab_size=256), schedule="zb-h1", seq_len=32)
    return _write(plan, tmp_path)


def _write(plan: Plan, folder: Path) -> Path:
    path = folder / "plan.json"
    path.write_text(plan.model_dump_json())
    return path


def test_a_run_prints_records_and_resumes(plan_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = plan_path.with_name("checkpoint")
    losses: dict[int, float] = {}
    for runs in (1, 2):
        assert run_plan(plan_path, 5, resume=str(folder), pace=runs == 2) == 0
        printed = capfd.readouterr().out
        lines = [match for line in printed.splitlines() if (match := LINE.fullmatch(line))]
        assert [int(line[1]) for line in lines] == list(range(5 * runs - 4, 5 * runs + 1))
        losses |= {int(line[1]): float(line[2]) for line in lines}
        header = next(line.split() for line in printed.splitlines() if "measured" in line)
        assert header[:2] == ["measured", "predicted"]
        for row in ("step time (s)", "tokens/s", "peak memory, allocated (GiB)"):
            assert re.search(rf"^{re.escape(row)}( +[\d.]+){{3}}$", printed, re.MULTILINE), row
        record = load_record(plan_path.with_suffix(".runs.json"))
        assert len(record.runs) == runs
        measured = record.runs[-1].measured
        assert measured.step_time_s > 0
        assert measured.allocated_bytes > 4 * 4 * 1000
        assert record.runs[-1].predicted.step_time_s == 0.2
        assert bool(record.runs[-1].pace_unit_s) is (runs == 2)
        trace = record.runs[-1].trace
        assert trace is not None
        assert {event.name for event in trace.events} >= {"0F0", "1I3", "1W3"}
    assert losses[10] < losses[1]


def test_ctrl_c_ends_the_workers(plan_path: Path) -> None:
    # As from a terminal, also where these tests run in the background, whose processes ignore interrupts.
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{heard}; import sys; from executor.launch import run_plan; sys.exit(run_plan({str(plan_path)!r}, 100000))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("step 2"):
            break
    assert len(_processes_with(str(plan_path))) >= 3, "two workers and torchrun must be running"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    process.stdout.close()
    deadline = time.monotonic() + 10
    while (left := _processes_with(str(plan_path))) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []


def _processes_with(argument: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if argument.encode() in command:
                found.append(int(entry.name))
    return found


def test_what_cannot_run_is_refused_before_anything_starts(plan_path: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match="cannot be read: No such file"):
        run_plan(tmp_path / "none.json", 1)
    with pytest.raises(InvalidSpec, match="steps = 0"):
        run_plan(plan_path, 0)
    with pytest.raises(InvalidSpec, match=r"data = .* does not exist"):
        run_plan(plan_path, 1, data=str(tmp_path / "none"))
    with pytest.raises(InvalidSpec, match=r"out = .* folder that does not exist"):
        run_plan(plan_path, 1, out=str(tmp_path / "none" / "record.json"))
    broken = tmp_path / "broken.json"
    broken.write_text(plan_path.read_text()[:100])
    with pytest.raises(InvalidSpec, match="not whole JSON"):
        run_plan(broken, 1)
    with pytest.raises(InvalidSpec, match="not whole JSON"):
        run_plan(plan_path, 1, out=str(broken))


def test_pace_needs_a_pipeline(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match="pace"):
        run_plan(_write(build_plan(Layout(), model=small_model(vocab_size=256)), tmp_path), 1, pace=True)


def test_a_gpu_plan_needs_its_gpus(plan_path: Path) -> None:
    data = json.loads(plan_path.read_text())
    data["cluster"]["device"] = "h100"
    data["cluster"]["device_spec"] |= {"name": "h100", "vendor": "nvidia"}
    import torch

    if torch.cuda.device_count() < 2:
        plan_path.write_text(json.dumps(data))
        with pytest.raises(InvalidSpec, match=r"2 x h100, and this machine has \d GPUs"):
            run_plan(plan_path, 1)
