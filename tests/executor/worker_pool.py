"""N gloo ranks that run named jobs and send their results back. A pool in which a job failed is closed for good."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import Any

JOB_TIMEOUT_S = 60.0


class WorkerError(RuntimeError):
    """A job failed on some rank; the message holds each failing rank's traceback."""


class WorkerPool:
    """``run(job, **arguments)`` calls the function ``job`` of ``worker_jobs.py`` on every rank; results by rank."""

    def __init__(self, num_ranks: int) -> None:
        self.num_ranks = num_ranks
        self.closed = False
        self._folder = tempfile.TemporaryDirectory()
        address = str(Path(self._folder.name) / "socket")
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"}
        with Listener(address, "AF_UNIX") as listener:
            script = Path(__file__).with_name("worker_jobs.py")
            command = [sys.executable, str(script), address, str(num_ranks)]
            self._ranks = subprocess.Popen(command, env=environment, process_group=0)
            connections: dict[int, Connection] = {}
            while len(connections) < num_ranks:
                connection = listener.accept()
                connections[connection.recv()] = connection
        self._connections = [connections[rank] for rank in range(num_ranks)]

    def run(self, job: str, **arguments: Any) -> list[Any]:
        for connection in self._connections:
            connection.send((job, arguments))
        results, failures = [], []
        for rank, connection in enumerate(self._connections):
            if not connection.poll(JOB_TIMEOUT_S if not failures else 1.0):
                failures.append(f"rank {rank} did not answer within {JOB_TIMEOUT_S:.0f} s")
                continue
            succeeded, value = connection.recv()
            (results if succeeded else failures).append(value)
        if failures:
            self.close()
            raise WorkerError("\n".join(failures))
        return results

    def close(self) -> None:
        """End the processes; those that hang in a collective are killed."""
        if self.closed:
            return
        self.closed = True
        for connection in self._connections:
            connection.close()
        try:
            self._ranks.wait(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(self._ranks.pid, signal.SIGKILL)
            self._ranks.wait()
        self._folder.cleanup()
