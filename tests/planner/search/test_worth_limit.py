"""The most worth that fits time and memory, against every corner of the linear program."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.search.worth_limit import WorthLimit

positive = st.floats(0.125, 8.0)
columns = st.lists(st.tuples(positive, positive, positive), min_size=1, max_size=6)


def most_of_pairs(time_s: float, budget_bytes: float, columns: list[tuple[float, float, float]]) -> float:
    """Two constraints have a best solution of two columns at most: each alone, and each two where both bind."""
    best = max(c * min(time_s / t, budget_bytes / a) for t, a, c in columns)
    for (t, a, c), (u, b, d) in combinations(columns, 2):
        determinant = t * b - u * a
        if abs(determinant) > 1e-9 * t * b:
            first = (time_s * b - u * budget_bytes) / determinant
            second = (t * budget_bytes - time_s * a) / determinant
            if min(first, second) >= 0.0:
                best = max(best, c * first + d * second)
    return best


@given(columns, st.floats(0.0, 100.0), st.floats(0.0, 100.0))
@settings(deadline=None)
def test_no_mix_of_two_columns_is_worth_more_or_less(
    columns: list[tuple[float, float, float]], time_s: float, budget_bytes: float
) -> None:
    layer_s, layer_bytes, worth = np.array(columns).T[:, None, None]
    found = WorthLimit(layer_s, layer_bytes, worth).most(np.array([[time_s]]), np.array([[budget_bytes]]))
    assert found.item() == pytest.approx(most_of_pairs(time_s, budget_bytes, columns), rel=1e-7, abs=1e-12)


def test_rows_with_hulls_of_unlike_length() -> None:
    """One column beats the others on the first rank; on the second all three are corners."""
    layer_s = np.array([[[1.0, 2.0, 4.0]]])
    layer_bytes = np.array([[[1.0, 2.0, 3.0], [9.0, 4.0, 1.0]]])
    limit = WorthLimit(layer_s, layer_bytes, np.ones_like(layer_s))
    # On the second rank one of the first column and two of the second: 1 + 2 · 2 seconds, 9 + 2 · 4 bytes.
    time_s, budget = np.array([[6.0, 5.0]]), np.array([[3.0, 17.0]])
    np.testing.assert_allclose(limit.most(time_s, budget), [[3.0, 3.0]], rtol=1e-12)
    assert limit.most(np.full((1, 2), np.inf), budget).tolist() == [[3.0, 17.0]]
    assert limit.most(time_s, -budget).tolist() == [[0.0, 0.0]]
