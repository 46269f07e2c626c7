"""Published runs, pinned: each layout priced exactly as its authors ran it, beside the figure that they give.

    python benchmarks/published.py [--notes] [--write docs/accuracy.md]

The runs stand in benchmarks/data/published.toml. ``ratio`` is predicted over published step time; ``inside`` says
whether the published time lies in the prediction's own 90% interval.
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
    lines = [f"{'run':<34} {'published':>9} {'predicted':>9} {'ratio':>6} {'inside':>6} {'MFU':>6} {'P(fits)':>8}"]
    for one in judged:
        prediction = one.plan.prediction
        published = "-" if one.published_s is None else f"{one.published_s:.2f} s"
        ratio = "-" if one.ratio is None else f"{one.ratio:.2f}"
        inside = "-" if one.published_s is None else "yes" if one.covered else "no"
        line = f"{one.run.name:<34} {published:>9} {prediction.step_time_s.mean:>7.2f} s {ratio:>6} {inside:>6}"
        lines.append(f"{line} {prediction.mfu:>6.1%} {prediction.memory.fits_probability:>8.2f}")
    return "\n".join(lines)


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
