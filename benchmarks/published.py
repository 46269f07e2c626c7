"""Published runs: each layout priced exactly as its authors ran it, beside the figure that they give.

    python benchmarks/published.py [--notes] [--write docs/accuracy.md]

The runs stand in benchmarks/data/published.toml. ``ratio`` is predicted over published step time; ``inside`` says
whether the published time lies in the prediction's own 90% interval. ``pinned`` is the ratio where the search, given
degrees, schedule and sharding, chooses what to recompute for a P(fits) of 95% at least, and ``recomputed`` how many
layers that takes.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from blocks import write_block

if TYPE_CHECKING:
    from planner.validation.published import JudgedRun

RUNS = Path(__file__).parent / "data" / "published.toml"


def table(judged: list[JudgedRun]) -> str:
    """A line a run."""
    lines = [
        f"{'run':<34} {'published':>9} {'predicted':>9} {'ratio':>6} {'inside':>6} {'MFU':>6} {'P(fits)':>8}"
        f" {'pinned':>7} {'recomputed':>11}"
    ]
    for one in judged:
        prediction = one.plan.prediction
        published = "-" if one.published_s is None else f"{one.published_s:.2f} s"
        inside = "-" if one.published_s is None else "yes" if one.covered else "no"
        line = f"{one.run.name:<34} {published:>9} {prediction.step_time_s.mean:>7.2f} s {_ratio(one.ratio):>6}"
        line = f"{line} {inside:>6} {prediction.mfu:>6.1%} {prediction.memory.fits_probability:>8.2f}"
        lines.append(f"{line} {_ratio(one.pinned_ratio):>7} {_recomputed(one):>11}")
    return "\n".join(lines)


def _ratio(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}"


def _recomputed(one: JudgedRun) -> str:
    if one.pinned is None:
        return "none fits"
    policies = [layer.recompute for layer in one.pinned.layers]
    if set(policies) == {one.run.recompute}:
        return "as run"
    return ", ".join(f"{policies.count(name)} {name}" for name in ("full", "selective") if name in policies) or "none"


def notes(judged: list[JudgedRun]) -> str:
    """What the sources leave open, and what is known to be off."""
    return "\n".join(
        f"{one.run.name}: {what}"
        for one in judged
        for what in (one.run.unstated and f"unstated - {one.run.unstated}", one.run.miss and f"miss - {one.run.miss}")
        if what
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--notes", action="store_true", help="what sources leave open, and why a run is missed")
    parser.add_argument(
        "--write", type=Path, metavar="PAGE", help="put the table into the block 'published' of this page"
    )
    arguments = parser.parse_args()

    from planner.validation.published import judge_run, load_published

    judged = [judge_run(run) for run in load_published(RUNS)]
    shown = table(judged)
    print(shown)
    if arguments.notes:
        print(f"\n{notes(judged)}")
    if arguments.write is not None:
        page = arguments.write.read_text(encoding="utf-8")
        arguments.write.write_text(write_block(page, "published", shown), encoding="utf-8")


if __name__ == "__main__":
    main()
