"""Recomputation and saved activations in 8 bits: where the search takes each system, for which reason, where not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from one_node import all_under, answer, budget_bytes, claim_bytes, exposed_s, llama, policies

from costmodel.memory import PARTS
from planner.evaluate import evaluate
from planner.placement import Placement
from planner.problem import Problem
from planner.request import Request, build_request


def gpt(micro_batch_size: int, *fix: str) -> Request:
    """The 22 B model of Megatron's paper on one node, attention not fused."""
    return build_request(
        "megatron-gpt-22b", 8, runtime="megatron-2022", gpu="a100-80g", precision="fp16", seq_len=2048,
        global_batch_size=16, fix=("tp=8", f"micro_batch_size={micro_batch_size}", *fix), calibration="none",
    )  # fmt: skip


class TestMegatronSelectiveRecomputation:
    def test_wins_where_scores_crowd_the_device(self) -> None:
        """Micro-batches of four: with scores kept nothing fits; dropping them alone costs little of dropping all."""
        request = gpt(4)
        best = answer(request)
        assert set(policies(best)) == {"selective"}
        kept, full = all_under(best, "none"), all_under(best, "full")
        assert claim_bytes(kept) > budget_bytes(best, request)
        assert exposed_s(best, "recompute") < 0.2 * exposed_s(full, "recompute")

    def test_loses_where_everything_fits(self) -> None:
        best = answer(gpt(1))
        assert set(policies(best)) == {"none"}
        again = all_under(best, "selective")
        assert again.step_time_s - best.step_time_s == pytest.approx(exposed_s(again, "recompute"), rel=0.02)

    def test_loses_where_even_its_remainder_does_not_fit(self) -> None:
        """Micro-batches of eight: only the layers' inputs fit."""
        request = gpt(8)
        best = answer(request)
        assert set(policies(best)) == {"full"}
        assert claim_bytes(all_under(best, "selective")) > budget_bytes(best, request)

    def test_with_sequence_parallelism_takes_a_fifth_of_the_memory(self) -> None:
        """Bytes that layers keep, against all tensors on ranks that all hold the norms' whole inputs."""
        layer = answer(gpt(4)).placement
        problem = Problem.from_request(gpt(4))
        whole = layer.layout.model_copy(update={"sequence_parallel": False})
        lean, plain = (
            evaluate(problem, Placement(layout, layer.schedule, layer.layers_per_stage, (policy,) * 48))
            for layout, policy in ((layer.layout, 1), (whole, 0))
        )
        kept = [one.priced.memory.parts[0, 0, PARTS.index("activations")] for one in (lean, plain)]
        assert 4.0 < kept[1] / kept[0] < 6.5


class TestPerLayerChoice:
    def test_beats_any_one_policy_for_all_layers(self) -> None:
        """As many layers as fit keep more; each policy alone is too slow, or too large."""
        request = llama(16384, "activation_offload")
        best = answer(request)
        assert len(policies(best)) > 1
        for name in ("none", "selective", "full"):
            uniform = all_under(best, name)
            assert uniform.step_time_s > best.step_time_s or claim_bytes(uniform) > budget_bytes(best, request)
        assert claim_bytes(all_under(best, "full")) < claim_bytes(best) <= budget_bytes(best, request)

    def test_is_uniform_where_memory_is_no_concern(self) -> None:
        best = answer(llama(4096))
        assert policies(best) == {"none": 32}
        assert claim_bytes(best) < 0.9 * budget_bytes(best, llama(4096))


class TestSavedActivationsIn8Bits:
    """Mesa, COAT."""

    def test_win_where_casts_cost_less_than_computing_again(self) -> None:
        """Half the bytes for a pass over them: fewer layers are recomputed in full."""
        wide = llama(16384, "activation_offload", int8_activations=True)
        best = answer(replace(wide, allowed=frozenset({"int8_activations"})))
        before = answer(wide)
        assert policies(best)["selective+int8"] > 0
        assert policies(best)["full"] < policies(before)["full"]
        casts_s = exposed_s(best, "activation_casts")
        assert 0.0 < casts_s < exposed_s(before, "recompute") - exposed_s(best, "recompute")
        assert best.step_time_s < before.step_time_s

    def test_are_lossy_and_taken_only_where_allowed(self) -> None:
        best = answer(llama(16384, "activation_offload", int8_activations=True))
        assert not any("int8" in name for name in policies(best))

    def test_lose_where_everything_fits(self) -> None:
        wide = replace(llama(4096, int8_activations=True), allowed=frozenset({"int8_activations"}))
        best = answer(wide)
        assert policies(best) == {"none": 32}
        narrow = all_under(best, "none+int8")
        assert claim_bytes(narrow) < claim_bytes(best)
        assert exposed_s(narrow, "activation_casts") > 0.0
        assert narrow.step_time_s > best.step_time_s
