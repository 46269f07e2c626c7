"""One plan against another: which choice differs, which term and which part of memory it moves, largest first."""

from __future__ import annotations

from dataclasses import dataclass

from rich.markup import escape

from costmodel.schema.layout import Layout
from costmodel.schema.plan import Plan
from costmodel.schema.prediction import StageMemory
from planner.report.console import ReportConsole, grid, heading, indented
from planner.report.line import recompute_counts
from planner.report.terms import label, terms_of
from planner.report.units import gibibytes, percent, seconds, size

NEGLIGIBLE = 1e-6
"""Relative difference below which two figures count as equal."""


@dataclass(frozen=True)
class Difference:
    """One named figure in both plans. ``change`` is first minus second: below zero, the first needs less."""

    name: str
    first: float
    second: float

    @property
    def change(self) -> float:
        return self.first - self.second


def choices_that_differ(first: Plan, second: Plan) -> list[tuple[str, str, str]]:
    """(what, its value in the first plan, in the second) for the question, every degree and each other choice."""
    rows = [
        ("model", first.model.name, second.model.name),
        ("device", _devices(first), _devices(second)),
        ("devices", str(first.cluster.num_devices), str(second.cluster.num_devices)),
        ("cluster", first.cluster.spec.name, second.cluster.spec.name),
        ("runtime", first.runtime, second.runtime),
    ]
    for name in type(first.workload).model_fields:
        rows.append((name, str(getattr(first.workload, name)), str(getattr(second.workload, name))))
    for name in Layout.model_fields:
        rows.append((name, _shown(getattr(first.layout, name)), _shown(getattr(second.layout, name))))
    rows.append(("schedule", first.pipeline.schedule, second.pipeline.schedule))
    rows.append(("layers_per_stage", _shown(first.pipeline.layers_of_copy), _shown(second.pipeline.layers_of_copy)))
    rows.append(("recompute", _policies(first), _policies(second)))
    rows.append(("layers offloaded", _offloaded(first), _offloaded(second)))
    return [row for row in rows if row[1] != row[2]]


def terms_that_differ(first: Plan, second: Plan) -> list[Difference]:
    """Exposed seconds by term, largest difference first. The differences sum to that of the step times."""
    ours = {term.name: term.exposed_s for term in terms_of(first.prediction.breakdown)}
    theirs = {term.name: term.exposed_s for term in terms_of(second.prediction.breakdown)}
    return _largest_first(ours, theirs)


def parts_that_differ(first: Plan, second: Plan) -> list[Difference]:
    """Bytes by part on each plan's fullest rank, largest difference first."""
    return _largest_first(_fullest(first).parts, _fullest(second).parts)


def print_comparison(first: Plan, second: Plan, console: ReportConsole, names: tuple[str, str] = ("A", "B")) -> None:
    """Print the verdict, then choices, terms and parts of memory that differ. ``names``: what to call the two plans."""
    ours, theirs = first.prediction.step_time_s.mean, second.prediction.step_time_s.mean
    console.print(f"[bold]A[/bold] {escape(names[0])}\n[bold]B[/bold] {escape(names[1])}\n")
    console.print(_verdict(ours, theirs))
    if first.workload.tokens_per_step != second.workload.tokens_per_step:
        rates = (first.prediction.tokens_per_s_per_device, second.prediction.tokens_per_s_per_device)
        console.print(
            f"Their steps take different numbers of tokens: {rates[0]:,.0f} and {rates[1]:,.0f} tokens/s per GPU."
        )
    choices = choices_that_differ(first, second)
    if not choices:
        console.print("They make the same choices.")
    else:
        heading(console, "Choices that differ")
        table = grid("", "A", "B")
        for name, mine, other in choices:
            table.add_row(name, escape(mine), escape(other))
        console.print(indented(table))
    terms = terms_that_differ(first, second)
    if terms:
        heading(console, "Time", "exposed; A - B, largest difference first")
        table = grid("", ">A", ">B", ">A - B", ">of B's step")
        for term in terms:
            share = f"{term.change / theirs * 100:+.1f}%"
            table.add_row(label(term.name), seconds(term.first), seconds(term.second), _signed(term.change), share)
        table.add_row(
            "[bold]step[/bold]",
            seconds(ours),
            seconds(theirs),
            _signed(ours - theirs),
            f"{(ours / theirs - 1) * 100:+.1f}%",
        )
        console.print(indented(table))
    parts = parts_that_differ(first, second)
    if parts:
        heading(console, "Memory", f"GiB on the fullest rank: A's {_fullest(first).rank}, B's {_fullest(second).rank}")
        table = grid("", ">A", ">B", ">A - B")
        for part in parts:
            gap = f"{part.change / 2**30:+.2f}"
            table.add_row(label(part.name), gibibytes(part.first), gibibytes(part.second), gap)
        console.print(indented(table))
    odds = (first.prediction.memory, second.prediction.memory)
    console.print(
        f"\nFullest rank: A {size(odds[0].peak_bytes_per_device)}, P(fits) {percent(odds[0].fits_probability)}; "
        f"B {size(odds[1].peak_bytes_per_device)}, P(fits) {percent(odds[1].fits_probability)}"
    )


def _verdict(ours: float, theirs: float) -> str:
    times = f"{seconds(ours)} against {seconds(theirs)} a step"
    if abs(ours - theirs) <= NEGLIGIBLE * theirs:
        return f"A and B take the same time: {times}."
    faster, share = ("A", theirs / ours - 1) if ours < theirs else ("B", ours / theirs - 1)
    return f"[bold green]{faster} is {percent(share)} faster[/bold green]: {times}."


def _largest_first(ours: dict[str, float], theirs: dict[str, float]) -> list[Difference]:
    both = [Difference(name, ours.get(name, 0.0), theirs.get(name, 0.0)) for name in dict.fromkeys([*ours, *theirs])]
    scale = max((abs(value) for pair in both for value in (pair.first, pair.second)), default=0.0)
    return sorted((pair for pair in both if abs(pair.change) > NEGLIGIBLE * scale), key=lambda pair: -abs(pair.change))


def _fullest(plan: Plan) -> StageMemory:
    return max(plan.prediction.memory.per_stage, key=lambda stage: stage.device_bytes)


def _signed(change_s: float) -> str:
    return f"{'+' if change_s > 0 else '-' if change_s < 0 else ''}{seconds(abs(change_s))}"


def _shown(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _devices(plan: Plan) -> str:
    return " + ".join(dict.fromkeys(device for _, device in plan.cluster.counts))


def _policies(plan: Plan) -> str:
    return ", ".join(f"{number} {policy}" for policy, number in sorted(recompute_counts(plan).items()))


def _offloaded(plan: Plan) -> str:
    return f"{sum(layer.offload for layer in plan.layers):g}"
