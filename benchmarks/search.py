"""How long the search takes, how much of the space it looks at, and what it proves.

python benchmarks/search.py                  every case, then the command as a user runs it
python benchmarks/search.py --case NAME      one case
python benchmarks/search.py --brute          small cases, each against every layout placed and simulated
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy counts the cores

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

MEGATRON: dict[str, Any] = {"runtime": "megatron"}
NODES = str(Path(__file__).parent.parent / "examples" / "cluster.toml")

CASES: dict[str, dict[str, Any]] = {
    "llama-8b/8": {"model": "llama-8b", "gpus": 8},
    "gemma-3-27b/64": {"model": "gemma-3-27b", "gpus": 64},
    "llama-70b/64": {"model": "llama-70b", "gpus": 64},
    "llama-70b 1M/256": {"model": "llama-70b", "gpus": 256, "seq_len": 2**20, "global_batch_size": 4, **MEGATRON},
    "nemotron-h-8b/64": {"model": "nemotron-h-8b", "gpus": 64, **MEGATRON},
    "32 h100 + 64 a100": {"model": "llama-70b", "cluster": NODES},
    "mixtral-8x22b/256": {"model": "mixtral-8x22b", "gpus": 256, **MEGATRON},
    "gpt3-175b/1024": {"model": "gpt3-175b", "gpus": 1024},
    "deepseek-v3/2048": {
        "model": "deepseek-v3", "gpus": 2048, "gpu": "h800", "seq_len": 4096, "global_batch_size": 15360, **MEGATRON
    },
    "gpt-1t/3072": {
        "model": "megatron-gpt-1t", "gpus": 3072, "gpu": "a100-80g", "runtime": "megatron-2021", "seq_len": 2048,
        "global_batch_size": 3072,
    },
    "gpt-1t/3072 h100": {"model": "megatron-gpt-1t", "gpus": 3072},
    "llama-405b 8K/16384": {
        "model": "llama-3.1-405b", "gpus": 16384, "seq_len": 8192, "global_batch_size": 2048, **MEGATRON
    },
    "llama-405b 128K/16384": {
        "model": "llama-3.1-405b", "gpus": 16384, "seq_len": 2**17, "global_batch_size": 128, **MEGATRON
    },
}  # fmt: skip
"""Arguments of ``planner.request.build_request``; H100, the runtime ``torch`` and 4 Mi tokens where nothing is said."""

SMALL: dict[str, dict[str, Any]] = {
    "llama-8b/8": {
        "model": "llama-8b",
        "gpus": 8,
        "fix": ("micro_batch_size=1", "sequence_parallel=true", "zero_stage=1"),
    },
    "llama-70b/32": {"model": "llama-70b", "gpus": 32, "fix": ("tp=4", "micro_batch_size=1", "sequence_parallel=true")},
    "qwen3-30b-a3b/16": {"model": "qwen3-30b-a3b", "gpus": 16, "fix": ("tp=1", "micro_batch_size=1"), **MEGATRON},
}
"""Spaces in which every layout can be placed and simulated."""

COMMAND = ("--model", "llama-70b", "--gpus", "64")

BLOCK = 12288
"""Layouts priced at a time: more share what a block costs, until their columns leave the cache."""


def measure_case(name: str, repeat: int) -> dict[str, Any]:
    """One case in this process: its plan, the median of its searches, and the time to price the whole space."""
    from planner.request import build_request
    from planner.search.find import find_plan

    request = build_request(**CASES[name], calibration="none")
    spans = []
    for _ in range(repeat):
        span_s, plan = _timed(lambda: find_plan(request))
        spans.append(span_s)
    # The peak of the search, not of what is timed beside it. Linux counts in kibibytes, macOS in bytes.
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    rates = [] if request.other_devices else [price_all(request) for _ in range(repeat)]
    certificate = plan.certificate
    return {
        "name": name,
        "layouts": certificate.considered,
        "evaluated": certificate.evaluated,
        "wall_s": median(spans),
        "priced_per_s": median(rates) if rates else None,
        "gap": certificate.gap,
        "status": certificate.status,
        "step_s": plan.prediction.step_time_s.mean,
        "peak_bytes": peak_bytes,
    }


def price_all(request: Any) -> float:
    """Layouts priced per second of the processor's time: full step time in closed form and every stage's peak memory of
    every layout of the space, nothing recomputed, layers lowered and priced within the time."""
    import numpy as np

    from planner.problem import Problem
    from planner.search.scan import PricedSpace
    from planner.search.space import enumerate_space

    problem, space = Problem.from_request(request), enumerate_space(request)

    start_s = time.process_time()
    priced = PricedSpace(problem, space)
    for start in range(0, len(space), BLOCK):
        found = priced.price_uniform(np.arange(start, min(start + BLOCK, len(space))), 0)
        assert len(found.step_time_s) == len(found.peak_claim_bytes) == len(found.claim_bytes)
    return len(space) / (time.process_time() - start_s)


def compare_with_all(name: str) -> None:
    """The search's answer beside the fastest of all layouts, each placed and simulated without a limit to beat."""
    import numpy as np

    from planner.problem import Problem
    from planner.request import build_request
    from planner.search.best_first import search

    request = build_request(**SMALL[name], calibration="none", gap=0.0)
    outcome = search(request, Problem.from_request(request))
    run, best = outcome.run, outcome.best
    if run is None or best is None:
        print(f"{name:<19}nothing fits")
        return
    placed = (run.place(number, np.inf) for number in range(len(outcome.space)))
    span_s, steps_s = _timed(lambda: [one.step_s for one in placed])
    fastest_s = min(steps_s)
    agrees = abs(best.step_time_s - fastest_s) <= 1e-9 * fastest_s
    print(
        f"{name:<19}{len(steps_s):>9}{best.step_time_s:>11.4f} s{outcome.wall_s:>8.2f} s{fastest_s:>13.4f} s"
        f"{span_s:>8.1f} s   {'the same' if agrees else 'differs'}",
        flush=True,
    )


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


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
        f"median of {repeat} searches; {platform.machine()}, one of {os.cpu_count()} cores,"
        f" Python {platform.python_version()}"
    )
    print("priced/s: layouts with full step time and every stage's memory, per CPU second; peak: resident memory\n")
    print(
        f"{'case':<22}{'layouts':>9}{'evaluated':>11}{'search':>10}{'priced/s':>10}{'gap':>8}  {'status':<9}"
        f"{'step':>10}{'peak':>10}"
    )


def _print_row(row: dict[str, Any]) -> None:
    rate = "-" if row["priced_per_s"] is None else f"{row['priced_per_s']:.0f}"
    print(
        f"{row['name']:<22}{row['layouts']:>9}{row['evaluated']:>11}{row['wall_s']:>8.2f} s{rate:>10}"
        f"{row['gap']:>8.2%}  {row['status']:<9}{row['step_s']:>8.2f} s{row['peak_bytes'] / 2**20:>6.0f} MiB",
        flush=True,
    )


def _print_brute() -> None:
    print(f"{'case':<19}{'layouts':>9}{'search says':>13}{'in':>9}{'fastest of all':>15}{'in':>10}")
    for name in SMALL:
        compare_with_all(name)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, help="this one only", metavar="NAME")
    parser.add_argument("--repeat", type=int, default=3, help="searches per case (default 3)")
    parser.add_argument("--json", action="store_true", help="with --case: its figures as JSON")
    parser.add_argument("--brute", action="store_true", help="small cases against every layout placed and simulated")
    options = parser.parse_args(arguments)
    if options.repeat < 1:
        parser.error("--repeat must be 1 or more")
    if options.brute:
        _print_brute()
        return
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
