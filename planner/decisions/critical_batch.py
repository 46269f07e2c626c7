"""The critical batch size: larger steps are fewer, but not by as much as they are larger.

Steps to a given loss at batch B: S(B) = S_min · (1 + B_crit / B), hence tokens E(B) = B · S(B) = S_min · (B + B_crit):
far below B_crit they hardly depend on B, far above it they grow with it.

Source: McCandlish, Kaplan, Amodei 2018, "An Empirical Model of Large-Batch Training", equation 2.11.
"""

from __future__ import annotations


def estimate_tokens(tokens: float, batch_tokens: float, asked_batch_tokens: float, critical_tokens: float) -> float:
    """Tokens that a run takes at ``batch_tokens`` a step, for the loss that ``tokens`` give at ``asked_batch_tokens``.

    E(B) = E(B₀) · (B + B_crit) / (B₀ + B_crit).
    """
    return tokens * (batch_tokens + critical_tokens) / (asked_batch_tokens + critical_tokens)
