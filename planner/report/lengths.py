"""The report of a plan for mixed lengths: the groups, what each runs, and what unlike groups gain."""

from __future__ import annotations

from rich.markup import escape

from costmodel.schema.lengths import LengthGroups, LengthLayout, LengthPlan
from planner.report.console import ReportConsole, grid, heading, indented
from planner.report.proof import print_sentences
from planner.report.units import count, digits, percent, plural, seconds


def print_lengths(plan: LengthPlan, console: ReportConsole) -> None:
    """Print the whole report."""
    machine = f"[bold]{plan.num_devices} × {plan.device}[/bold] ({escape(plan.cluster)})"
    console.print(
        f"[bold]{escape(plan.model)}[/bold] on {machine} with {escape(plan.runtime)}: "
        f"{plural(plan.sequences, 'sequence')} a step, {count(plan.tokens)} tokens, the longest {plan.longest:,}"
    )
    heading(console, "Layout")
    console.print(f"  [bold cyan]{_words(plan.chosen)}[/bold cyan]")
    table = grid(">groups", "context parallel", "lengths", ">sequences", ">tokens", ">busy")
    for group in plan.chosen.groups:
        table.add_row(str(group.groups), *_row(group))
    console.print(indented(table))
    console.print()
    console.print(f"[bold]{'Step time':<13}[/bold][bold green]{seconds(plan.chosen.step_time_s)}[/bold green]")
    console.print(f"[bold]{'Throughput':<13}[/bold]{digits(plan.tokens_per_s_per_device)} tokens/s per GPU")
    heading(console, "Unlike groups", "against the best that are all alike")
    console.print(f"  {_verdict(plan)}")
    console.print(
        f"  no division of the ranks is faster than {seconds(plan.lower_bound_s)} (gap {percent(plan.gap)}); "
        f"{plural(plan.considered, 'group shape')} priced in {seconds(plan.wall_s)}"
    )
    print_sentences("Assumed", plan.assumptions, console)
    print_sentences("Worth knowing", plan.notes, console)


def _verdict(plan: LengthPlan) -> str:
    alike = (
        f"{_degree(plan.uniform.groups[0])} for all, {_words(plan.uniform)}, takes {seconds(plan.uniform.step_time_s)}"
    )
    if not plan.mixed.mixed:
        return f"gain nothing: {alike}"
    return f"take {seconds(plan.mixed.step_time_s)}, {percent(plan.gain)} faster: {alike}"


def _words(layout: LengthLayout) -> str:
    host = ", activations on the host" if layout.offload else ""
    experts = f" · ep {layout.ep}" if layout.ep > 1 else ""
    return f"tp {layout.tp}{experts} · ZeRO-{layout.zero_stage} · recompute {layout.recompute}{host}"


def _degree(group: LengthGroups) -> str:
    degree = group.cp_ring * group.cp_ulysses
    shape = f" (ring {group.cp_ring} × Ulysses {group.cp_ulysses})" if degree > 1 else ""
    return f"cp {degree}{shape}"


def _row(group: LengthGroups) -> tuple[str, ...]:
    lengths = [share.length for share in group.sequences]
    shown = f"{lengths[0]:,} to {lengths[-1]:,}" if len(lengths) > 1 else f"{lengths[0]:,}"
    tokens = sum(share.length * share.count for share in group.sequences)
    number = sum(share.count for share in group.sequences)
    return _degree(group), shown, f"{number:,}", count(tokens), seconds(group.busy_s)
