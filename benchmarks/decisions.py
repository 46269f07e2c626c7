"""What decisions cost and say: a scaling curve's wall time, and the goodput of its plans.

python benchmarks/decisions.py                  the curve of llama-70b on 8..1024 H100, and the goodput on it
python benchmarks/decisions.py --gpus 8..64     another curve
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Sequence

from costmodel.schema.plan import Plan
from planner.decisions.counts import parse_counts
from planner.decisions.curve import find_point, pareto_front
from planner.decisions.failures import Reliability, estimate_goodput
from planner.decisions.question import Question
from planner.request import Request, build_request
from planner.search import find_plan

MODEL = "llama-70b"


def ask(devices: int | None, batch: int | None = None) -> Request:
    return build_request(MODEL, devices, global_batch_size=batch, calibration="none")


def print_curve(counts: Sequence[int]) -> list[Plan]:
    """One line per number of devices: what was found, and how long the search took. Returns the plans."""
    print(f"{MODEL}; {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    print(f"{'GPUs':>7}{'search':>10}{'gap':>8}{'step':>10}{'tokens/s':>12}{'MFU':>8}{'goodput':>9}  Pareto front")
    points, spans = [], []
    for devices in counts:
        began = time.perf_counter()
        points.append(find_point(find_plan, ask, devices, Question()))
        spans.append(time.perf_counter() - began)
    front = pareto_front(points)
    for point, span_s in zip(points, spans, strict=True):
        if point.plan is None:
            print(f"{point.devices:>7}{span_s:>8.2f} s  {point.why_not}")
            continue
        plan, training = point.answer
        prediction = plan.prediction
        print(
            f"{point.devices:>7}{span_s:>8.2f} s{plan.certificate.gap or 0:>8.2%}{prediction.step_time_s.mean:>8.2f} s"
            f"{prediction.tokens_per_s_per_device * point.devices:>12,.0f}{prediction.mfu:>8.1%}"
            f"{training.goodput.share:>9.2%}  {'*' if point in front else ''}"
        )
    print(f"\nthe whole curve: {sum(spans):.2f} s")
    return [point.plan for point in points if point.plan is not None]


def print_goodput(plans: Sequence[Plan]) -> None:
    """Goodput of each plan, its checkpoints waited for and in the background: interval, and where the rest goes."""
    print("\ngoodput with the defaults of docs/decisions.md: interval of checkpoints, then shares of time\n")
    print(f"{'GPUs':>7}{'checkpoints':>13}{'failure every':>15}{'interval':>11}{'goodput':>9}{'stalls':>8}", end="")
    print(f"{'again':>8}{'restarts':>10}")
    for plan in plans:
        for asynchronous in (False, True):
            goodput = estimate_goodput(plan, Reliability(asynchronous=asynchronous))
            print(
                f"{plan.cluster.num_devices:>7}{'background' if asynchronous else 'waited for':>13}"
                f"{goodput.mtbf_s / 3600:>13.1f} h{goodput.interval_s / 60:>7.1f} min{goodput.share:>9.2%}"
                f"{goodput.checkpoint_share:>8.2%}{goodput.lost_share:>8.2%}{goodput.restart_share:>10.2%}"
            )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", default="8..1024", help="numbers of GPUs (default 8..1024)")
    options = parser.parse_args(arguments)
    print_goodput(print_curve(parse_counts(options.gpus)))


if __name__ == "__main__":
    main()
