"""The fastest mix under a device's room and a host's, against trying every mix."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from random import Random

import numpy as np
import pytest
from small_instances import build_model, build_request

from costmodel.layouts import POLICIES
from costmodel.memory import KeptMicrobatches
from costmodel.price import PricedLayers, price_layers
from planner.problem import Problem
from planner.search.mixes import MixChooser, Room, Slot
from planner.search.space import enumerate_layouts

EVERY = tuple(range(len(POLICIES)))


def priced_row(shape: str) -> PricedLayers:
    request = build_request(build_model(shape, num_layers=12), 2, fixed={"pp": 2, "tp": 1, "micro_batch_size": 2})
    problem = Problem.from_request(request)
    return price_layers(problem.setting, problem.network, enumerate_layouts(request).take([0]))


def with_slow_recompute(layers: PricedLayers, draw: Random) -> PricedLayers:
    """Recomputation at random times, all above those of offloading, so that the host is what binds."""
    slow = layers.costs.recompute_s.copy()
    for policy, one in enumerate(POLICIES):
        if one.recompute != "none":
            slow[..., policy] += (layers.costs.offload_s.max() + slow.max()) * draw.uniform(2.0, 4.0)
    return replace(layers, costs=replace(layers.costs, recompute_s=slow))


def all_mixes(counts: tuple[int, ...]) -> list[np.ndarray]:
    """[K, P] every way to give each kind's layers to policies."""
    of_kind = [
        [given for given in product(range(count + 1), repeat=len(POLICIES)) if sum(given) == count] for count in counts
    ]
    return [np.array(mix, np.float64) for mix in product(*of_kind)]


@pytest.mark.parametrize("shape", ["dense", "dense then mixture"])
@pytest.mark.parametrize("in_flight", [6.0, 20.0])
def test_takes_the_fastest_that_both_device_and_host_hold(shape: str, in_flight: float) -> None:
    layers = priced_row(shape)
    counts = (4, 2)[: len(layers.forward[0]) - 2]
    kept = KeptMicrobatches(*(np.full((1, 2), count) for count in (in_flight, 1.0, 1.0)))
    draw = Random(1)
    chooser, slot = MixChooser(with_slow_recompute(layers, draw), EVERY, kept), Slot(1, counts)
    mixes = all_mixes(counts)
    unit = chooser.saved_bytes + chooser.pending_bytes / in_flight
    plain = float(unit[:, 0] @ np.array(counts)) * in_flight

    def needs(mix: np.ndarray) -> tuple[float, float, float]:
        """Seconds, bytes on the device above policy 0, bytes on the host."""
        working = float(chooser.working_bytes[mix > 0].max())
        host = float((mix * chooser.host_bytes).sum()) * in_flight
        return float((mix * chooser.time_s).sum()), float((mix * unit).sum()) * in_flight - plain + working, host

    needed = [needs(mix) for mix in mixes]
    bound_by_host = 0
    for _ in range(60):
        left, host = draw.choice(needed)[1] + 1.0, draw.choice(needed)[2] + 1.0
        fitting = [one for one in needed if one[1] <= left and one[2] <= host]
        found = chooser.fastest(slot, Room(left, 0.0, host))
        if not fitting:
            assert found is None
            continue
        assert found is not None
        time_s, device_bytes, host_bytes = needs(found)
        assert time_s == pytest.approx(min(fitting)[0], rel=1e-9)
        assert device_bytes <= left + 1e-9 * abs(left)
        assert host_bytes <= host
        bound_by_host += min(fitting)[0] > min(one for one in needed if one[1] <= left)[0]
    assert bound_by_host


def test_the_least_room_is_where_the_first_mix_fits() -> None:
    layers = priced_row("dense then mixture")
    kept = KeptMicrobatches(*(np.full((1, 2), count) for count in (2.0, 0.0, 1.0)))
    chooser, slot = MixChooser(layers, EVERY, kept), Slot(0, (4, 2))
    least = float(chooser.least_bytes([slot], np.zeros(1))[0])
    assert chooser.fastest(slot, Room(least + 1.0, 0.0, np.inf)) is not None
    assert chooser.fastest(slot, Room(least - 1.0, 0.0, np.inf)) is None
