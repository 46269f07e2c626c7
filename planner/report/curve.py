"""A scaling curve as a table: one row per number of GPUs, then which of them to take."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from planner.decisions.curve import Curve, Point, pareto_front
from planner.decisions.question import Question
from planner.decisions.training import UNIT_TOKENS
from planner.report.command import plan_command
from planner.report.console import ReportConsole, grid, heading, indented
from planner.report.line import layout_words
from planner.report.training import print_training
from planner.report.units import count, gibibytes, percent, plural, seconds


def print_curve(curve: Curve, question: Question, console: ReportConsole) -> None:
    """The figures of a curve that has some, its layouts or why there are none, and the choice with its command."""
    _print_question(curve.found[0], question, console)
    console.print()
    console.print(indented(_figures(curve, question)))
    if len(curve.found) > 1:
        console.print(indented("[dim]* no other row is as good in time, GPU-hours and memory at once[/dim]"))
    console.print()
    console.print(indented(_layouts(curve)))
    if curve.interrupted:
        others = "other" if curve.said else "larger"
        console.print(indented(f"[yellow]Interrupted: {others} numbers were not looked at.[/yellow]"))
    if curve.said:
        console.print(indented(f"[dim]{escape(curve.said)}[/dim]"))
    if curve.chosen is not None:
        _print_choice(curve.chosen, question, console)


def _print_question(point: Point, question: Question, console: ReportConsole) -> None:
    plan, _ = point.answer
    workload = plan.workload
    step = (
        "sequences a step as the critical batch size asks"
        if question.critical_batch_tokens is not None
        else f"{workload.global_batch_size:,} sequences a step on each (strong scaling)"
    )
    console.print(
        f"[bold]{escape(plan.model.name)}[/bold] on [bold]{plan.cluster.device}[/bold] with {escape(plan.runtime)}:"
        f" {workload.seq_len:,} tokens × {step}, {workload.precision}"
    )


def _figures(curve: Curve, question: Question) -> Table:
    batches = question.critical_batch_tokens is not None
    priced = any(point.answer[1].cost is not None for point in curve.found)
    shares = any(point.memory_share < 1 for point in curve.found)
    table = grid(
        ">GPUs", *([">memory"] if shares else []), *([">batch"] if batches else []), ">step", ">tokens/s", ">MFU",
        ">GiB", ">goodput", f">{count(question.tokens or UNIT_TOKENS)} tokens", ">GPU-hours",
        *([">cost"] if priced else []), "",
    )  # fmt: skip
    front = pareto_front(curve.points)
    for point in curve.found:
        plan, training = point.answer
        prediction = plan.prediction
        row = [
            f"{point.devices:,}",
            *([f"{point.memory_share:.0%}"] if shares else []),
            *([f"{plan.workload.global_batch_size:,}"] if batches else []),
            seconds(prediction.step_time_s.mean),
            count(prediction.tokens_per_s_per_device * point.devices),
            percent(prediction.mfu),
            gibibytes(prediction.memory.peak_bytes_per_device),
            percent(training.goodput.share),
            seconds(training.time_s.mean),
            count(training.device_hours),
            *([count(training.cost)] if training.cost is not None else []),
            "*" if any(point is one for one in front) else "",
        ]
        table.add_row(*row, style="bold" if point is curve.chosen else "")
    return table


def _layouts(curve: Curve) -> Table:
    table = grid(">GPUs", "layout")
    for point in curve.points:
        if point.plan is None:
            table.add_row(f"{point.devices:,}", f"[dim]{escape(point.why_not or '')}[/dim]")
        else:
            layout = point.plan.layout
            micro = f"micro-batch {layout.micro_batch_size}, {point.plan.pipeline.schedule}"
            part = "" if point.memory_share == 1 else f" in {point.memory_share:.0%}"
            table.add_row(f"{point.devices:,}{part}", f"[cyan]{layout_words(layout)}[/cyan] · [dim]{micro}[/dim]")
    return table


def _print_choice(point: Point, question: Question, console: ReportConsole) -> None:
    plan, training = point.answer
    if question.deadline_s is not None:
        why = f"the fewest found that are done in {seconds(question.deadline_s)}"
    elif training.price_per_device_hour is not None:
        why = "the cheapest"
    else:
        why = "the fastest"
    heading(console, plural(point.devices, "GPU"), f"{why}: {seconds(training.time_s.mean)}")
    if question.critical_batch_tokens is not None:
        console.print(indented(escape(plan.notes[0])))
    console.print(f"  {escape(plan_command(plan))}", style="dim", soft_wrap=True)
    print_training(plan, console)
