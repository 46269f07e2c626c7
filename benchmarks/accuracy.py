"""The cost model against a table of published training steps: time, memory, out-of-memory, choice of layout.

    python benchmarks/accuracy.py --table RUNS.csv [--leave-out [--ops OPS.csv]] [--attainable]
        [--by COLUMN] [--worst N]

Under the shipped fit: error of step time by source, and the mean over sources; how many measurements the 90% interval
holds; memory by kind; out-of-memory outcomes, and how many rows of each P(fits) ran; and within each sweep of layouts
how much slower the layout that the model ranks first was than the best measured, with the rank correlation. Then two
reckonings without a cost model.

``--leave-out`` fits the catalog's parameters anew, once to all rows and once without each source, and prints the error
and the coverage for the source that the fit has not seen; the errors of memory of each source likewise; and the
out-of-memory outcomes of each model with that model's own rows left out. It takes some minutes, with ``--memory-only``
a quarter of one. ``--ops`` names a table of measured operations that takes part in all fits of time.
``--attainable`` corrects each source's predictions by its own rows, from a factor for each value of a column to one for
each distinct layer, and prints what choosing would then cost; and counts the rows that took longer than others of the
same kind with more work.
``--by`` also groups the errors by a column of the table (gpu, precision, tp, pp, micro_batch, hidden, recompute, …);
``--worst`` prints the groups with the largest regret and the rows that are furthest off. ``--write PAGE`` puts what was
printed between the page's markers ``accuracy``, ``attainable``, ``baselines``, ``memory left out`` and ``left out``;
``--rows FILE`` writes every run beside its price: ``planner/validation/data/runs.csv``, which the dashboard shows.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from blocks import write_block

if TYPE_CHECKING:
    from planner.validation.operation import MeasuredOperation
    from planner.validation.result import PricedRow
    from planner.validation.row import MeasuredRow
    from planner.validation.summary import Errors


def print_errors(title: str, groups: dict[str, Errors]) -> None:
    print(f"\n{title:<36} {'rows':>6} {'median':>7} {'mean':>7} {'bias':>7}")
    for name, errors in groups.items():
        print(f"{name[:36]:<36} {errors.count:>6} {errors.median:>7.1%} {errors.mean:>7.1%} {errors.bias:>+7.1%}")


def print_mean(groups: dict[str, Errors]) -> None:
    median = statistics.mean(one.median for one in groups.values())
    mean = statistics.mean(one.mean for one in groups.values())
    print(f"{'mean of the sources':<36} {'':>6} {median:>7.1%} {mean:>7.1%}")


def print_fitted(results: list[PricedRow], by: list[str], worst: int) -> None:
    """Everything that needs no fit of its own."""
    from planner.validation.summary import group_errors, summarise, telling_rows

    summary = summarise(results)
    print(f"{summary.priced} of {summary.rows} rows priced, under the shipped fit")
    print_errors("step time by source", summary.step["source"])
    if summary.pooled is not None:
        print_mean(summary.step["source"])
        print(f"{'all rows pooled':<36} {'':>6} {summary.pooled.median:>7.1%} {summary.pooled.mean:>7.1%}")
        print(f"inside the 90% interval: {summary.covered:.1%}")
    for column in by:
        groups = group_errors(results, lambda result, column=column: str(getattr(result.row, column)))
        print_errors(f"step time by {column}", dict(sorted(groups.items())))
    print_errors("memory by kind", summary.memory)
    if (counted := summary.out_of_memory) is not None:
        print(f"\nout of memory: {counted.ran_predicted} of {counted.ran} that ran, ", end="")
        print(f"{counted.ran_out_predicted} of {counted.ran_out} that did not; ", end="")
        print(f"{counted.accuracy:.1%} right, balanced {counted.balanced_accuracy:.1%}")
        telling = telling_rows(results)
        print_deciles([one.fits_probability or 0.0 for one in telling], [not one.row.oom for one in telling])
    print_regrets(results, worst)
    measured = [result for result in results if result.step_error is not None]
    for result in sorted(measured, key=lambda one: -abs(one.step_error or 0.0))[:worst]:
        print(f"{result.step_error:+.1%}  {result.row.id}  {result.row.model}, {result.row.gpu}: {degrees_of(result)}")


def print_deciles(probabilities: Sequence[float], ran: Sequence[bool]) -> None:
    from planner.validation.deciles import fit_deciles

    print(f"\n{'P(fits)':<14} {'rows':>6} {'mean':>7} {'ran':>7}")
    for one in fit_deciles(probabilities, ran):
        print(f"{f'{one.low:.2f} to {one.high:.2f}':<14} {one.rows:>6} {one.predicted:>7.1%} {one.ran:>7.1%}")


def degrees_of(result: PricedRow) -> str:
    """The degrees above 1 of a row's layout."""
    layout = result.layout
    if layout is None:
        return ""
    names = ("tp", "pp", "vpp", "cp", "ep", "dp", "micro_batch_size", "num_microbatches")
    return " ".join(f"{name} {getattr(layout, name)}" for name in names if getattr(layout, name) > 1)


