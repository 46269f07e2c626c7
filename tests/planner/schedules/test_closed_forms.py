"""Generated orders against the papers' formulas, on a simulator of their own."""

from __future__ import annotations

import pytest
from slow_reference import makespan, peak_activations

from planner.schedules import build_schedule, supports
from planner.schedules.closed_forms import CLOSED_FORMS

SIZES = [(pp, m, vpp) for pp in (2, 3, 4, 6, 8) for m in (2, 3, 4, 6, 8, 12, 15, 16, 24) for vpp in (1, 2, 4)]


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_bubble_and_peak_are_as_stated(name: str) -> None:
    for form in CLOSED_FORMS[name]:
        held = 0
        for pp, m, vpp in SIZES:
            if not (supports(name, pp, m, vpp) and form.holds(pp, m)):
                continue
            schedule = build_schedule(name, pp, m, vpp)
            bubble, peak = makespan(schedule, *form.times) - m * sum(form.times), max(peak_activations(schedule))
            if form.exact:
                assert bubble == pytest.approx(form.bubble(pp, m, vpp), abs=1e-9), (pp, m, vpp)
                assert peak == pytest.approx(form.peak(pp, m, vpp)), (pp, m, vpp)
            else:
                assert bubble < form.bubble(pp, m, vpp)
                assert peak <= form.peak(pp, m, vpp)
            held += 1
        assert held >= 3


@pytest.mark.parametrize(
    ("name", "vpp", "ratio"),
    [
        ("chimera", 1, lambda p, m: (p - 2) / (1.5 * m + p - 2)),
        ("bitpipe", 2, lambda p, m: (p - 2) / (3 * m + p - 2)),
        ("hanayo", 2, lambda p, m: (2 * p - 2) / (3 * m + 2 * p - 2)),
        ("hanayo", 8, lambda p, m: (2 * p - 2) / (12 * m + 2 * p - 2)),
        ("gpipe+2bp", 1, lambda p, m: 2 * (p - 1) / (2 * (p - 1) + 3 * m)),
        ("zeropp", 2, lambda p, m: (p - 1) / (6 * m + p - 1)),
    ],
)
@pytest.mark.parametrize("p", [4, 8, 16])
def test_bubble_ratios_at_b_twice_f(name: str, vpp: int, ratio, p: int) -> None:  # type: ignore[no-untyped-def]
    """The published form of the formula: bubble over all of the step, m = p."""
    whole = makespan(build_schedule(name, p, p, vpp), 1, 1, 1)
    assert 1 - 3 * p / whole == pytest.approx(ratio(p, p))


@pytest.mark.parametrize(
    ("name", "vpp", "ends"), [("hanayo", 2, 14), ("hanayo", 4, 14), ("chimera", 1, 6), ("bitpipe", 2, 6)]
)
def test_units_wait_anew_where_f_and_b_differ(name: str, vpp: int, ends: int) -> None:
    """(u + 1)·e·F / v for u units of 8 micro-batches with B = 2F; e·F / v in all with B = F or under 2BP with I = F."""
    for units in (1, 2, 5):
        m = 8 * units
        plain = build_schedule(name, 8, m, vpp)
        assert makespan(plain, 1, 1, 1) - 3 * m == pytest.approx((units + 1) * ends / vpp)
        assert makespan(plain, 1, 0.5, 0.5) - 2 * m == pytest.approx(ends / vpp)
        assert makespan(build_schedule(f"{name}+2bp", 8, m, vpp), 1, 1, 1) - 3 * m == pytest.approx(ends / 2 / vpp)


@pytest.mark.parametrize(
    ("name", "vpp", "least"), [("chimera", 1, 5), ("bitpipe", 2, 6.5), ("hanayo", 2, 4.5), ("hanayo", 4, 6.25)]
)
def test_memory_of_units_is_nearly_even(name: str, vpp: int, least: float) -> None:
    """p - e/2v on the rank that keeps least, p on the one that keeps most; p = 8."""
    peaks = peak_activations(build_schedule(name, 8, 32, vpp))
    assert (min(peaks), max(peaks)) == (least, 8)


def test_dualpipe_keeps_p_plus_1_on_every_rank() -> None:
    assert peak_activations(build_schedule("dualpipe", 8, 20)) == [9] * 8
