"""Orders found for given times and memory, beside the best published schedule under the same cap and the bound.

python benchmarks/synthesis.py                the whole grid (an hour on one core)
python benchmarks/synthesis.py --quick        a few cells of every kind
python benchmarks/synthesis.py --ranks 8      the cells of 8 ranks
python benchmarks/synthesis.py --exact        tiny problems against the integer program

Caps run from V-Min's peak, rounded up, to twice 1F1B's. Uneven stages are those of real models, split evenly by layers:
embedding and head weigh on the ends, and layers don't divide.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from planner.synthesis import OrderProblem

UNIFORM = {
    "1:1:1:0": (1.0, 1.0, 1.0, 0.0),
    "29850:29767:18868:466": (29850.0, 29767.0, 18868.0, 466.0),
    "1:1.25:0.75:0.1": (1.0, 1.25, 0.75, 0.1),
}
"""F:I:W:comm of all of a rank's layers; the second is the zero-bubble authors' measured example."""

MODELS = ("llama-8b", "llama-70b", "mixtral-8x7b", "deepseek-v3")
TP = 8
"""Tensor parallel ranks of every stage of a model, on H100 nodes of eight."""

RANKS = (4, 8, 16, 32)
PER_RANK = (1, 2, 4)
"""Micro-batches a rank."""

V_MIN_PEAK = {4: 3, 8: 4, 16: 6, 32: 12}
CAPS = (0.5, 0.75, 1.0, 1.5, 2.0)
"""In multiples of 1F1B's peak."""

