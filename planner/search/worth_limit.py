"""How much worth of layers fits a rank's time and memory at once, fractions allowed.

    max  sum_q c_q y_q   subject to   sum_q t_q y_q <= time,   sum_q a_q y_q <= budget,   y >= 0

The dual's least value is the same: min of u · time + v · budget over u, v >= 0 with t_q u + a_q v >= c_q for every
column q. One of that polygon's corners has it, and these depend on the columns alone: per unit of worth a column is a
point (t/c, a/c), and a corner is an edge of the lower left hull of the points, or the least of either coordinate. So
the hull is wrapped once, and every question costs a line per corner.
"""

from __future__ import annotations

import numpy as np

from costmodel.layouts import Column

MOST_S = 1e100
"""Longer than any step: what an endless time counts as."""


class WorthLimit:
    """``layer_s``, ``worth``: [n, 1 or S, Q], ``layer_bytes``: [n, S, Q] of every column, all above 0."""

    def __init__(self, layer_s: Column, layer_bytes: Column, worth: Column) -> None:
        points_s, points_bytes = np.broadcast_arrays(layer_s / worth, layer_bytes / worth)
        at_s = points_s.min(axis=-1)
        at_bytes = np.where(points_s == at_s[..., None], points_bytes, np.inf).min(axis=-1)
        corners = [(1.0 / at_s, np.zeros_like(at_s))]
        steepest = np.full_like(at_s, -np.inf)
        while True:
            # Bytes saved for each second more, from where the hull has come to every point further on.
            beyond = (points_s > at_s[..., None]) & (points_bytes < at_bytes[..., None])
            if not beyond.any():
                break
            with np.errstate(divide="ignore", invalid="ignore"):
                slopes = (points_bytes - at_bytes[..., None]) / (points_s - at_s[..., None])
            slopes = np.where(beyond, slopes, 0.0)
            chosen = slopes.argmin(axis=-1)[..., None]
            # Points that all but coincide have any slope; a hull's only rise.
            steepest = np.maximum(steepest, np.take_along_axis(slopes, chosen, axis=-1)[..., 0])
            per_byte = 1.0 / (at_bytes - steepest * at_s)
            corners.append((-steepest * per_byte, per_byte))
            more = beyond.any(axis=-1)
            at_s = np.where(more, np.take_along_axis(points_s, chosen, axis=-1)[..., 0], at_s)
            at_bytes = np.where(more, np.take_along_axis(points_bytes, chosen, axis=-1)[..., 0], at_bytes)
        corners.append((np.zeros_like(at_s), 1.0 / at_bytes))
        self.corners = corners

    def most(self, time_s: Column, budget_bytes: Column) -> Column:
        """[n, S] the most worth that fits, for ``time_s`` and ``budget_bytes`` [n, S]; nothing where either is below
        0."""
        time_s, budget_bytes = np.clip(time_s, 0.0, MOST_S), np.maximum(budget_bytes, 0.0)
        (per_s, _), *others = self.corners
        least = per_s * time_s
        for per_s, per_byte in others:
            least = np.minimum(least, per_s * time_s + per_byte * budget_bytes)
        return np.asarray(least)
