"""Random order problems: unequal stages, any placement, caps from one micro-batch up."""

from __future__ import annotations

from hypothesis import strategies as st

from costmodel.placement import looped, zigzag
from planner.simulator import StageTimes
from planner.synthesis import OrderProblem


@st.composite
def order_problems(draw: st.DrawFn, max_passes: int = 120, max_pp: int = 4, max_vpp: int = 3) -> OrderProblem:
    """Problems of at most ``max_passes`` passes, with whole numbers for times and weights."""
    pp, vpp = draw(st.integers(1, max_pp)), draw(st.integers(1, max_vpp))
    splits = draw(st.booleans())
    most = max(1, max_passes // (pp * vpp * (3 if splits else 2)))
    num_microbatches = draw(st.integers(1, min(most, 6)))
    placement = draw(st.sampled_from((looped, zigzag)))(pp, vpp)
    stages = len(placement)

    def column(least: int) -> list[float]:
        return draw(st.lists(st.integers(least, 9).map(float), min_size=stages, max_size=stages))

    times = StageTimes(column(1), column(1), column(0), edge_s=draw(st.sampled_from((0.0, 0.5, 3.0))))
    weights = tuple(column(1)) if draw(st.booleans()) else (1.0,) * stages
    needed = [sum(w for w, home in zip(weights, placement, strict=True) if home == rank) for rank in range(pp)]
    room = draw(st.sampled_from((1.0, 1.3, 2.0, 3.5, 100.0)))
    return OrderProblem(placement, num_microbatches, times, tuple(room * need for need in needed), weights, splits)


def uniform(
    pp: int, m: int, vpp: int, cap: float, times: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 0.0)
) -> OrderProblem:
    """Ranks all alike, stages in zigzag; ``times``: F, I, W of a rank and the delay of an edge."""
    passes = [time / vpp for time in times[:3]]
    return OrderProblem(zigzag(pp, vpp), m, StageTimes.uniform(pp * vpp, *passes, edge_s=times[3]), cap)
