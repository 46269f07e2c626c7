"""Measured beside simulated: every schedule on four gloo ranks of this machine, its passes paced.

python benchmarks/paced.py                      every registered schedule, 8 micro-batches, a few minutes
python benchmarks/paced.py zb-v 1f1b --steps 9  only these, the median of more steps

Each pass does its work and then sleeps up to a prescribed time that dominates it, so that processes which share two
cores behave as devices of their own. Makespan is the first pass's start to the last one's end over all ranks, the
median of the steps after the first. Simulated: the same order with the prescribed times and, on every edge between two
ranks, what a send takes: half of a measured round trip of an activation between ranks that pause as passes do.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from costmodel.schema.plan import Plan

RANKS = 4
SEQ_LEN = 16
"""Short, so that a layer's own work is a small part of its paced time."""
ROUND_TRIPS = 20


def paced_plans(names: Sequence[str], num_microbatches: int, recompute: str) -> dict[str, Plan]:
    """The model `tiny` under each schedule, its layers spread evenly over the stages of a copy."""
    from costmodel.even_split import even_split
    from costmodel.schema.layout import Layout
    from costmodel.schema.plan import Pipeline
    from planner.predict import predict_plan
    from planner.request import build_request
    from planner.schedules import SCHEDULES, build_schedule

    request = build_request(
        "tiny", RANKS, gpu="cpu", seq_len=SEQ_LEN, global_batch_size=num_microbatches, calibration="none"
    )
    base = predict_plan(request, Layout(pp=RANKS, num_microbatches=num_microbatches), "1f1b", recompute)
    plans = {}
    for name in names:
        vpp = SCHEDULES[name].vpp
        order = build_schedule(name, RANKS, num_microbatches, vpp)
        lengths = tuple(even_split(base.model.num_layers, order.stages_per_copy))
        stages = [stage for stage, length in enumerate(lengths) for _ in range(length)]
        pipeline = Pipeline(
            schedule=name,
            num_stages=order.num_stages,
            stage_to_rank=order.stage_to_rank,
            layers_per_stage=lengths * order.copies,
            passes=order.to_text(),
            copies=order.copies,
        )
        layers = tuple(
            layer.model_copy(update={"stage": stage}) for layer, stage in zip(base.layers, stages, strict=True)
        )
        layout = base.layout.model_copy(update={"vpp": vpp})
        plans[name] = base.model_copy(update={"layout": layout, "pipeline": pipeline, "layers": layers})
    return plans


def simulated_s(plan: Plan, unit_s: float, send_s: float) -> float:
    """The makespan when F, I and W of a layer, its recomputation and a pass on a part of the vocabulary take ``unit_s``
    each, a send ``send_s``, and a collective over the ranks a send for each level of a binary tree.
    """
    import numpy as np

    from costmodel.schema.schedule import VOCAB_KINDS
    from planner.simulator import StageTimes, VocabTimes, simulate

    pass_s = unit_s * np.array(plan.pipeline.layers_per_stage)
    again_s = pass_s if plan.layers[0].recompute == "full" else 0.0
    schedule, vocab = plan.schedule(), None
    if schedule.kinds & VOCAB_KINDS:
        passes = ("embed_forward_s", "embed_backward_s", "forward_s", "backward_s", "weight_grad_s")
        joint = ("embedded_s", "statistics_s", "vocab_gradient_s", "broadcast_s")
        tree_s = math.ceil(math.log2(RANKS)) * send_s
        vocab = VocabTimes(**dict.fromkeys(passes, np.array(unit_s)), **dict.fromkeys(joint, np.array(tree_s)))
    return simulate(schedule, StageTimes(pass_s, pass_s, pass_s, again_s, edge_s=send_s, vocab=vocab)).makespan_s


def measured(plans: Mapping[str, Plan], steps: int, unit_s: float) -> dict[str, Any]:
    """{"send_s": seconds, "makespans_s": {name: one per step}}. Raises RuntimeError with what the ranks said."""
    with tempfile.TemporaryDirectory(prefix="parlay-") as folder:
        given, taken = Path(folder) / "plans.json", Path(folder) / "measured.json"
        given.write_text(json.dumps({name: plan.model_dump(mode="json") for name, plan in plans.items()}))
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={RANKS}"]
        worker = [__file__, "--worker", str(given), str(taken), "--steps", str(steps), "--unit", str(unit_s)]
        done = subprocess.run([*command, *worker], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"the ranks ended with status {done.returncode}:\n{done.stdout}{done.stderr}")
        result: dict[str, Any] = json.loads(taken.read_text())
        return result


