"""The fastest mix of policies that fits a range of layers, against trying every mix."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import pytest
from exhaustive import all_mixes
from small_instances import build_model, build_request, random_request

from costmodel.layer_table import PricedLayers, price_layers
from planner.problem import Problem
from planner.request import Request
from planner.search.least_time import least_backward_s
from planner.search.mixes import Slot
from planner.search.options import OptionColumns, SlotRooms
from planner.search.policies import policy_sets
from planner.search.space import enumerate_layouts


def priced_row(request: Request, row: int) -> PricedLayers:
    """On a host that holds whatever is offloaded; test_host has small ones."""
    problem = Problem.from_request(request)
    ample = problem.setting.host.model_copy(update={"memory_bytes": 1e16})
    setting = replace(problem.setting, host=ample)
    return price_layers(setting, problem.network, enumerate_layouts(request).take([row]))


def check_slot(layers: PricedLayers, slot: Slot, policies: tuple[int, ...], draw: Random, budgets: int) -> int:
    """Budgets from what the leanest mix takes to what the hungriest does; returns how many were tight."""
    mixes = all_mixes(layers, slot.rank, slot.counts, policies, np.inf)
    sizes = sorted(mix.claim_bytes for mix in mixes)
    tight = 0
    for budget_bytes in [sizes[0] * 0.999, sizes[-1] * 1.001, *(draw.choice(sizes) * 1.0001 for _ in range(budgets))]:
        fitting = [mix for mix in mixes if mix.claim_bytes <= budget_bytes]
        # A rank without experts waits for the collectives of those that have some, so all kinds stand beside it.
        every = Slot(slot.rank, tuple(count + 1 for count in slot.counts))
        rooms = SlotRooms(layers, [slot, every], policies)
        option = OptionColumns(rooms, budget_bytes).of_row(0).get(slot)
        least_s = float(least_backward_s(rooms, budget_bytes)[0])
        if not fitting:
            assert option is None
            continue
        best = min(fitting, key=lambda mix: mix.backward_s)
        assert option is not None, (slot, best)
        assert option.forward_s + option.backward_s == pytest.approx(best.forward_s + best.backward_s, rel=1e-9)
        assert option.mix.sum(axis=1).tolist() == list(slot.counts)
        own_s = rooms.chooser.time_s
        fastest_s = float(own_s[:, list(policies)].min(axis=1) @ np.array(slot.counts))
        assert fastest_s * (1.0 - 1e-9) <= least_s <= float((option.mix * own_s).sum()) * (1.0 + 1e-9)
        same = next(mix for mix in mixes if (mix.counts == option.mix).all())
        assert same.claim_bytes <= budget_bytes
        # Ranks that share cores update no faster than the cores do.
        extras_s = same.extras_s * float(layers.contention[0])
        assert (option.weight_grad_s, option.extras_s) == pytest.approx((same.weight_grad_s, extras_s), rel=1e-9)
        tight += len(fitting) < len(mixes)
    return tight


@pytest.mark.parametrize("seed", range(24))
def test_equals_trying_every_mix(seed: int) -> None:
    draw = Random(seed)
    request = random_request(seed)
    problem = Problem.from_request(request)
    for _ in range(4):
        layers = priced_row(request, draw.randrange(len(enumerate_layouts(request))))
        total = np.bincount(problem.kinds, minlength=problem.num_kinds)
        slot = Slot(draw.randrange(int(layers.layouts.pp[0])), tuple(draw.randint(0, int(most)) for most in total))
        if sum(slot.counts):
            for policies in policy_sets(request):
                check_slot(layers, slot, policies, draw, 4)


@pytest.mark.parametrize("shape", ["dense", "dense then mixture", "unlike"])
@pytest.mark.parametrize("schedule", ["1f1b", "zb-h1"])
def test_many_layers_under_every_budget(shape: str, schedule: str) -> None:
    """Eight and four layers a kind and all four policies: hundreds of mixes, thirty budgets between the extremes."""
    fixed = {"pp": 2, "tp": 1, "schedule": schedule, "micro_batch_size": 2, "zero_stage": 0}
    request = build_request(build_model(shape, num_layers=24), 4, global_batch_size=16, fixed=fixed)
    layers = priced_row(request, 0)
    kinds = len(request.model.kinds)
    tight = sum(
        check_slot(layers, Slot(rank, (8, 4)[:kinds]), policies, Random(rank), 15)
        for rank in range(2)
        for policies in ((0, 1, 2, 3), (0, 1, 2))
    )
    assert tight > 20


def test_takes_slots_together_as_alone() -> None:
    request = build_request(build_model("windows", num_layers=12), 4, fixed={"pp": 4, "schedule": "1f1b"})
    layers = priced_row(request, 0)
    slots = [Slot(rank, counts) for rank in range(4) for counts in ((1, 2), (2, 1), (3, 4))]
    sizes = [mix.claim_bytes for mix in all_mixes(layers, 0, (2, 1), (0, 1, 2, 3), np.inf)]
    budget_bytes = float(np.median(sizes))
    together = OptionColumns(SlotRooms(layers, slots, (0, 1, 2, 3)), budget_bytes).of_row(0)
    assert 0 < len(together) <= len(slots)
    for slot in slots:
        alone = OptionColumns(SlotRooms(layers, [slot], (0, 1, 2, 3)), budget_bytes).of_row(0)
        assert (slot in together) == (slot in alone)
        if slot in together:
            assert together[slot].backward_s == pytest.approx(alone[slot].backward_s, rel=1e-12)
