"""Bubble, peak activations and speed of the generated schedules, beside published figures.

python benchmarks/schedules.py             the tables, closed forms, then build and simulation times
python benchmarks/schedules.py --repeat 0  the tables and closed forms alone
python benchmarks/schedules.py --paced     run on four gloo ranks, beside the simulation: paced.py
"""

from __future__ import annotations

import argparse
import platform
import time
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

ORIGIN = "zero-bubble authors' generators, independently simulated"
TABLES = Path(__file__).parent / "data" / "zero_bubble.toml"

VPP = {"1f1b": 1, "interleaved-1f1b": 2, "zb-h1": 1, "zb-h2": 1, "zb-v": 2, "v-half": 2, "v-min": 2}
"""Schedule -> stages a rank, in the order of the published columns (there: 1F1B, VPP v=2, ZB1P, ZB2P, ZBV, …)."""

PUBLISHED_PEAK: dict[str, Callable[[int], float]] = {
    "1f1b": lambda p: p,
    "interleaved-1f1b": lambda p: 1.5 * p - 0.5,
    "zb-h1": lambda p: p,
    "zb-h2": lambda p: 2 * p,
    "zb-v": lambda p: p,
    "v-half": lambda p: p / 2 + 1,
    "v-min": lambda p: {8: 4, 16: 6, 32: 12}[p],
}
"""Largest peak over ranks, in micro-batches of all of a rank's layers, for p ranks and m >= 2p. Origin: ORIGIN."""

CHUNKS = {"interleaved-1f1b": (2, 4), "breadth-first": (2, 4), "hanayo": (2, 4, 8), "zeropp": (1, 2)}
"""Schedule -> stages a rank for its closed forms, where several are worth showing (Hanayo: 1, 2 and 4 waves)."""

NOTES = """\
span: bubble inside the longest rank's own first-to-last pass, given where published; peaks published as limits.
bound: no order that keeps at most zb-h2's 2p micro-batches alive from F to W has a smaller span bubble. The authors'
scheduler can count part of an activation as freed by I, so that more W's wait than here."""

TITLES = ("bubble", "publ.", "span", "publ.", "bound", "peak", "publ.")
ROUNDING = 5e-4

TIMED = (
    ("1f1b", 8, 64, 1),
    ("zb-h1", 8, 64, 1),
    ("interleaved-1f1b", 8, 64, 4),
    ("1f1b", 64, 512, 1),
    ("interleaved-1f1b", 32, 128, 2),
    ("breadth-first", 32, 128, 2),
    ("hanayo", 32, 128, 2),
    ("hanayo", 32, 128, 8),
    ("chimera", 32, 128, 1),
    ("bitpipe", 32, 128, 2),
    ("dualpipe", 32, 128, 1),
    ("dualpipe-v", 32, 128, 2),
    ("zeropp", 32, 128, 2),
    ("zb-h2", 32, 128, 1),
    ("zb-v", 32, 128, 2),
    ("v-half", 32, 128, 2),
    ("v-min", 32, 128, 2),
    ("1f1b+2bp", 32, 128, 1),
    ("interleaved-1f1b+2bp", 32, 128, 2),
    ("bitpipe+2bp", 32, 128, 2),
    ("zb-v", 64, 512, 2),
)
"""(schedule, p, m, v) to build and simulate against the clock."""


def bubbles(largest_pp: int = 32) -> list[dict[str, Any]]:
    """One row per schedule and size: ours and theirs, for the iteration, the span (None where not published) and peak;
    for up to ``largest_pp`` ranks.

    ``bound``: the least span bubble that zb-h2's published memory allows; None for others.
    """
    from planner.schedules import PassTimes, build_schedule
    from planner.schedules.report import schedule_summary
    from planner.schedules.zb_h2 import least_span

    rows = []
    data = tomllib.loads(TABLES.read_text())
    for table in data["table"]:
        times = tuple(table["times"].values())
        for figures in table["rows"]:
            published = dict(zip(data["columns"], figures, strict=True))
            pp, m = published["p"], published["m"]
            if pp > largest_pp:
                continue
            for name, vpp in VPP.items():
                ours = schedule_summary(build_schedule(name, pp, m, vpp, PassTimes(*times)), *times)
                peak = PUBLISHED_PEAK[name](pp)
                row = {"times": times, "pp": pp, "num_microbatches": m, "name": name, "bound": None}
                row |= {"bubble": ours["bubble_fraction"], "published": published[f"{name} iteration"]}
                row |= {"span": ours["span_bubble_fraction"], "published_span": published.get(f"{name} span")}
                row |= {"peak": max(ours["peak_activations"] or []), "published_peak": peak}
                if name == "zb-h2":
                    work = m * PassTimes(*times).work
                    row["bound"] = 1 - work / least_span(pp, m, PassTimes(*times), int(peak))
                rows.append(row)
    return rows