def work(given: Path, taken: Path, steps: int, unit_s: float) -> None:
    """One rank: run every plan for a step of warm-up and ``steps`` more; rank 0 writes what was measured."""
    import torch
    import torch.distributed as dist

    from costmodel.schema.plan import Plan

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    plans = {name: Plan.model_validate(plan) for name, plan in json.loads(given.read_text()).items()}
    send_s = _send_s(next(iter(plans.values())).model.hidden_size, unit_s)
    makespans_s = {name: _makespans_s(plan, steps, unit_s) for name, plan in plans.items()}
    if dist.get_rank() == 0:
        taken.write_text(json.dumps({"send_s": send_s, "makespans_s": makespans_s}))
    dist.destroy_process_group()


def _send_s(hidden_size: int, pause_s: float) -> float:
    """Seconds in which one activation gets from a rank to the next, each having slept before it sends."""
    import torch
    import torch.distributed as dist

    message, spans, rank = torch.zeros(1, SEQ_LEN, hidden_size), [], dist.get_rank()
    peer = rank ^ 1
    for _ in range(ROUND_TRIPS):
        start_s = time.perf_counter()
        if rank < peer:
            time.sleep(pause_s)
            dist.send(message, peer)
            dist.recv(message, peer)
        else:
            dist.recv(message, peer)
            time.sleep(pause_s)
            dist.send(message, peer)
        spans.append(time.perf_counter() - start_s - 2 * pause_s)
    return statistics.median(spans[1:]) / 2


def _makespans_s(plan: Plan, steps: int, unit_s: float) -> list[float]:
    import torch
    import torch.distributed as dist

    from executor import apply_plan
    from executor.model import Llama

    with torch.device("meta"):
        model = Llama(plan.model)
    parallel = apply_plan(model, plan)
    parallel.clock.unit_s = unit_s
    shape = plan.workload.global_batch_size, plan.workload.seq_len
    tokens = torch.zeros(shape, dtype=torch.int64)
    makespans_s = []
    for _ in range(1 + steps):
        parallel.clock.events.clear()
        dist.barrier()
        parallel.step(tokens, tokens)
        own = [(event.start_s, event.start_s + event.duration_s) for event in parallel.clock.events]
        spans: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(spans, own)
        starts_s, ends_s = zip(*(span for part in spans for span in part), strict=True)
        makespans_s.append(max(ends_s) - min(starts_s))
    return makespans_s[1:]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("schedules", nargs="*", help="default: all")
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each schedule (default 5)")
    parser.add_argument("--microbatches", type=int, default=8, metavar="M", help="default 8")
    parser.add_argument("--unit", type=float, default=0.04, metavar="S", help="F of one layer, in seconds (0.04)")
    parser.add_argument("--recompute", choices=("none", "full"), default="none", help="of every layer (default none)")
    parser.add_argument("--worker", nargs=2, metavar=("PLANS", "RESULT"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        given, taken = map(Path, options.worker)
        work(given, taken, options.steps, options.unit)
        return

    from importlib.metadata import version

    from planner.schedules import SCHEDULES, canonical_name

    names = [canonical_name(name) for name in options.schedules] or list(SCHEDULES)
    plans = paced_plans(names, options.microbatches, options.recompute)
    result = measured(plans, options.steps, options.unit)
    send_s = result["send_s"]
    print(
        f"p = {RANKS}, m = {options.microbatches}, F = I = W = {options.unit * 1e3:g} ms a layer, "
        f"recompute {options.recompute}, {send_s * 1e3:.2f} ms a send; median of {options.steps} steps"
    )
    print(f"{platform.machine()}, PyTorch {version('torch')}, gloo, {datetime.date.today()}\n")
    print(f"{'schedule':<24}{'measured, ms':>14}{'simulated, ms':>15}{'ratio':>8}")
    ratios = []
    for name, plan in plans.items():
        span_s = statistics.median(result["makespans_s"][name])
        expected_s = simulated_s(plan, options.unit, send_s)
        ratios.append(span_s / expected_s)
        print(f"{name:<24}{span_s * 1e3:>14.1f}{expected_s * 1e3:>15.1f}{ratios[-1]:>8.3f}")
    worst = max(ratios, key=lambda ratio: abs(ratio - 1))
    print(f"\nfurthest from the simulation: x {worst:.3f}")


if __name__ == "__main__":
    main()
