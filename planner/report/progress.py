"""A search under way, in one line. Imports no rich: it is there before the answer is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.report.units import seconds

if TYPE_CHECKING:
    from planner.search.run import Progress


def progress_line(progress: Progress) -> str:
    """One line on a search under way: how much is done, the best so far, and what nothing can beat."""
    if not progress.considered:
        return progress.about
    best = "none yet" if progress.best_s is None else seconds(progress.best_s)
    bound = "" if progress.bound_s is None else f", none below {seconds(progress.bound_s)}"
    done = f"{progress.evaluated:,} of {progress.considered:,} layouts evaluated"
    return f"{progress.about or 'searching'}: {done}, best {best}{bound}"