QUICK = {
    ("1:1:1:0", 8, 16, 4), ("1:1:1:0", 8, 16, 8), ("1:1:1:0", 16, 32, 6),
    ("29850:29767:18868:466", 8, 32, 4), ("29850:29767:18868:466", 8, 32, 8), ("29850:29767:18868:466", 8, 32, 16),
    ("1:1.25:0.75:0.1", 8, 16, 4), ("1:1.25:0.75:0.1", 8, 32, 8), ("1:1.25:0.75:0.1", 16, 32, 16),
    ("llama-8b", 8, 16, 8), ("llama-70b", 8, 16, 4), ("llama-70b", 8, 16, 8), ("mixtral-8x7b", 8, 16, 8),
    ("deepseek-v3", 8, 16, 8), ("deepseek-v3", 16, 32, 16),
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """``cap`` in micro-batches of all of a rank's layers (the mean rank's, for a model)."""

    case: str
    pp: int
    num_microbatches: int
    cap: float


def cells(quick: bool, cases: Sequence[str], ranks: Sequence[int]) -> Iterator[Cell]:
    """The grid, or the quick part of it."""
    for case in cases:
        for pp in ranks:
            caps = sorted({V_MIN_PEAK.get(pp, pp // 3 + 1), *(max(1, round(share * pp)) for share in CAPS)})
            for per_rank in PER_RANK:
                for cap in caps:
                    if not quick or (case, pp, per_rank * pp, cap) in QUICK:
                        yield Cell(case, pp, per_rank * pp, cap)


def problems(cell: Cell) -> list[OrderProblem]:
    """The cell with one stage a rank, and with two, there and back and round and round."""
    from costmodel.placement import looped, zigzag
    from costmodel.schema.errors import Infeasible
    from planner.synthesis import OrderProblem

    found = []
    for placement in (looped(cell.pp, 1), zigzag(cell.pp, 2), looped(cell.pp, 2)):
        priced = stages_of(cell, placement)
        if priced is None:
            continue
        times, weights = priced
        try:
            found.append(OrderProblem(placement, cell.num_microbatches, times, cell.cap, weights))
        except Infeasible:
            # A rank of a model may hold more layers than the mean one, and then its micro-batch may not fit.
            continue
    return found


def stages_of(cell: Cell, stage_to_rank: tuple[int, ...]) -> tuple[Any, tuple[float, ...] | None] | None:
    """(StageTimes, weight of each stage); None where a model has fewer layers than stages."""
    from costmodel.placement import zigzag
    from planner.simulator import StageTimes

    vpp = len(stage_to_rank) // cell.pp
    if cell.case in UNIFORM:
        f, i, w, comm = UNIFORM[cell.case]
        return StageTimes.uniform(cell.pp * vpp, f / vpp, i / vpp, w / vpp, comm), None
    from costmodel.even_split import even_split
    from costmodel.layer_table import price_layers
    from costmodel.layouts import Layouts
    from costmodel.schema.layout import Layout
    from planner.evaluate import stage_times
    from planner.placement import Placement
    from planner.problem import Problem
    from planner.request import build_request

    request = build_request(cell.case, TP * cell.pp, gpu="h100", seq_len=4096, global_batch_size=cell.num_microbatches)
    problem = Problem.from_request(request)
    total = len(problem.kinds)
    if total < cell.pp * vpp:
        return None
    lengths = tuple(int(length) for length in even_split(total, cell.pp * vpp))
    layout = Layout(tp=TP, pp=cell.pp, vpp=vpp, num_microbatches=cell.num_microbatches)
    # Any schedule of the placement will do: times are those of its stages.
    there_and_back = "zb-v" if stage_to_rank == zigzag(cell.pp, vpp) else "interleaved-1f1b"
    schedule = "1f1b" if vpp == 1 else there_and_back
    layers = price_layers(problem.setting, problem.network, Layouts.from_rows([(layout, schedule)]))
    placement = Placement(layout, schedule, lengths, (0,) * total)
    return stage_times(layers, placement, problem), tuple(length * cell.pp / total for length in lengths)


def run(cell: Cell, effort: float) -> dict[str, Any] | None:
    """Best order found over the cell's placements, best published schedule, bound; None where nothing fits."""
    from planner.synthesis import synthesize
    from planner.synthesis.synthesize import best_generator

    posed = problems(cell)
    if not posed:
        return None
    start = time.perf_counter()
    found = [synthesize(problem, effort) for problem in posed]
    seconds = time.perf_counter() - start
    best = min(found, key=lambda one: one.makespan)
    rivals = [one for one in map(best_generator, posed) if one is not None]
    rival = min(rivals, key=lambda one: one.makespan) if rivals else None
    return {
        "best": best,
        "bound": min(one.lower_bound for one in found),
        "rival": rival,
        "seconds": seconds / len(posed),
        "bubble": 1.0 - _busy(best) / (best.makespan * cell.pp),
    }


def _busy(found: Any) -> float:
    times = found.problem.times
    return float((times.forward_s + times.input_grad_s + times.weight_grad_s).sum()) * found.problem.num_microbatches


def _print_grid(options: argparse.Namespace) -> None:
    print("found and published: makespan over the bound; better: found before the best published one under the cap")
    print(f"{'F:I:W:comm or model':<23}{'p':>3}{'m':>5}{'cap':>5}{'bubble':>8}{'found':>7}{'published':>11}"
          f"{'better':>8}  {'from':<30}{'s':>6}")  # fmt: skip
    counts = {"better": 0, "equal": 0, "worse": 0, "nothing published fits": 0}
    uneven: list[float] = []
    for cell in cells(options.quick, options.cases, options.ranks):
        row = run(cell, options.effort)
        head = f"{cell.case:<23}{cell.pp:>3}{cell.num_microbatches:>5}{cell.cap:>5g}"
        if row is None:
            print(f"{head}  one micro-batch of the heaviest rank does not fit")
            continue
        best, rival, bound = row["best"], row["rival"], row["bound"]
        vpp = best.problem.num_stages // cell.pp
        shown = f"{head}{row['bubble']:8.4f}{best.makespan / bound:7.3f}"
        if rival is None:
            counts["nothing published fits"] += 1
            print(f"{shown}{'-':>11}{'':8}  {best.family + f', v={vpp}':<30}{row['seconds']:6.1f}")
            continue
        gain = rival.makespan / best.makespan - 1.0
        counts["better" if gain > 1e-9 else "worse" if gain < -1e-9 else "equal"] += 1
        if cell.case in MODELS:
            uneven.append(gain)
        print(f"{shown}{rival.makespan / bound:7.3f} {rival.family[:12]:<8}{gain:7.1%}  "
              f"{best.family + f', v={vpp}':<30}{row['seconds']:6.1f}")  # fmt: skip
    print("; ".join(f"{count} {what}" for what, count in counts.items()))
    if uneven:
        print(f"models: faster by {sum(uneven) / len(uneven):.1%} on average, {max(uneven):.1%} at most")


def _print_exact() -> None:
    """Found against proven optimal makespan on seeded tiny problems."""
    from random import Random

    from costmodel.placement import looped, zigzag
    from planner.simulator import StageTimes
    from planner.synthesis import OrderProblem, synthesize
    from planner.synthesis.exact import solve_exactly
    from planner.synthesis.lines import lines_of, to_orders
    from planner.synthesis.timing import time_orders

    random = Random(1)
    print(
        f"{'p':>3}{'v':>3}{'m':>3}{'cap':>5}  {'split':<6}{'found':>8}{'optimal':>9}{'bound':>8}{'s':>7}"
        f"{'program s':>11}"
    )
    agree = proven = 0
    for placement, pp, m, cap, splits in [
        (looped(2, 1), 2, 4, 2.0, True), (looped(3, 1), 3, 3, 2.0, True), (looped(3, 1), 3, 4, 2.0, True),
        (looped(3, 1), 3, 4, 3.0, True), (looped(3, 1), 3, 5, 2.0, False), (looped(4, 1), 4, 4, 3.0, True),
        (zigzag(2, 2), 2, 3, 1.5, True), (zigzag(2, 2), 2, 3, 2.0, True), (looped(2, 2), 2, 3, 2.0, True),
        (zigzag(3, 2), 3, 2, 1.0, True), (zigzag(2, 2), 2, 4, 1.5, False),
    ] * 2:  # fmt: skip
        stages = len(placement)
        columns = [[float(random.randint(1, 9)) for _ in range(stages)] for _ in range(3)]
        times = StageTimes(*columns, edge_s=random.choice((0.0, 0.5, 2.0)))
        problem = OrderProblem(placement, m, times, cap, splits_backward=splits)
        start = time.perf_counter()
        found = synthesize(problem)
        middle = time.perf_counter()
        incumbent = time_orders(lines_of(problem), to_orders(found.schedule, splits) or [])
        assert incumbent is not None
        exact = solve_exactly(problem, incumbent, seconds=60.0)
        end = time.perf_counter()
        optimum = f"{exact.timing.makespan:9g}" if exact.optimal and exact.timing else "  unproven"
        proven += exact.optimal
        agree += exact.optimal and exact.timing is not None and found.makespan <= exact.timing.makespan * (1 + 1e-6)
        print(f"{pp:>3}{stages // pp:>3}{m:>3}{cap:>5g}  {'I, W' if splits else 'B':<6}{found.makespan:8g}{optimum}"
              f"{found.lower_bound:8g}{middle - start:7.2f}{end - middle:11.2f}")  # fmt: skip
    print(f"{agree} of {proven} proven optima found")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few cells of every kind")
    parser.add_argument("--exact", action="store_true", help="tiny problems against the integer program")
    parser.add_argument(
        "--cases", nargs="+", default=[*UNIFORM, *MODELS], choices=[*UNIFORM, *MODELS], help="default all"
    )
    parser.add_argument("--ranks", type=int, nargs="+", default=RANKS, help="pipeline ranks (default 4 8 16 32)")
    parser.add_argument("--effort", type=float, default=1.0, help="of each search (default 1)")
    options = parser.parse_args(arguments)
    if options.exact:
        _print_exact()
    else:
        _print_grid(options)


if __name__ == "__main__":
    main()
