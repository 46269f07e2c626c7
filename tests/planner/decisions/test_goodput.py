"""Goodput: the closed form against simulated failures, the interval against brute force, and what may never be."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.decisions.goodput import estimate_best_interval_s, estimate_shares


def simulate_progress(
    interval_s: float, stall_s: float, mtbf_s: float, restart_s: float, write_s: float, failures: int = 40_000
) -> tuple[float, float]:
    """Share of time that makes progress, and its standard error: one cycle is a run up to a failure, and its restart.

    From a restart on, checkpoint j begins after j (τ + δ) and is safe w later; what is safe at the failure counts.
    """
    rng = np.random.default_rng(7)
    progress, spent = np.zeros(failures), np.zeros(failures)
    for cycle in range(failures):
        until_s = rng.exponential(mtbf_s)
        safe = max(np.floor((until_s - write_s) / (interval_s + stall_s)), 0.0)
        progress[cycle] = safe * interval_s
        spent[cycle] = until_s
        while (again_s := rng.exponential(mtbf_s)) < restart_s:
            spent[cycle] += again_s
        spent[cycle] += restart_s
    share = progress.sum() / spent.sum()
    error = sqrt(((progress - share * spent) ** 2).mean() / failures) / spent.mean()
    return share, error


@pytest.mark.parametrize(
    ("interval_s", "stall_s", "mtbf_s", "restart_s", "write_s"),
    [
        (1800, 60, 20_000, 600, 0),
        (1800, 300, 3600, 900, 0),
        (600, 5, 3600, 600, 400),
        (900, 100, 1000, 500, 1000),
    ],
)
def test_the_closed_form_is_what_simulated_failures_give(
    interval_s: float, stall_s: float, mtbf_s: float, restart_s: float, write_s: float
) -> None:
    share, error = simulate_progress(interval_s, stall_s, mtbf_s, restart_s, write_s)
    estimate = estimate_shares(interval_s, stall_s, mtbf_s, restart_s, write_s).progress
    assert error < 0.01
    assert abs(estimate - share) < 3 * error
    # The simulation can tell: ignoring restarts, or what is written in the background, would be noticed.
    assert abs(estimate_shares(interval_s, stall_s, mtbf_s, 0, write_s).progress - share) > 3 * error


@pytest.mark.parametrize(("mtbf_h", "best_min"), [(24, 117), (6, 57), (0.25, 9.1)])
def test_the_interval_is_that_of_dalys_figures(mtbf_h: float, best_min: float) -> None:
    """Source: Daly 2006, figures 3 to 5, for checkpoints of 5 minutes."""
    assert estimate_best_interval_s(300, mtbf_h * 3600) / 60 == pytest.approx(best_min, rel=0.006)


def test_with_quick_checkpoints_it_is_youngs() -> None:
    assert estimate_best_interval_s(1e-4, 1e6) == pytest.approx(sqrt(2 * 1e-4 * 1e6), rel=1e-4)


@pytest.mark.parametrize("stall_s", [1, 30, 300, 1500])
def test_no_interval_of_a_fine_grid_is_much_better(stall_s: float) -> None:
    mtbf_s, restart_s = 3600.0, 600.0
    grid = np.geomspace(1, 20_000, 4000)
    best = max(estimate_shares(float(at), stall_s, mtbf_s, restart_s).progress for at in grid)
    ours = estimate_shares(estimate_best_interval_s(stall_s, mtbf_s), stall_s, mtbf_s, restart_s).progress
    assert ours == pytest.approx(best, rel=2e-4)


def test_a_background_write_ends_before_the_next_begins() -> None:
    assert estimate_best_interval_s(1, 1000, write_s=500) == 499
    with pytest.raises(ValueError, match="takes no time"):
        estimate_best_interval_s(0, 1000)


times = st.floats(1, 1e5)


@given(times, st.floats(0.1, 1e4), st.floats(100, 1e7), st.floats(0, 1e4))
@settings(deadline=None)
def test_shares_sum_to_one_and_worse_is_never_better(
    interval_s: float, stall_s: float, mtbf_s: float, restart_s: float
) -> None:
    shares = estimate_shares(interval_s, stall_s, mtbf_s, restart_s)
    parts = (shares.progress, shares.checkpoint, shares.lost, shares.restart)
    assert sum(parts) == pytest.approx(1)
    assert min(parts) >= 0
    slower = (
        estimate_shares(interval_s, stall_s * 1.5, mtbf_s, restart_s),
        estimate_shares(interval_s, stall_s, mtbf_s / 1.5, restart_s),
        estimate_shares(interval_s, stall_s, mtbf_s, restart_s + 60),
        estimate_shares(interval_s, stall_s, mtbf_s, restart_s, write_s=interval_s / 2),
    )
    assert all(other.progress <= shares.progress for other in slower)
