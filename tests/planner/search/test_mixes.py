"""The fastest mix under a device's room, a host's and its drives', against trying every mix."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from random import Random

import numpy as np
import pytest
from small_instances import build_model, build_request, with_every_policy

from costmodel.kept import KeptMicrobatches
from costmodel.layer_table import PricedLayers, price_layers
from costmodel.layouts import POLICIES, Policy
from planner.problem import Problem
from planner.search.fronts import list_compositions, undominated_rows
from planner.search.mixes import MixChooser, Room, Slot
from planner.search.policies import policy_sets
from planner.search.space import enumerate_layouts

AMPLE = float("inf")
AWAY = (Policy("none", "all"), Policy("none", "all", "nvme"))


def priced_row(shape: str) -> PricedLayers:
    """Layers of a runtime that has every policy, on nodes with drives."""
    fixed = {"pp": 2, "tp": 1, "micro_batch_size": 2}
    request = with_every_policy(build_request(build_model(shape, num_layers=12), 2, fixed=fixed))
    assert policy_sets(request) == (tuple(range(len(POLICIES))),)
    problem = Problem.from_request(request)
    return price_layers(problem.setting, problem.network, enumerate_layouts(request).take([0]))


def with_slow_recompute(layers: PricedLayers, draw: Random) -> PricedLayers:
    """Recomputation at random times, all above those of offloading, so that the host and its drives are what binds."""
    slow = layers.costs.recompute_s.copy()
    for policy, one in enumerate(POLICIES):
        if one.recompute != "none":
            slow[..., policy] += (layers.costs.offload_s.max() + slow.max()) * draw.uniform(2.0, 4.0)
    return replace(layers, costs=replace(layers.costs, recompute_s=slow))


def all_mixes(counts: tuple[int, ...], policies: tuple[int, ...]) -> np.ndarray:
    """[q, K, P] every way to give each kind's layers to policies."""
    of_kind = [
        [given for given in product(range(count + 1), repeat=len(policies)) if sum(given) == count] for count in counts
    ]
    mixes = np.zeros((len(of_kind[0]) * (len(of_kind[1]) if len(of_kind) > 1 else 1), len(counts), len(POLICIES)))
    for row, mix in enumerate(product(*of_kind)):
        mixes[row][:, list(policies)] = mix
    return mixes


@pytest.mark.parametrize("shape", ["dense", "dense then mixture"])
@pytest.mark.parametrize("in_flight", [6.0, 20.0])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_takes_the_fastest_that_device_host_and_drives_hold(shape: str, in_flight: float, seed: int) -> None:
    """Three policies at random beside keeping and sending all away; rooms as single mixes leave them."""
    draw = Random(seed)
    layers = with_slow_recompute(priced_row(shape), draw)
    counts = (4, 2)[: len(layers.forward[0]) - 2]
    kept = KeptMicrobatches(*(np.full((1, 2), count) for count in (in_flight, 1.0, 1.0)))
    policies = tuple(sorted({0, *(POLICIES.index(one) for one in AWAY), *draw.sample(range(1, len(POLICIES)), 3)}))
    chooser, slot = MixChooser(layers, policies, kept), Slot(1, counts)
    mixes = all_mixes(counts, policies)
    unit = chooser.saved_bytes + chooser.pending_bytes / in_flight
    plain = float(unit[:, 0] @ np.array(counts)) * in_flight
    present = mixes > 0
    pinned = np.where(present, chooser.pinned_bytes, 0.0).max(axis=(1, 2))

    def summed(column: np.ndarray) -> np.ndarray:
        return np.einsum("qkp,kp->q", mixes, column)

    time_s = summed(chooser.time_s)
    working = np.where(present, chooser.working_bytes, 0.0).max(axis=(1, 2))
    device = summed(unit) * in_flight - plain + working
    host, nvme = (summed(chooser.away_bytes[name]) * in_flight for name in ("host", "nvme"))
    host = host + pinned
    bound_by = {"host": 0, "nvme": 0}
    for _ in range(60):
        left, there, drives = (draw.choice(column.tolist()) * (1 + 1e-9) + 1.0 for column in (device, host, nvme))
        fits = {"device": device <= left, "host": host <= there, "nvme": nvme <= drives}
        inside = np.logical_and.reduce(list(fits.values()))
        found = chooser.fastest(slot, Room(left, 0.0, there, drives))
        if not inside.any():
            assert found is None
            continue
        assert found is not None
        (same,) = np.flatnonzero((mixes == found).all(axis=(1, 2)))
        assert inside[same]
        assert time_s[same] == pytest.approx(time_s[inside].min(), rel=1e-9)
        for name in bound_by:
            others = np.logical_and.reduce([mask for other, mask in fits.items() if other != name])
            bound_by[name] += bool(time_s[inside].min() > time_s[others].min() * (1 + 1e-9))
    assert bound_by["host"]
    assert bound_by["nvme"]


def test_the_least_room_is_where_the_first_mix_fits() -> None:
    layers = priced_row("dense then mixture")
    kept = KeptMicrobatches(*(np.full((1, 2), count) for count in (2.0, 0.0, 1.0)))
    chooser, slot = MixChooser(layers, tuple(range(len(POLICIES))), kept), Slot(0, (4, 2))
    least = float(chooser.least_bytes([slot], np.zeros(1))[0])
    assert chooser.fastest(slot, Room(least + 1.0, 0.0, AMPLE)) is not None
    assert chooser.fastest(slot, Room(least - 1.0, 0.0, AMPLE)) is None


@pytest.mark.parametrize("columns", [2, 3, 4])
def test_a_front_is_what_no_other_row_beats(columns: int) -> None:
    """Small whole numbers, so that ties and equal rows come up."""
    cost = np.random.default_rng(columns).integers(0, 7, (400, columns)).astype(np.float64)
    front = cost[undominated_rows(cost)]
    assert len(np.unique(front, axis=0)) == len(front)
    assert (np.diff(front[:, 0]) >= 0).all()
    for row in cost:
        beaten = (front <= row).all(axis=1)
        assert beaten.any()
    for row in front:
        assert not ((cost <= row).all(axis=1) & (cost < row).any(axis=1)).any()


@pytest.mark.parametrize(("count", "parts"), [(0, 3), (5, 1), (6, 4), (3, 9), (40, 6), (100, 9)])
def test_compositions_give_every_layer_a_policy(count: int, parts: int) -> None:
    """All of them while they are few, else mixes of three policies or of two."""
    table = list_compositions(count, parts)
    assert table.shape[1] == parts
    assert (table.sum(axis=1) == count).all()
    assert (table >= 0).all()
    if count <= 6:
        assert len(np.unique(table, axis=0)) == len(table)
        assert len(table) == sum(sum(given) == count for given in product(range(count + 1), repeat=parts))
