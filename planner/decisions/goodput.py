"""Failures and checkpoints: which interval to choose, and how much of a run's time then makes progress.

Failures arrive as a Poisson process of mean time M. Between two checkpoints lie τ seconds of training, each checkpoint
stalls it for δ, and its copy is safe w seconds after it began (w = 0 where training waits for it). After a failure the
job restarts in R seconds, may fail again meanwhile, and goes on from the newest safe checkpoint.

Source: Young 1974, "A first order approximation to the optimum checkpoint interval"; Daly 2006, "A higher order
estimate of the optimum checkpoint interval for restart dumps", equations 20 and 37.
Leaves out: failures that come in clusters, wear, spare nodes that run out, planned maintenance.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, expm1, sqrt

HOPELESS = 100.0
"""So many failures expected between two safe checkpoints are as good as no progress at all."""


@dataclass(frozen=True)
class Shares:
    """Of all time; they sum to 1: progress, checkpoints' stalls, work that is lost and done again, restarts."""

    progress: float
    checkpoint: float
    lost: float
    restart: float


def estimate_best_interval_s(stall_s: float, mtbf_s: float, write_s: float = 0.0) -> float:
    """τ = √(2δM) · [1 + ⅓ √(δ/2M) + ⅑ δ/2M] − δ for δ < 2M, else M: Daly's estimate, whose first factor is Young's.

    At least so long that one checkpoint is written before the next begins: τ + δ ≥ w. Raises ValueError for δ = w = 0,
    where any interval is longer than the best.
    """
    if stall_s <= 0 and write_s <= 0:
        raise ValueError("a checkpoint that takes no time has no best interval")
    ratio = stall_s / (2.0 * mtbf_s)
    if ratio >= 1.0:
        best_s = mtbf_s
    else:
        best_s = sqrt(2.0 * stall_s * mtbf_s) * (1.0 + sqrt(ratio) / 3.0 + ratio / 9.0) - stall_s
    return max(best_s, write_s - stall_s)


def estimate_shares(interval_s: float, stall_s: float, mtbf_s: float, restart_s: float, write_s: float = 0.0) -> Shares:
    """progress = τ / (M · e^((R + w)/M) · (e^((τ + δ)/M) − 1)), for w ≤ τ + δ.

    From one safe checkpoint to the next takes τ + δ where nothing fails; after a failure R, and then τ + δ + w from the
    older one, over and over until that passes without another. Its expectation is the denominator. Restarts begin at
    rate 1/M and each holds the job for M · (1 − e^(−R/M)), a failure within it included.
    """
    restart = -expm1(-restart_s / mtbf_s)
    wait, cycle = (restart_s + write_s) / mtbf_s, (interval_s + stall_s) / mtbf_s
    if wait + cycle > HOPELESS:
        return Shares(0.0, 0.0, 1.0 - restart, restart)
    cycle_s = mtbf_s * exp(wait) * expm1(cycle)
    progress, checkpoint = interval_s / cycle_s, stall_s / cycle_s
    return Shares(progress, checkpoint, max(1.0 - progress - checkpoint - restart, 0.0), restart)
