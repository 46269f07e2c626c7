"""Every way to treat a layer at once - kept, narrowed, recomputed, sent away - against exhaustive search."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest
from exhaustive import best_placement, random_placement
from small_instances import build_model, build_request, with_budget, with_every_policy, with_request

from costmodel.layer_table import price_layers
from costmodel.layouts import POLICIES
from costmodel.memory import HOST_SHARE, claim_budget_bytes
from planner.evaluate import evaluate
from planner.problem import Problem
from planner.request import Request
from planner.search.best_first import search
from planner.search.find import find_plan
from planner.search.fronts import list_compositions
from planner.search.policies import policy_sets
from planner.search.rounding import round_corner
from planner.search.space import enumerate_layouts


def instance(seed: int) -> Request:
    """Four layers on two devices, every policy allowed, and just so much device memory that some of them are needed."""
    draw = Random(seed)
    schedule = draw.choice(("1f1b", "1f1b", "zb-h1", "gpipe"))
    pp = 2 if schedule != "1f1b" else draw.choice((1, 2))
    model = build_model(
        draw.choice(("dense", "dense", "dense then mixture")), num_layers=4, hidden=draw.choice((1024, 4096))
    )
    fixed = {"tp": 1, "pp": pp, "micro_batch_size": 1, "schedule": schedule, "zero_stage": draw.choice((0, 1))}
    gpu = draw.choice(("h100", "rtx4090"))
    request = build_request(model, 2, gpu=gpu, seq_len=4096, global_batch_size=8, fixed=fixed, gap=0.0, top=0)
    request = with_every_policy(request)
    if not len(enumerate_layouts(request)):
        request = with_request(request, fixed={**fixed, "zero_stage": 1 - int(fixed["zero_stage"])})
    return short_of_memory(request, draw, draw.choice((0.1, 0.3, 0.5)))


def short_of_memory(request: Request, draw: Random, share: float) -> Request:
    """Device memory so far from what the leanest of some random placements claims to what keeping everything does."""
    problem, layouts = Problem.from_request(request), enumerate_layouts(request)
    row = price_layers(problem.setting, problem.network, layouts.take([0]))
    drawn = [random_placement(draw, problem, row, policy_sets(request)[0]) for _ in range(24)]
    kept = random_placement(draw, problem, row, (0,))
    least, most = (
        f(float(evaluate(problem, one, layers=row).priced.peak_claim_bytes[0]) for one in some)
        for f, some in ((min, drawn), (max, [kept]))
    )
    return with_budget(request, least + share * max(most - least, 0.0) + 1e6)


def with_host(request: Request, **changes: float) -> Request:
    group = request.cluster.groups[0]
    other = group.model_copy(update={"host": group.host.model_copy(update=changes)})
    return replace(request, cluster=request.cluster.model_copy(update={"groups": (other,)}))


def exhaustive_s(request: Request) -> float:
    problem, layouts = Problem.from_request(request), enumerate_layouts(request)
    layers = price_layers(problem.setting, problem.network, layouts)
    budget_bytes = claim_budget_bytes(problem.setting, request.fit_probability)
    rows = (layers.take(np.array([row])) for row in range(len(layouts)))
    found = (best_placement(problem, row, policy_sets(request), budget_bytes) for row in rows)
    return min((best.step_time_s for best in found if best is not None), default=float("inf"))


@pytest.mark.parametrize("seed", range(8))
def test_equals_exhaustive_search_where_host_and_drives_are_short(seed: int) -> None:
    """First with all the host there is, then with part of what that answer uses, then of its drives as well."""
    request = instance(seed)
    devices = request.cluster.groups[0].devices_per_node
    tried, best = 0, None
    for share in (1.0, 0.6, 0.3):
        if best is not None:
            used = best.priced.memory
            host, nvme = (float(one.max()) * devices / HOST_SHARE for one in (used.host, used.nvme))
            request = with_host(
                request, **({"nvme_bytes": nvme * share} if nvme else {"memory_bytes": host * share + 1.0})
            )
        best_s = exhaustive_s(request)
        best = search(request, Problem.from_request(request)).best
        assert (best is None) == (best_s == float("inf"))
        if best is None:
            break
        assert best.step_time_s == pytest.approx(best_s, rel=1e-9)
        assert best.priced.fits_host.all()
        tried += 1
    assert tried


def test_instances_bind_what_they_say() -> None:
    """Of the first of those seeds some answers leave the host, some use drives, some narrow, some are mixed."""
    names: set[str] = set()
    for seed in range(6):
        request = instance(seed)
        for small in (request, with_host(request, memory_bytes=2e9)):
            best = search(small, Problem.from_request(small)).best
            if best is not None:
                names |= {POLICIES[policy].name for policy in best.placement.policies}
    said = " ".join(names)
    for part in ("hidden-offload", "int8", "nvme"):
        assert part in said


@pytest.mark.parametrize("seed", range(20))
def test_a_rounded_corner_is_near_the_best_of_all_mixes(seed: int) -> None:
    """No more than one layer's costliest change of policy slower, and never over a room."""
    rng = np.random.default_rng(seed)
    counts = ((9,), (5, 4))[seed % 2]
    resources = 2 + seed % 3 // 2
    costs = [rng.uniform(0.0, 1.0, (4, 1 + resources)) for _ in counts]
    tables = [list_compositions(count, 4) @ cost for count, cost in zip(counts, costs, strict=True)]
    total = tables[0] if len(tables) == 1 else (tables[0][:, None] + tables[1][None]).reshape(-1, 1 + resources)
    for _ in range(10):
        room = total[rng.integers(len(total)), 1:] + 1e-9
        best_s = total[(total[:, 1:] <= room).all(axis=1), 0].min()
        found = round_corner(counts, costs, room)
        if found is None:
            continue
        mixes, cost = found
        assert [int(mix.sum()) for mix in mixes] == list(counts)
        assert (sum(mix @ one for mix, one in zip(mixes, costs, strict=True))[1:] <= room * (1 + 1e-9)).all()
        assert best_s - 1e-9 <= cost[0] <= best_s + 1.0


def test_corners_stand_in_where_mixes_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty-four layers on a small host: the answer fits, and beats keeping off the host altogether."""
    asked = []

    def counted(*args: Any) -> Any:
        asked.append(args)
        return round_corner(*args)

    monkeypatch.setattr("planner.search.mixes.round_corner", counted)
    monkeypatch.setattr("planner.search.mixes.MAX_COMPOSITIONS", 1000)
    fixed = {"tp": 1, "pp": 1, "micro_batch_size": 1, "zero_stage": 1}
    model = build_model(num_layers=24, hidden=4096)
    request = build_request(model, 2, seq_len=8192, global_batch_size=8, fixed=fixed, top=0)
    request = short_of_memory(with_every_policy(request), Random(0), 0.3)
    devices = request.cluster.groups[0].devices_per_node
    ample = find_plan(request).prediction.memory.host_bytes
    small = with_host(request, memory_bytes=0.5 * ample * devices / HOST_SHARE, nvme_bytes=0.0)
    plan = find_plan(small)
    assert asked
    assert 0.4 * ample < plan.prediction.memory.host_bytes <= 0.5 * ample
    without = find_plan(with_request(small, forbidden=frozenset({"activation_offload"})))
    assert plan.prediction.step_time_s.mean < without.prediction.step_time_s.mean
