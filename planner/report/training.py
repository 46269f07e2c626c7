"""A plan's whole run: time, cost, and what failures take of it."""

from __future__ import annotations

from rich.markup import escape

from costmodel.schema.plan import Plan
from costmodel.schema.training import Goodput, Training
from planner.report.console import ReportConsole, grid, heading, indented
from planner.report.units import count, percent, seconds, size


def print_training(plan: Plan, console: ReportConsole) -> None:
    """Print the run's section. Nothing where no run was asked about."""
    training = plan.training
    if training is None:
        return
    heading(console, f"A run of {count(training.tokens)} tokens", f"{training.steps:,} steps")
    table = grid("", "", "")
    for name, figure, note in _rows(training, plan.cluster.num_devices):
        table.add_row(name, f"[green]{figure}[/green]", f"[dim]{escape(note)}[/dim]")
    console.print(indented(table))
    for sentence in (_checkpoints(training.goodput), *training.goodput.assumptions):
        console.print(indented(f"[dim]{escape(sentence)}[/dim]"))


def _rows(training: Training, devices: int) -> list[tuple[str, str, str]]:
    time_s = training.time_s
    rows = [("Time", seconds(time_s.mean), f"90% between {seconds(time_s.low)} and {seconds(time_s.high)}")]
    if training.deadline_s is not None and training.on_time_probability is not None:
        met = "in time" if time_s.mean <= training.deadline_s else "late"
        probability = percent(training.on_time_probability)
        rows.append(("Deadline", met, f"within {seconds(training.deadline_s)} with probability {probability}"))
    rows.append(("GPU-hours", count(training.device_hours), f"of {devices:,} GPUs"))
    if training.cost is not None:
        rows.append(("Cost", count(training.cost), f"at {training.price_per_device_hour:g} per GPU-hour"))
    return [*rows, ("Goodput", percent(training.goodput.share), _losses(training.goodput))]


def _losses(goodput: Goodput) -> str:
    parts = (
        ("checkpoints", goodput.checkpoint_share),
        ("work done again", goodput.lost_share),
        ("restarts", goodput.restart_share),
    )
    return " · ".join(f"{name} {percent(share)}" for name, share in parts)


def _checkpoints(goodput: Goodput) -> str:
    write = seconds(goodput.checkpoint_write_s)
    how = (
        f"stalls training for {seconds(goodput.checkpoint_stall_s)} and is written within {write}"
        if goodput.asynchronous
        else f"takes {write}"
    )
    return (
        f"A failure every {seconds(goodput.mtbf_s)}; a checkpoint of {size(goodput.checkpoint_bytes)} every"
        f" {seconds(goodput.interval_s)} {how}; {seconds(goodput.restart_s)} to restart."
    )
