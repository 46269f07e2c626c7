"""Starting a plan's ranks on this machine with torchrun, in a subprocess that a Ctrl-C takes down with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from costmodel.schema.errors import InvalidSpec
from costmodel.schema.plan import Plan
from executor.capabilities import check_runnable
from executor.machine import available_cores
from executor.record import load_record
from executor.text import check_text, read_text

SHUTDOWN_S = 10.0
"""How long the workers have to end by themselves before they are killed."""


def run_plan(
    path: str | Path,
    steps: int,
    data: str | None = None,
    resume: str | None = None,
    out: str | None = None,
    pace: bool = False,
) -> int:
    """Run the plan file ``path`` for ``steps`` steps, one process a rank; return the exit code (130 after Ctrl-C).

    ``data``: text to train on, a file or folder (default: Python's standard library). ``resume``: a folder to take the
    run up from, where it has a checkpoint, and to save it to at the end. ``out``: the run record to append to
    (default: beside the plan, ``NAME.runs.json``). ``pace``: stretch each pass to a prescribed time, so that ranks
    which share cores behave as separate devices.
    Raises InvalidSpec when the plan, the machine or the text cannot do it.
    """
    plan = _load(Path(path))
    if steps < 1:
        raise InvalidSpec(f"steps = {steps} must be at least 1")
    check_runnable(plan)
    if pace and (plan.layout.pp == 1 or plan.cluster.device_spec.vendor != "cpu"):
        raise InvalidSpec(
            "pace stretches pipeline passes on the CPU, and this plan has none",
            "leave --pace out, or plan with pp > 1 on cpu",
        )
    check_text(read_text(data), plan.model.vocab_size, plan.workload.seq_len)
    _check_devices(plan)
    record = Path(out) if out is not None else Path(path).with_suffix(".runs.json")
    if not record.parent.is_dir():
        raise InvalidSpec(
            f"out = {str(record)!r} is in a folder that does not exist", "give --out a path in a writable folder"
        )
    load_record(record)
    return _torchrun(plan, _worker_arguments(path, steps, data, resume, record, pace))


def _load(path: Path) -> Plan:
    try:
        return Plan.load_json(path.read_text(), str(path))
    except OSError as error:
        raise InvalidSpec(
            f"plan file {str(path)!r} cannot be read: {error.strerror}", "`plan --out FILE` writes one"
        ) from None


def _check_devices(plan: Plan) -> None:
    """A GPU plan needs a GPU a rank; ranks of a CPU plan may share cores, however many they are."""
    if plan.cluster.device_spec.vendor == "cpu":
        return
    import torch

    devices = torch.cuda.device_count()
    wanted = " + ".join(f"{number} x {device}" for number, device in plan.cluster.counts)
    if devices < plan.world_size:
        raise InvalidSpec(
            f"this plan is for {wanted}, and this machine has {devices} GPUs",
            f"plan with --gpus {devices}, or start torchrun -m executor.worker on several nodes"
            if devices
            else "plan with --gpu cpu to run here, or take the plan file to where the GPUs are",
        )


def _worker_arguments(
    path: str | Path, steps: int, data: str | None, resume: str | None, record: Path, pace: bool
) -> list[str]:
    arguments = [str(path), "--steps", str(steps), "--out", str(record)]
    for name, value in (("--data", data), ("--resume", resume)):
        if value is not None:
            arguments += [name, value]
    return arguments + ["--pace"] * pace


def _torchrun(plan: Plan, arguments: list[str]) -> int:
    # A free port is found by the rendezvous itself (--standalone). Safe path: the checkout's folder `kernels` must not
    # be found as a top-level package.
    threads = max(1, available_cores() // plan.world_size)
    environment = {"OMP_NUM_THREADS": str(threads)} | os.environ | {"PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={plan.world_size}"]
    process = subprocess.Popen([*command, "-m", "executor.worker", *arguments], env=environment, start_new_session=True)
    try:
        return process.wait()
    except KeyboardInterrupt:
        _end(process)
        return 130


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask torchrun to end its workers; kill the whole session when it does not."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=SHUTDOWN_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