def closed_forms() -> list[dict[str, Any]]:
    """One row per formula and size: simulated and stated bubble time and peak."""
    from planner.schedules import SCHEDULES, build_schedule
    from planner.schedules.closed_forms import CLOSED_FORMS
    from planner.schedules.report import schedule_summary

    rows = []
    for name, form in ((name, form) for name, forms in CLOSED_FORMS.items() for form in forms):
        for vpp, pp, factor in product(CHUNKS.get(name, (SCHEDULES[name].vpp,)), (4, 8, 16), (1, 2, 4)):
            m = factor * pp
            if not form.holds(pp, m):
                continue
            ours = schedule_summary(build_schedule(name, pp, m, vpp), *form.times, 0)
            row: dict[str, Any] = {"name": name, "vpp": vpp, "pp": pp, "num_microbatches": m}
            row |= {"times": form.times, "note": form.note}
            row |= {"bubble": (ours["makespan"] or 0.0) - m * sum(form.times), "stated": form.bubble(pp, m, vpp)}
            row |= {"peak": max(ours["peak_activations"] or []), "stated_peak": form.peak(pp, m, vpp)}
            rows.append(row)
    return rows


def _print_closed_forms(rows: list[dict[str, Any]]) -> None:
    """A line for each schedule and p; m = p, 2p and 4p side by side, blank where a formula is not stated for it."""
    print(
        "\nclosed forms (planner/schedules/closed_forms.py): bubble = makespan - m(F + I + W) in units of F, and peak;"
    )
    print("each as simulated/stated")
    print(
        f"{'schedule':<18}{'v':>3}{'p':>4}{'B/F':>5}"
        + "".join(f"{f'm = {m}':>16}{'peak':>13}" for m in ("p", "2p", "4p"))
    )
    lines: dict[tuple[Any, ...], dict[int, str]] = {}
    notes = {}
    for row in rows:
        f, i, w = row["times"]
        line = lines.setdefault((row["name"], row["vpp"], row["pp"], (i + w) / f), {})
        bubble, peak = f"{row['bubble']:.2f}/{row['stated']:.2f}", f"{row['peak']:.1f}/{row['stated_peak']:.1f}"
        line[row["num_microbatches"] // row["pp"]] = f"{bubble:>16}{peak:>13}"
        if row["note"]:
            notes[row["name"]] = row["note"]
    for (name, vpp, pp, ratio), cells in lines.items():
        print(f"{name:<18}{vpp:>3}{pp:>4}{ratio:5.0f}" + "".join(cells.get(m, " " * 29) for m in (1, 2, 4)).rstrip())
    for note in dict.fromkeys(notes.values()):
        print(f"{', '.join(name for name in notes if notes[name] == note)}: {note}")
    worst = max(row["bubble"] - row["stated"] for row in rows)
    print(f"{len(rows)} figures; largest bubble minus stated: {worst:+.1e}")


def excesses(rows: list[dict[str, Any]]) -> list[float]:
    """Ours minus published, of every published figure; a span below its bound counts as its bound."""
    spans = [row for row in rows if row["published_span"] is not None]
    return [row["bubble"] - row["published"] for row in rows] + [
        row["span"] - max(row["published_span"], row["bound"] or 0.0) for row in spans
    ]


def _line(row: dict[str, Any]) -> str:
    bubbles = (row["bubble"], row["published"], row["span"], row["published_span"], row["bound"])
    if row["published_span"] is None:
        bubbles = (*bubbles[:2], None, None, None)
    shown = "".join(f"{'':9}" if value is None else f"{value:9.4f}" for value in bubbles)
    sizes = f"{row['pp']:>4}{row['num_microbatches']:>5}  {row['name']:<18}"
    return f"{sizes}{shown}{row['peak']:9.1f}{row['published_peak']:9.1f}"


def _alive(row: dict[str, Any]) -> str:
    """What the published span bubble takes at least."""
    from planner.schedules import PassTimes
    from planner.schedules.zb_h2 import least_span

    m, times = row["num_microbatches"], PassTimes(*row["times"])
    span = m * times.work / (1 - row["published_span"] - ROUNDING)
    needed = next(memory for memory in range(1, m + 1) if least_span(row["pp"], m, times, memory) <= span)
    return f"it takes {needed} > 2p alive at least"


def _best_s(work: Callable[[], object], repeat: int) -> float:
    spans = []
    for _ in range(repeat):
        start = time.perf_counter()
        work()
        spans.append(time.perf_counter() - start)
    return min(spans)


def _print_vocabulary() -> None:
    """Output layer on the last rank against its parts on all ranks."""
    import numpy as np

    from planner.schedules import build_schedule
    from planner.schedules.report import rank_times
    from planner.simulator import StageTimes, simulate

    print("\nvocabulary parallelism: F = I = W = 1 a rank, output layer as heavy as so many ranks; makespans, m = 4p")
    print(
        f"{'p':>4}{'m':>5}{'layer':>7}{'1f1b':>9}{'vocab-1':>9}{'vocab-2':>9}{'ideal':>9}{'peak':>6}{'vocab-1':>9}{'vocab-2':>9}"
    )
    for pp, layer in product((4, 8, 16, 32), (0.5, 1.0, 2.0)):
        m = 4 * pp
        column = np.ones(pp)
        column[-1] += layer
        runs = [simulate(build_schedule("1f1b", pp, m), StageTimes(column, column, column))]
        for name in ("1f1b-vocab-1", "1f1b-vocab-2"):
            schedule = build_schedule(name, pp, m)
            runs.append(simulate(schedule, rank_times(schedule, 1, 1, 1, 0, vocab=layer)))
        spans = "".join(f"{run.makespan_s:9.1f}" for run in runs)
        peaks = [max(run.peak_activations(1.0)) for run in runs]
        ideal = m * 3 * (1 + layer / pp)
        print(f"{pp:>4}{m:>5}{layer:7.1f}{spans}{ideal:9.1f}{peaks[0]:6.0f}{peaks[1]:9.0f}{peaks[2]:9.0f}")


def _print_bubble_filling() -> None:
    """How much of a frozen model runs for nothing."""
    from planner.schedules import build_schedule
    from planner.schedules.bubble_filling import fill_bubbles
    from planner.schedules.report import rank_times
    from planner.simulator import simulate

    print(
        "\nbubble filling: F = I = W = 1, a frozen model of ten equal pieces, of so many F's a micro-batch; makespans"
    )
    titles = f"{'without':>9}{'filled':>9}{'after it':>10}{'bubble':>9}{'filled':>9}"
    print(f"{'schedule':<10}{'p':>4}{'m':>5}{'frozen':>8}{titles}")
    for (name, pp, m), whole in product((("1f1b", 4, 16), ("1f1b", 8, 32), ("zb-h2", 8, 32)), (0.5, 1.0, 2.0)):
        pieces = [whole / 10] * 10
        plain = build_schedule(name, pp, m)
        filled = fill_bubbles(plain, rank_times(plain, 1, 1, 1, 0), pieces)
        before, after = (simulate(one, rank_times(one, 1, 1, 1, 0, frozen=pieces)) for one in (plain, filled))
        behind = before.makespan_s + m * whole / pp
        spans = f"{before.makespan_s:9.1f}{after.makespan_s:9.1f}{behind:10.1f}"
        print(f"{name:<10}{pp:>4}{m:>5}{whole:8.1f}{spans}{before.bubble_fraction:9.3f}{after.bubble_fraction:9.3f}")
    print("after it: the frozen model spread over all ranks, after the step")


def _print_times(repeat: int) -> None:

    import numpy as np

    from planner.schedules import SCHEDULES, build_schedule
    from planner.simulator import StageTimes, simulate, simulate_many
    from planner.simulator.graph import graph_of

    print(f"\nbest of {repeat}, in ms, on {platform.machine()}, Python {platform.python_version()}")
    print(
        "generate: passes of all ranks; first: from them to the makespan, what waits for what included; simulate: each"
    )
    print("time after; 64 rows: makespans of 64 different stage times at once; trace: the events of a simulated step")
    sizes = f"{'schedule':<22}{'p':>4}{'m':>5}{'v':>3}{'passes':>8}"
    print(f"{sizes}{'generate':>10}{'first':>9}{'simulate':>10}{'64 rows':>9}{'trace':>9}")
    for name, pp, m, vpp in TIMED:
        build_s = _best_s(lambda: SCHEDULES[name].generate(pp, m, vpp), repeat)  # noqa: B023
        schedule = build_schedule(name, pp, m, vpp)
        one = StageTimes.uniform(schedule.num_stages, 1.0, 1.0, 1.0, 0.1)
        many = StageTimes(
            np.linspace(1, 2, 64)[:, None] * one.forward_s, one.input_grad_s, one.weight_grad_s, edge_s=0.1
        )
        # A copy is an object of its own, whose passes are read anew.
        first_s = _best_s(lambda: simulate(replace(schedule), one).makespan_s, repeat)  # noqa: B023
        simulation = simulate(schedule, one)
        simulate_s = _best_s(lambda: simulate(schedule, one).makespan_s, repeat)  # noqa: B023
        many_s = _best_s(lambda: simulate_many(schedule, many), repeat)  # noqa: B023
        trace_s = _best_s(simulation.trace, repeat)
        spans = (
            f"{build_s * 1e3:10.2f}{first_s * 1e3:9.2f}{simulate_s * 1e3:10.2f}{many_s * 1e3:9.2f}{trace_s * 1e3:9.2f}"
        )
        print(f"{name:<22}{pp:>4}{m:>5}{vpp:>3}{len(graph_of(schedule).slot):>8}{spans}")
    published = ", ".join(f"{name} {span_s:g}" for name, span_s in tomllib.loads(TABLES.read_text())["build_s"].items())
    print(f"seconds that the authors' generators took at p = 32, m = 128: {published}")


CHECKED = (("1f1b", 8, 64, 1), ("interleaved-1f1b", 32, 512, 6), ("zb-h1", 64, 1050, 1))
"""Schedules that are checked and lowered against the clock, the largest of some 200,000 passes."""


def _print_check_times(repeat: int) -> None:
    from costmodel.passes import check_lowered, check_schedule, lower
    from planner.schedules import build_schedule

    print(f"\nbest of {repeat}, in s: check the order; lower it to sends and receives; run the lowered lists dry")
    print(f"{'schedule':<18}{'p':>4}{'m':>5}{'v':>3}{'passes':>8}{'check':>8}{'lower':>8}{'dry run':>9}")
    for name, pp, m, vpp in CHECKED:
        schedule = build_schedule(name, pp, m, vpp)
        lists = lower(schedule)
        passes = sum(len(order) for order in schedule.orders)
        check_s = _best_s(lambda: check_schedule(schedule), repeat)  # noqa: B023
        lower_s = _best_s(lambda: lower(schedule), repeat)  # noqa: B023
        dry_s = _best_s(lambda: check_lowered(lists), repeat)  # noqa: B023
        print(f"{name:<18}{pp:>4}{m:>5}{vpp:>3}{passes:>8}{check_s:8.3f}{lower_s:8.3f}{dry_s:9.3f}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5, help="timings per figure; 0 leaves them out (default 5)")
    parser.add_argument("--paced", action="store_true", help="run every schedule on four gloo ranks: paced.py")
    options = parser.parse_args(arguments)
    if options.paced:
        import paced

        paced.main([])
        return

    rows = bubbles()
    print("bubble = 1 - busy / (makespan x ranks), first F to last W; peak in micro-batches of all of a rank's layers")
    print(f"published: {ORIGIN}\n{NOTES}")
    times = None
    for row in rows:
        if row["times"] != times:
            times = row["times"]
            print("\nF={} I={} W={} comm={}".format(*times))
            print(f"{'p':>4}{'m':>5}  {'schedule':<18}", *(f"{title:>9}" for title in TITLES), sep="")
        print(_line(row))
    found = excesses(rows)
    print(
        f"\n{len(found)} figures; largest bubble here minus published: {max(found):+.4f} (published to three decimals)"
    )
    for row in rows:
        if row["bound"] is not None and row["published_span"] < row["bound"] - ROUNDING:
            sizes = f"p = {row['pp']}, m = {row['num_microbatches']}, F = {row['times'][0]}"
            print(f"zb-h2, {sizes}: published below its bound, which is taken instead; {_alive(row)}")
    _print_closed_forms(closed_forms())
    _print_vocabulary()
    _print_bubble_filling()
    if options.repeat:
        _print_times(options.repeat)
        _print_check_times(options.repeat)


if __name__ == "__main__":
    main()
