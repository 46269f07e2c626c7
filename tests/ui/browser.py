"""The dashboard as a process of its own, and a headless Chromium to open it in."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
"""As root in a container, and without a word to any other host."""

STARTED_S = 60.0


@contextmanager
def dashboard(cache: Path) -> Iterator[str]:
    """``plan ui`` on a free port until the block ends; its address. ``cache``: where calibrations would lie."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", "from planner.cli.main import main; main()", "ui", "--no-browser"]
    log = cache / "dashboard.log"
    with log.open("wb") as said:
        process = subprocess.Popen(
            [*command, "--port", str(port)], env={**os.environ, "XDG_CACHE_HOME": str(cache), "OMP_NUM_THREADS": "1"},
            stdout=said, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        _wait_for(f"http://localhost:{port}/_stcore/health", process, log)
        yield f"http://localhost:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(STARTED_S)


def _wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + STARTED_S
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            with urlopen(address, timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError(f"the dashboard did not start: {log.read_text(encoding='utf-8')}")
