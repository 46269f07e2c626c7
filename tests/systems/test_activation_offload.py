"""Saved activations off the device: where the search takes each system, for which reason, and where not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from one_node import all_under, answer, budget_bytes, claim_bytes, exposed_s, llama, policies

from costmodel.memory import HOST_SHARE
from planner.assemble import reprice
from planner.request import Request
from planner.search import find_plan


def with_host(request: Request, **changes: float) -> Request:
    group = request.cluster.groups[0]
    other = group.model_copy(update={"host": group.host.model_copy(update=changes)})
    return replace(request, cluster=request.cluster.model_copy(update={"groups": (other,)}))


def with_drives(request: Request) -> Request:
    """The same on a framework that copies to the nodes' drives beside its passes."""
    rules = request.runtime.overlap.model_copy(update={"nvme_offload": 1.0})
    return replace(request, runtime=request.runtime.model_copy(update={"overlap": rules, "nvme_offload": True}))


class TestMemo:
    """Part of what layers save is swapped, as much as copies hide; what is cheap to compute is computed again."""

    def test_wins_where_a_layer_cannot_hide_all_of_its_copies(self) -> None:
        request = llama(16384)
        best = answer(request)
        assert policies(best)["selective+hidden-offload"] > 0
        whole, on_device = (answer(llama(16384, name)) for name in ("partial_offload", "activation_offload"))
        # Sending all exposes copies, sending nothing recomputes whole layers.
        assert exposed_s(best, "activation_offload") < 0.5 * exposed_s(whole, "activation_offload")
        assert exposed_s(best, "recompute") < 0.2 * exposed_s(on_device, "recompute")
        assert best.step_time_s < whole.step_time_s < on_device.step_time_s

    def test_shares_are_in_the_plan_and_priced_from_it(self) -> None:
        """The same in every layer of a kind and policy, none of them all or nothing."""
        plan = find_plan(replace(llama(16384), top=0))
        shares = {(layer.recompute, layer.offload) for layer in plan.layers}
        assert len(shares) == len({recompute for recompute, _ in shares}) == 2
        assert all(0.0 < share < 1.0 for _, share in shares)
        assert reprice(plan) == plan.prediction

    def test_loses_where_everything_fits(self) -> None:
        best = answer(llama(4096))
        assert policies(best) == {"none": 32}
        away = all_under(best, "none+hidden-offload")
        assert claim_bytes(away) < claim_bytes(best)
        assert away.step_time_s > best.step_time_s

    def test_loses_on_a_slow_link(self) -> None:
        """At 2 GB/s next to nothing hides, and a recomputed layer is sooner there."""
        slow = with_host(llama(16384), device_link_bytes_per_s=2e9)
        best = answer(slow)
        assert set(policies(best)) == {"full", "selective"}
        away = all_under(best, "selective+hidden-offload")
        assert claim_bytes(away) > budget_bytes(best, slow)
        assert float(away.priced.memory.host.max()) < 0.05 * claim_bytes(away)


class TestSsdTrain:
    def test_wins_where_the_host_is_full(self) -> None:
        """Drives take what the host cannot: fewer layers are computed again."""
        small = with_host(llama(16384), memory_bytes=1e11)
        best, before = answer(with_drives(small)), answer(small)
        room = HOST_SHARE * 1e11 / 8
        assert float(best.priced.memory.nvme.max()) > 0.0
        assert 0.9 * room < float(best.priced.memory.host.max()) <= room
        assert exposed_s(best, "recompute") < exposed_s(before, "recompute")
        assert best.step_time_s < before.step_time_s

    def test_loses_where_the_host_has_room(self) -> None:
        """A device's share of the drives is a tenth of its link to the host, and hides a tenth as much."""
        request = with_drives(llama(16384))
        best = answer(request)
        assert float(best.priced.memory.nvme.max()) == 0.0
        drives = all_under(best, "selective+hidden-offload-nvme")
        assert claim_bytes(drives) > budget_bytes(best, request)

    def test_full_drives_bound_it(self) -> None:
        """Half of the capacity that it would use."""
        small = with_drives(with_host(llama(16384), memory_bytes=2e10))
        used = float(answer(small).priced.memory.nvme.max())
        capacity = 0.5 * used * 8 / HOST_SHARE
        bound = answer(with_host(small, nvme_bytes=capacity))
        assert 0.0 < float(bound.priced.memory.nvme.max()) <= HOST_SHARE * capacity / 8

    def test_needs_drives_and_a_framework_that_uses_them(self) -> None:
        small = with_host(llama(16384), memory_bytes=1e11)
        none: dict[str, Any] = {"nvme_bytes": 0.0}
        for request in (small, with_drives(with_host(small, **none))):
            assert not any("nvme" in name for name in policies(answer(request)))
