"""The report of one plan, top to bottom: the layout, the figures, where time and memory go, how sure it all is."""

from __future__ import annotations

from rich.markup import escape

from costmodel.schema.plan import Plan
from planner.report.command import plan_command
from planner.report.console import ReportConsole, heading, indented
from planner.report.layers import activations_words, alone_words, print_layers
from planner.report.line import devices_words, layout_words, recompute_counts
from planner.report.memory import print_memory
from planner.report.pipeline import print_pipeline
from planner.report.proof import print_alternatives, print_certificate, print_robust, print_sentences
from planner.report.tensors import print_tensors
from planner.report.time import print_network, print_time
from planner.report.training import print_training
from planner.report.units import count, digits, percent, seconds


def print_plan(plan: Plan, console: ReportConsole, explain: bool = False) -> None:
    """Print the whole report. ``explain``: every layer, every pipeline rank, and each term's meaning too."""
    _print_question(plan, console)
    _print_layout(plan, console)
    _print_figures(plan, console)
    print_training(plan, console)
    print_time(plan, console, explain=explain)
    print_memory(plan, console, explain=explain)
    print_network(plan, console)
    if explain:
        print_layers(plan, console)
        print_pipeline(plan, console)
        print_tensors(plan, console)
    print_alternatives(plan, console)
    print_certificate(plan, console, explain=explain)
    print_robust(plan, console)
    print_sentences("Assumed", plan.prediction.assumptions, console)
    print_sentences("Worth knowing", plan.notes, console)


def _print_question(plan: Plan, console: ReportConsole) -> None:
    workload, cluster = plan.workload, plan.cluster
    console.print(
        f"[bold]{escape(plan.model.name)}[/bold] on [bold]{devices_words(cluster)}[/bold] "
        f"({escape(cluster.spec.name)}) with {escape(plan.runtime)}: "
        f"{workload.seq_len:,} tokens × {workload.global_batch_size:,} "
        f"sequence{'' if workload.global_batch_size == 1 else 's'} a step, {workload.precision}"
    )


def _print_layout(plan: Plan, console: ReportConsole) -> None:
    layout, counts = plan.layout, recompute_counts(plan)
    some = " and ".join(f"{number} {policy}" for policy, number in counts.most_common() if policy != "none")
    recompute = f"{some} of {len(plan.layers)} layers" if len(counts) > 1 else next(iter(counts), "none")
    words = [
        f"{_counted(layout.num_microbatches, 'micro-batch', 'es')} of "
        f"{_counted(layout.micro_batch_size, 'sequence', 's')} a rank, schedule {plan.pipeline.schedule}, "
        f"recompute {recompute}",
        alone_words(plan),
        activations_words(plan.layers),
    ]
    heading(console, "Layout")
    console.print(indented(f"[bold cyan]{layout_words(layout)}[/bold cyan]"))
    console.print(indented("; ".join(word for word in words if word)))
    console.print(f"  {escape(plan_command(plan))}", style="dim", soft_wrap=True)


def _print_figures(plan: Plan, console: ReportConsole) -> None:
    prediction, devices = plan.prediction, plan.cluster.num_devices
    step = prediction.step_time_s
    rate = prediction.tokens_per_s_per_device
    trillion_s = 1e12 / (rate * devices)
    device_hours = 1e12 / rate / 3600
    more = prediction.hfu > prediction.mfu
    recomputed = f"; {percent(prediction.hfu)} with recomputation" if more else ""
    rows = [
        ("Step time", seconds(step.mean), f"90% between {seconds(step.low)} and {seconds(step.high)}"),
        ("Throughput", f"{digits(rate)} tokens/s per GPU", f"{count(rate * devices)} tokens/s together"),
        ("MFU", percent(prediction.mfu), f"of the datasheet's peak{recomputed}"),
        ("10¹² tokens", seconds(trillion_s), f"{count(device_hours)} GPU-hours"),
    ]
    console.print()
    widest = max(len(figure) for _, figure, _ in rows)
    for name, figure, note in rows:
        console.print(f"[bold]{name:<13}[/bold][bold green]{figure:<{widest}}[/bold green]   [dim]{note}[/dim]")


def _counted(number: int, noun: str, plural: str) -> str:
    return f"{number} {noun}{'' if number == 1 else plural}"
