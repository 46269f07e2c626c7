"""The command as a process: what it imports before it works, closed pipes, interrupted writes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from costmodel.schema.errors import InvalidSpec
from planner.cli.files import write_file

PLAN = [sys.executable, "-P", "-m", "planner.cli.main"]
HEAVY = ("numpy", "pulp", "highspy", "scipy", "torch", "rich.table", "pydantic")


def test_the_command_loads_nothing_heavy_to_start() -> None:
    code = f"import sys, planner.cli.main as m; m.build_app(); print([n for n in {HEAVY} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_way_to_the_search_loads_no_solver_and_no_report() -> None:
    """Up to the moment when the request is whole: what only the search, the fit or the report need is not there."""
    code = (
        "import sys; from planner.request import build_request; build_request('tiny', 8);"
        "print([n for n in ('pulp', 'highspy', 'scipy', 'torch', 'rich') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_closed_pipe_is_silent(plan_file: Any) -> None:
    """The reader leaves before the first word; nothing is complained about."""
    for arguments in (["show", str(plan_file())], ["show", str(plan_file()), "--json"], ["gpus"]):
        process = subprocess.Popen([*PLAN, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        with process.stderr:
            assert process.stderr.read() == ""
        assert process.wait() == 141


def test_bad_input_reaches_the_shell_as_status_2() -> None:
    done = subprocess.run([*PLAN, "show", "none.json"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stdout == ""


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "plan.json"
    write_file(path, "old")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_file(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_disk_full_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(InvalidSpec, match="No space left on device"):
        write_file(tmp_path / "plan.json", "new")
    assert not list(tmp_path.iterdir())
