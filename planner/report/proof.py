"""What else was found, how the search knows that it is worse, and every sentence that qualifies the answer."""

from __future__ import annotations

from collections.abc import Sequence

from rich.markup import escape

from costmodel.schema.plan import Plan
from planner.report.console import ReportConsole, grid, heading, indented
from planner.report.terms import label
from planner.report.units import gibibytes, percent, seconds

LEAST_GAP = 5e-5
"""Below this a gap would print as 0%."""

LEFT = "not reached"
"""What a certificate calls the layouts that a limit kept the search from: nothing ruled them out."""


def print_alternatives(plan: Plan, console: ReportConsole) -> None:
    """The runners-up: how much slower, how much memory, and what makes them worse. Nothing when there are none."""
    if not plan.alternatives:
        return
    best_s = plan.prediction.step_time_s.mean
    heading(console, "Next best")
    table = grid(">step", ">slower", ">GiB", "layout, and what makes it worse")
    for other in plan.alternatives:
        slower = f"{(other.step_time_s / best_s - 1) * 100:+.1f}%"
        what = f"{escape(other.line)}\n[dim]{escape(other.reason)}[/dim]"
        table.add_row(seconds(other.step_time_s), slower, gibibytes(other.memory_bytes), what)
    console.print(indented(table))


def print_certificate(plan: Plan, console: ReportConsole, explain: bool = False) -> None:
    """How far the answer can be from the best one, and what was looked at. ``explain``: the bound's relaxations too."""
    proof = plan.certificate
    heading(console, "How sure")
    if proof.status == "given":
        console.print("  The layout was given: nothing was searched.")
        return
    verdict = {"proven": "Proven", "bounded": "Bounded", "stopped": "Stopped at a limit"}[proof.status]
    if proof.gap is None or proof.lower_bound_s is None:
        console.print(f"  {verdict}, without a bound on how much better another layout could be.")
    else:
        console.print(f"  {verdict}: {faster(proof.gap)} (no step below {seconds(proof.lower_bound_s)}).")
    console.print(
        f"  {proof.considered:,} layouts considered, {proof.evaluated:,} evaluated, in {seconds(proof.wall_s)}."
    )
    ruled_out = [f"{number:,} by {label(rule)}" for rule, number in proof.pruned.items() if number and rule != LEFT]
    if ruled_out:
        console.print(indented(f"Ruled out: {' · '.join(ruled_out)}."))
    if proof.pruned.get(LEFT):
        console.print(f"  Not reached: {proof.pruned[LEFT]:,}; the bound holds for them too.")
    if proof.solver:
        left = " · ".join(f"{number:,} {status}" for status, number in proof.solver.items())
        console.print(indented(f"Integer programs solved: {left}."))
    memory, wanted = plan.prediction.memory, plan.constraints.fit_probability
    fits = "Feasible" if memory.fits_probability >= wanted else "Not feasible"
    console.print(f"  {fits}: P(fits) {percent(memory.fits_probability)}, {percent(wanted)} asked.")
    if explain and proof.relaxations:
        console.print("  The bound is looser than the truth in these ways:")
        table = grid("", "")
        for relaxation in proof.relaxations:
            table.add_row(f"[dim]{label(relaxation.name)}[/dim]", f"[dim]{escape(relaxation.effect)}[/dim]")
        console.print(indented(table))


def print_robust(plan: Plan, console: ReportConsole) -> None:
    """What choosing under uncertainty costs in the mean, and what it gains. Nothing where it was not asked."""
    robust = plan.robust
    if robust is None:
        return
    step_s = plan.prediction.step_time_s.mean
    nth = f"{robust.quantile:.0%} of draws"
    heading(console, "Robust", f"{robust.draws} draws of the figures, the same for {robust.candidates} candidates")
    table = grid("", ">step", f">{nth} within", ">P(fits) over draws")
    this = (seconds(step_s), seconds(robust.quantile_s), percent(robust.fits_probability))
    fastest = (robust.fastest_step_time_s, robust.fastest_quantile_s)
    table.add_row("this plan", *this)
    table.add_row("fastest by mean", *map(seconds, fastest), percent(robust.fastest_fits_probability))
    console.print(indented(table))
    cost = step_s / robust.fastest_step_time_s - 1.0
    gain = 1.0 - robust.quantile_s / robust.fastest_quantile_s
    odds = robust.fits_probability - robust.fastest_fits_probability
    if abs(cost) < LEAST_GAP and abs(odds) < LEAST_GAP:
        console.print("  The fastest plan is the robust one too.")
        return
    console.print(
        f"  It costs {cost * 100:+.1f}% in the mean, and changes that quantile by {-gain * 100:+.1f}%"
        f" and the odds of fitting by {odds * 100:+.1f} points."
    )


def faster(gap: float) -> str:
    """What the gap says: how much faster another layout of the space could still be."""
    if gap < LEAST_GAP:
        return "no layout in the space is faster"
    return f"no layout in the space is more than {percent(gap)} faster"


def print_sentences(title: str, sentences: Sequence[str], console: ReportConsole) -> None:
    """A list of sentences under a heading. Nothing when there are none."""
    if not sentences:
        return
    heading(console, title)
    table = grid("", "")
    for sentence in sentences:
        table.add_row("[dim]·[/dim]", escape(sentence))
    console.print(indented(table))
