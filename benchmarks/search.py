"""How long the search takes, how much of the space it looks at, and what it proves.

python benchmarks/search.py                  every case, then the command as a user runs it
python benchmarks/search.py --case NAME      one case
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[1]

CASES: dict[str, dict[str, Any]] = {
    "llama-8b/8": {"model": "llama-8b", "gpus": 8},
    "gemma-3-27b/64": {"model": "gemma-3-27b", "gpus": 64},
    "llama-70b/64": {"model": "llama-70b", "gpus": 64},
    "mixtral-8x22b/256": {"model": "mixtral-8x22b", "gpus": 256, "runtime": "megatron"},
    "llama-3.1-405b/1024": {"model": "llama-3.1-405b", "gpus": 1024},
    "gpt3-175b/1024": {"model": "gpt3-175b", "gpus": 1024},
    "gpt-1t/3072": {
        "model": "megatron-gpt-1t", "gpus": 3072, "gpu": "a100-80g", "runtime": "megatron-2021", "seq_len": 2048,
        "global_batch_size": 3072,
    },
    "llama-70b/h100+a100": {"model": "llama-70b", "cluster": ROOT / "examples" / "cluster.toml"},
}  # fmt: skip
"""Arguments of ``planner.request.build_request``; H100, the runtime ``torch`` and 4 Mi tokens where nothing is said."""

COMMAND = ("--model", "llama-70b", "--gpus", "64")


def measure_case(name: str, repeat: int) -> dict[str, Any]:
    """One case in this process: its plan, the median of its searches, and the time to bound the whole space."""
    from planner.request import build_request
    from planner.search.find import find_plan

    request = build_request(**CASES[name], calibration="none")
    spans = []
    for _ in range(repeat):
        span_s, plan = _timed(lambda: find_plan(request))
        spans.append(span_s)
    bounding_s = median(_timed(lambda: _bound_all(request))[0] for _ in range(repeat))
    certificate = plan.certificate
    return {
        "name": name,
        "layouts": certificate.considered,
        "evaluated": certificate.evaluated,
        "wall_s": median(spans),
        "bounding_s": bounding_s,
        "gap": certificate.gap,
        "status": certificate.status,
        "step_s": plan.prediction.step_time_s.mean,
        # Linux counts in kibibytes, macOS in bytes.
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024),
    }


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def _bound_all(request: Any) -> None:
    """Enumerate, price every layer, and bound memory and time of every layout."""
    from planner.problem import Problem
    from planner.search.policies import policy_sets
    from planner.search.scan import PricedSpace, Scan
    from planner.search.space import enumerate_space

    problem = Problem.from_request(request)
    if problem.others:
        _bound_groups(request, problem)
        return
    policies = tuple(sorted({policy for one in policy_sets(request) for policy in one}))
    scan = Scan(problem, PricedSpace(problem, enumerate_space(request)), policies, float("inf"))
    for rows in scan.blocks():
        scan.look(rows, float("inf"))


def _bound_groups(request: Any, problem: Any) -> None:
    """The same over unlike groups of nodes."""
    from planner.search.groups.best_first import MixedOutcome, MixedRun
    from planner.search.groups.bounds import estimate_after_s, estimate_floor_s, held_shares
    from planner.search.groups.space import enumerate_mixed

    run = MixedRun(request, problem, MixedOutcome(enumerate_mixed(request)), 0.0, None)
    held_shares(run.rows, run.policies, run.budgets)
    estimate_floor_s(run.rows, run.policies, estimate_after_s(run.rows, run.policies))


def _in_own_process(name: str, repeat: int) -> dict[str, Any]:
    """A process of its own, so that its peak memory is the case's alone."""
    arguments = [sys.executable, __file__, "--case", name, "--repeat", str(repeat), "--json"]
    done = subprocess.run(arguments, check=True, capture_output=True, text=True)
    row: dict[str, Any] = json.loads(done.stdout)
    return row


def time_command_s(repeat: int) -> list[float]:
    """Seconds from starting ``plan`` to its end, as a user waits for it."""
    command = [sys.executable, "-m", "planner.cli.main", *COMMAND]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "check": True}
    return [_timed(lambda: subprocess.run(command, **quiet))[0] for _ in range(repeat)]


def _print_head(repeat: int) -> None:
    print(
        f"median of {repeat} searches; {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    )
    print("bounded/s: layouts enumerated, priced and bounded in time and memory, per second; peak: resident memory\n")
    print(
        f"{'case':<21}{'layouts':>9}{'evaluated':>11}{'search':>10}{'bounded/s':>11}{'gap':>8}  {'status':<9}"
        f"{'step':>9}{'peak':>10}"
    )


def _print_row(row: dict[str, Any]) -> None:
    print(
        f"{row['name']:<21}{row['layouts']:>9}{row['evaluated']:>11}{row['wall_s']:>8.2f} s"
        f"{row['layouts'] / row['bounding_s']:>11.0f}{row['gap']:>8.2%}  {row['status']:<9}"
        f"{row['step_s']:>7.2f} s{row['peak_bytes'] / 2**20:>6.0f} MiB",
        flush=True,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, help="this one only", metavar="NAME")
    parser.add_argument("--repeat", type=int, default=3, help="searches per case (default 3)")
    parser.add_argument("--json", action="store_true", help="with --case: its figures as JSON")
    options = parser.parse_args(arguments)
    if options.repeat < 1:
        parser.error("--repeat must be 1 or more")
    if options.case and options.json:
        print(json.dumps(measure_case(options.case, options.repeat)))
        return
    _print_head(options.repeat)
    for name in [options.case] if options.case else CASES:
        _print_row(_in_own_process(name, options.repeat))
    if not options.case:
        spans = time_command_s(options.repeat + 2)
        print(f"\nplan {' '.join(COMMAND)}, the whole process: {median(spans):.2f} s (median of {len(spans)})")


if __name__ == "__main__":
    main()
