"""What lost to the answer, and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from costmodel.schema.layout import Layout
from costmodel.schema.plan import Alternative
from planner.evaluate import Evaluated
from planner.layer_words import policies_words
from planner.prediction import estimate_breakdown
from planner.problem import Problem
from planner.request import Request
from planner.search.run import Outcome
from planner.search.schedule_choice import named
from planner.state_words import state_words

SPARE = 2
"""Layouts placed beyond those shown: the order of bounds is not quite the order of times."""

TRIES = 2
"""Layouts placed at most, for each one to show."""

_SAYS = {
    "gemm": "matrix products", "attention": "attention", "elementwise": "memory-bound passes",
    "host": "launch overhead",
    "tp": "tensor-parallel traffic", "cp": "context-parallel traffic", "ep": "expert traffic", "pp": "pipeline sends",
    "recompute": "recomputation", "activation_offload": "activation copies",
    "activation_casts": "casts of saved activations", "frozen": "frozen parts", "bubble": "pipeline bubble",
    "dp": "gradient and parameter traffic", "optimizer": "the update", "optimizer_offload": "the update on the host",
    "shared_cores": "shared cores", "jitter": "waiting for the slowest",
}  # fmt: skip


def layout_line(evaluated: Evaluated) -> str:
    """``tp 8 · pp 2 · dp 4 (shard 4) · micro-batch 1 · zero 1 · 1f1b``: only what is not 1."""
    layout = evaluated.placement.layout
    parts = [
        f"{name.replace('_', '-')} {getattr(layout, name)}"
        for name in ("tp", "pp", "vpp", "cp_ring", "cp_ulysses", "ep", "etp", "dp_replicate", "dp_shard")
        if getattr(layout, name) > 1
    ]
    parts += [f"micro-batch {layout.micro_batch_size}", f"zero {layout.zero_stage}"]
    if layout.pp > 1:
        parts.append(evaluated.placement.schedule)
    if layout.frozen_fill:
        parts.append("frozen parts in the bubbles")
    if evaluated.by_group:
        parts.append(f"{evaluated.of_rank(0).layers.setting.device.name} first")
    parts.append(policies_words(evaluated.placement.policies))
    return " · ".join([*parts, *state_words(layout)])


def list_alternatives(
    request: Request,
    problem: Problem,
    outcome: Outcome,
    best: Evaluated,
    before_each: Callable[[], object] = lambda: None,
) -> tuple[Alternative, ...]:
    """The next-best layouts that differ from the best in a degree, each simulated, each with what makes it worse.
    ``before_each``: called before each is placed; what it raises ends the work.
    """
    run = outcome.run
    if request.top == 0 or run is None:
        return ()

    def place(row: int) -> Evaluated | None:
        before_each()
        return run.placement(row)

    return rank_alternatives(request, outcome.space.row, best, place, next_rows(outcome))


def rank_alternatives(
    request: Request,
    layout_of: Callable[[int], Layout],
    best: Evaluated,
    place: Callable[[int], Evaluated | None],
    rows: Sequence[int],
    known: Sequence[Evaluated] = (),
) -> tuple[Alternative, ...]:
    """The next-best of what is ``known``, and of ``rows`` that are placed in turn, as ``list_alternatives``."""
    seen = {_degrees(best.placement.layout)}
    found: list[Evaluated] = []
    for one in sorted(known, key=lambda one: one.step_time_s):
        if _degrees(one.placement.layout) not in seen:
            seen.add(_degrees(one.placement.layout))
            found.append(one)
    tried = 0
    for row in rows:
        if len(found) >= request.top + SPARE or tried >= TRIES * request.top:
            break
        degrees = _degrees(layout_of(row))
        if degrees in seen:
            continue
        seen.add(degrees)
        tried += 1
        placed = place(row)
        if placed is not None:
            found.append(placed)
    found.sort(key=lambda one: one.step_time_s)
    ours = estimate_breakdown(best)
    return tuple(
        Alternative(
            line=layout_line(one),
            step_time_s=one.step_time_s,
            memory_bytes=float(one.priced.peak_device_bytes[0]),
            reason=say_difference(ours, estimate_breakdown(one)) + _say_schedule(best, one),
        )
        for one in found[: request.top]
    )


def _say_schedule(best: Evaluated, other: Evaluated) -> str:
    """What another schedule makes of the pipeline's idle time; nothing where both are the same."""
    ours, theirs = best.placement.layout, other.placement.layout
    if theirs.pp == 1 or (other.placement.schedule, theirs.vpp) == (best.schedule.name, ours.vpp):
        return ""
    idle = f"ranks idle {other.simulation.bubble_fraction:.1%} under {named(other)}"
    return f"; {idle}" + (f", {best.simulation.bubble_fraction:.1%} here under {named(best)}" if ours.pp > 1 else "")


def next_rows(outcome: Outcome) -> list[int]:
    """Rows by what is known of their times - simulated, or priced under uniform policies -, then those whose tight
    bound came near the answer."""
    known_s: dict[int, float] = {}
    for one in outcome.looked_at:
        known_s |= zip(one.rows[one.fits].tolist(), one.step_time_s[one.fits].tolist(), strict=True)
    known_s |= outcome.steps_s
    return [*sorted(known_s, key=lambda row: known_s[row]), *outcome.near]


def _degrees(layout: Layout) -> tuple[int, ...]:
    state = (layout.dp_shard, layout.micro_batch_size, layout.first_group)
    return (layout.tp, layout.pp, layout.cp, layout.ep, layout.etp, *state)


def say_difference(ours: dict[str, float], theirs: dict[str, float], most: int = 3) -> str:
    """``pipeline bubble +0.81 s, recomputation +0.40 s; less: tensor-parallel traffic -0.2 s``: largest terms first."""
    names = {key.removesuffix("_exposed_s") for key in (*ours, *theirs) if key.endswith("_exposed_s")}
    change = {name: theirs.get(f"{name}_exposed_s", 0.0) - ours.get(f"{name}_exposed_s", 0.0) for name in names}
    total = sum(ours.get(f"{name}_exposed_s", 0.0) for name in names)
    worse = sorted((name for name in change if change[name] > 0.001 * total), key=lambda name: -change[name])[:most]
    better = sorted((name for name in change if change[name] < -0.01 * total), key=lambda name: change[name])[:1]
    if not worse:
        return (
            "a tie"
            if not better
            else f"saves {_SAYS[better[0]]} {_seconds(-change[better[0]])} and spends it in small terms"
        )
    said = "more " + ", ".join(f"{_SAYS[name]} +{_seconds(change[name])}" for name in worse)
    return said + (f"; less {_SAYS[better[0]]} -{_seconds(-change[better[0]])}" if better else "")


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1.0 else f"{value * 1e3:.3g} ms"