def print_regrets(results: list[PricedRow], worst: int) -> None:
    from planner.validation.regret import group_regrets, judge_choices

    choices = judge_choices(results)
    print(f"\n{'regret of the chosen layout':<36} {'groups':>6} {'median':>7} {'mean':>7} {'worst':>7} {'ranks':>7}")
    for source, found in group_regrets(choices).items():
        ranks = "" if found.rank_correlation is None else f"{found.rank_correlation:.2f}"
        print(f"{source:<36} {found.groups:>6} {found.median:>7.1%} {found.mean:>7.1%} {found.worst:>7.1%} {ranks:>7}")
    for choice in sorted(choices, key=lambda one: -one.regret)[:worst]:
        print(f"+{choice.regret:.1%}  {choice.title}: {choice.chosen} chosen, {choice.best} was best")


def print_attainable(results: list[PricedRow]) -> None:
    """The ladder of corrections by source, then the rows that contradict any order by work."""
    from planner.validation.attainable import attain_regrets
    from planner.validation.work_order import find_contradictions

    for source, rungs in attain_regrets(results).items():
        print(f"\n{source:<38} {'factors':>7} {'error':>7} {'regret':>7} {'worst':>7}")
        for one in rungs:
            print(f"{one.name:<38} {one.factors:>7} {one.mean_error:>7.1%} ", end="")
            print(f"{one.regrets.mean:>7.1%} {one.regrets.worst:>7.1%}")
    contradictions = find_contradictions(results)
    timed = Counter(result.row.source for result in results if result.row.step_time_s)
    print(f"\n{'slower with no more work':<36} {'rows':>6} {'slower':>7} {'by 5%':>7} {'worst':>7}")
    for source, count in timed.items():
        ratios = [one.ratio for one in contradictions if one.slower.source == source]
        if ratios:
            print(f"{source:<36} {count:>6} {len(ratios):>7} {sum(one > 1.05 for one in ratios):>7} ", end="")
            print(f"{max(ratios) - 1.0:>+7.1%}")


def errors_by_source(sources: Sequence[str], errors: Sequence[float]) -> dict[str, Errors]:
    from planner.validation.summary import Errors

    return {
        source: Errors.of([error for name, error in zip(sources, errors, strict=True) if name == source])
        for source in dict.fromkeys(sources)
    }


def print_left_out(rows: list[MeasuredRow], operations: list[MeasuredOperation]) -> None:
    """Fits of our own: to everything, and without each source of runs."""
    import numpy as np

    from planner.fitting.evidence import join
    from planner.fitting.operations import load_operations
    from planner.fitting.runs import load_runs
    from planner.fitting.solve import fit_evidence, leave_out
    from planner.fitting.spread import left_out_spreads
    from planner.prediction import Z_90

    runs = load_runs(rows)
    if len(set(runs.sources)) < 2:
        sys.exit("--leave-out needs timed rows of at least two sources (column source)")
    evidence = join([runs, load_operations(operations)])
    sources, count = np.array(runs.sources), len(runs.rows)
    _, model = fit_evidence(evidence, lambda line: print(line, file=sys.stderr, flush=True))
    fits = []
    for left in leave_out(evidence, model, sources):
        fits.append(left)
        print(f"without {left.group}", file=sys.stderr, flush=True)
    ratios, spreads = left_out_spreads(runs.corners, sources, model, fits)
    before = evidence.log_ratios(evidence.prior.mean)[:count]
    for title, found in (
        ("the catalog before any fit", before),
        ("fitted to all sources", model.log_ratios[:count]),
        ("each source left out of the fit", ratios),
    ):
        groups = errors_by_source(runs.sources, np.expm1(found).tolist())
        print_errors(title, groups)
        print_mean(groups)
    inside = np.abs(ratios) <= Z_90 * spreads
    by_source = [inside[sources == source].mean() for source in dict.fromkeys(runs.sources)]
    print(f"a source left out: {inside.mean():.1%} of the rows inside the 90% interval, ", end="")
    print(f"{statistics.mean(by_source):.1%} averaged over sources")


