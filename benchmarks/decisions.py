"""What decisions cost and say: the time of a scaling curve, the goodput of its plans, the fewest GPUs for deadlines.

python benchmarks/decisions.py                       the curve of llama-70b on 8..1024 H100, the goodput on it, and how
                                                     many H100 train it on 15T tokens in 30, 60, 120 and 365 days
python benchmarks/decisions.py --gpus 8..64          another curve
python benchmarks/decisions.py --deadlines 90d,1y    other deadlines
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Sequence

from costmodel.schema.errors import Infeasible
from costmodel.schema.plan import Plan
from planner.decisions.counts import parse_counts
from planner.decisions.curve import find_point, pareto_front
from planner.decisions.failures import Reliability, estimate_goodput
from planner.decisions.fewest import find_fewest
from planner.decisions.question import Question, build_question
from planner.decisions.units import duration
from planner.request import Request, build_request
from planner.search import find_plan
from planner.sizes import Sizes

MODEL = "llama-70b"
TOKENS = "15T"
NODE = 8


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


def print_fewest(deadlines: Sequence[str]) -> None:
    """One line per deadline: the fewest GPUs or why none, what is known of the others, and what finding out cost."""
    print(f"\nthe fewest H100 that train {MODEL} on {TOKENS} tokens in time\n")
    for deadline in deadlines:
        began, cpu = time.perf_counter(), time.process_time()
        try:
            curve = find_fewest(find_plan, ask, Sizes(NODE), build_question(tokens=TOKENS, deadline=deadline))
            assert curve.chosen is not None
            said = [f"{curve.chosen.devices:,} GPUs, {duration(curve.chosen.figures[0])}", curve.said]
        except Infeasible as error:
            said = [error.message, *error.reasons, error.hint]
        print(
            f"{deadline:>6}{time.perf_counter() - began:>8.2f} s, {time.process_time() - cpu:.2f} s of processor time"
        )
        print("".join(f"{'':>8}{sentence}\n" for sentence in said), end="")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", default="8..1024", help="numbers of GPUs (default 8..1024)")
    parser.add_argument("--deadlines", default="30d,60d,120d,365d", help="deadlines (default 30d,60d,120d,365d)")
    options = parser.parse_args(arguments)
    print_goodput(print_curve(parse_counts(options.gpus)))
    print_fewest(options.deadlines.split(","))


if __name__ == "__main__":
    main()