def print_memory_left_out(rows: list[MeasuredRow]) -> None:
    """Fits of memory: to everything, and without each source's readings or each model's outcomes."""
    import numpy as np

    from planner.fitting.memory import MemoryEvidence, load_memory_runs

    runs = load_memory_runs(rows)
    evidence = MemoryEvidence(runs)
    model = evidence.solve()
    reading = runs.observed.outcomes == 0
    groups = [row.source if one else f"{row.source}: {row.model}" for row, one in zip(runs.rows, reading, strict=True)]
    unseen = [model.log_figures.copy(), model.log_stds.copy()]
    for places, left in evidence.leave_out(model, groups):
        unseen[0][places], unseen[1][places] = left.log_figures[places], left.log_stds[places]
    kinds = [row.mem_kind or "unknown" for row, one in zip(runs.rows, reading, strict=True) if one]
    for title, (logs, stds) in (
        ("memory, fitted to all rows", (model.log_figures, model.log_stds)),
        ("memory, its source or model left out", unseen),
    ):
        ratios = logs - runs.observed.logs
        print_errors(title, errors_by_source(kinds, np.expm1(ratios[reading]).tolist()))
        names, ran = np.array(groups)[~reading], runs.observed.outcomes[~reading] > 0
        right = (ratios[~reading] < 0) == ran
        for name in dict.fromkeys(names.tolist()):
            here = names == name
            print(f"{name:<36} {here.sum():>6}  {right[here].sum()} outcomes right, {right[here].mean():.1%}")
        print(f"{'all outcomes':<36} {len(right):>6}  {right.sum()} right, {right.mean():.1%}")
        print_deciles(normal_probability(-ratios[~reading] / np.exp(stds[~reading])), ran.tolist())


def normal_probability(values: Sequence[float]) -> list[float]:
    return [statistics.NormalDist().cdf(value) for value in values]


def print_baselines(rows: list[MeasuredRow]) -> None:
    import numpy as np

    from planner.fitting.baselines import constant_mfu_s, half_peak_s
    from planner.fitting.runs import load_runs

    runs = load_runs(rows)
    measured = np.exp(runs.log_measured)
    sources = np.array(runs.sources)
    for title, seconds in (
        ("constant MFU per GPU and precision", constant_mfu_s(runs.evaluated, measured, sources)),
        ("constant MFU, the source left out", constant_mfu_s(runs.evaluated, measured, sources, left_out=True)),
        ("6ND at half of peak, 1F1B bubble", np.array([half_peak_s(one) for one in runs.evaluated])),
    ):
        groups = errors_by_source(runs.sources, (seconds / measured - 1.0).tolist())
        print_errors(title, groups)
        print_mean(groups)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, required=True, help="measured runs (CSV), as plan validate reads them")
    parser.add_argument("--leave-out", action="store_true", help="fit without each source, and predict it")
    parser.add_argument("--ops", type=Path, help="with --leave-out: measured operations (CSV) for all of the fits")
    parser.add_argument("--memory-only", action="store_true", help="with --leave-out: leave the fits of time away")
    parser.add_argument("--attainable", action="store_true", help="what choosing by corrected predictions would cost")
    parser.add_argument("--by", action="append", default=[], help="group the errors by this column, too")
    parser.add_argument("--worst", type=int, default=0, help="print so many of the rows that are furthest off")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put what was printed into this page's blocks, too")
    parser.add_argument("--rows", type=Path, metavar="FILE", help="write each run beside its price, as runs.csv ships")
    arguments = parser.parse_args()

    from planner.cli.files import write_file
    from planner.validation.operation import read_operations
    from planner.validation.pricing import price_rows
    from planner.validation.table import read_table

    rows = read_table(arguments.table)
    priced = price_rows(rows)
    printed = {"accuracy": shown(lambda: print_fitted(priced, arguments.by, arguments.worst))}
    if arguments.attainable:
        printed["attainable"] = shown(lambda: print_attainable(priced))
    printed["baselines"] = shown(lambda: print_baselines(rows))
    if arguments.leave_out:
        operations = read_operations(arguments.ops) if arguments.ops else []
        printed["memory left out"] = shown(lambda: print_memory_left_out(rows))
        if not arguments.memory_only:
            printed["left out"] = shown(lambda: print_left_out(rows, operations))
    if arguments.rows is not None:
        from costmodel.catalog.fit import shipped_fit
        from planner.validation.shipped import write_runs

        write_file(arguments.rows, write_runs(priced, shipped_fit()))
    if arguments.write is not None:
        page = arguments.write.read_text(encoding="utf-8")
        for name, text in printed.items():
            page = write_block(page, name, text)
        write_file(arguments.write, page)


def shown(section: Callable[[], None]) -> str:
    """What a section prints, which is printed too."""
    page = io.StringIO()
    with contextlib.redirect_stdout(page):
        section()
    print(page.getvalue())
    return page.getvalue().strip()


if __name__ == "__main__":
    main()
