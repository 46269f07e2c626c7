"""Tensor, sequence and context parallelism: where the search takes each system, for which reason, and where not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from planner.evaluate import Evaluated, evaluate
from planner.lengths import Histogram, find_length_plan
from planner.placement import Placement
from planner.prediction import estimate_breakdown
from planner.problem import Problem
from planner.request import Request, build_request
from planner.search import find_plan
from planner.search.best_first import search

ALONE = ("pp=1", "tp=1")
"""Neither pipeline nor tensor parallelism: only context and data parallelism are in question."""


def ask(model: str, gpus: int, *fix: str, runtime: str = "megatron", **options: Any) -> Request:
    return build_request(model, gpus, runtime=runtime, fix=fix, calibration="none", **options)


def with_runtime(request: Request, overlap: dict[str, float] | None = None, **changes: Any) -> Request:
    """The same question to a framework that differs in a few rules."""
    rules = request.runtime.overlap.model_copy(update=overlap or {})
    return replace(request, runtime=request.runtime.model_copy(update={"overlap": rules, **changes}))


def answer(request: Request) -> Evaluated:
    best = search(request, Problem.from_request(request)).best
    assert best is not None, "infeasible"
    return best


def twin(best: Evaluated, **changes: Any) -> Evaluated:
    """The answer's placement under a layout that differs in a few degrees."""
    placed = best.placement
    layout = placed.layout.model_copy(update=changes)
    return evaluate(best.problem, Placement(layout, placed.schedule, placed.layers_per_stage, placed.policies))


def exposed_s(one: Evaluated, *terms: str) -> float:
    breakdown = estimate_breakdown(one)
    return sum(breakdown[f"{term}_exposed_s"] for term in terms)


def cp(one: Evaluated) -> tuple[int, int]:
    """(ring, Ulysses)"""
    return one.placement.layout.cp_ring, one.placement.layout.cp_ulysses


def claim_bytes(one: Evaluated) -> float:
    return float(one.priced.peak_claim_bytes[0])


class TestMegatronTensorParallelism:
    def test_wins_where_whole_layers_leave_no_room(self) -> None:
        """8 B on one node: one rank's whole parameters and gradients crowd out the activations; halves do not."""
        request = ask("llama-8b", 8, "pp=1", "recompute=none", global_batch_size=16, seq_len=4096)
        best = answer(request)
        assert best.placement.layout.tp == 2
        whole = twin(best, tp=1, dp_shard=8, micro_batch_size=1, num_microbatches=2)
        assert claim_bytes(whole) > 1.2 * claim_bytes(best)
        assert exposed_s(best, "tp") > 0.0

    def test_loses_where_a_rank_holds_the_model(self) -> None:
        """1 B: everything fits, and all that tensor parallelism brings is its traffic."""
        best = answer(ask("llama-3.2-1b", 8, "pp=1", global_batch_size=16, seq_len=4096))
        assert best.placement.layout.tp == 1
        split = twin(best, tp=2, dp_shard=4, num_microbatches=2)
        assert exposed_s(split, "tp") > exposed_s(best, "dp")
        assert split.step_time_s > best.step_time_s


class TestSequenceParallelism:
    def test_wins_where_norms_and_residuals_weigh(self) -> None:
        """Long sequences on eight tensor ranks: unsplit norms and residuals are read and kept eight times over."""
        best = answer(ask("llama-8b", 8, "pp=1", "tp=8", global_batch_size=8, seq_len=32768))
        assert best.placement.layout.sequence_parallel
        unsplit = twin(best, sequence_parallel=False)
        assert exposed_s(unsplit, "elementwise") > 2.0 * exposed_s(best, "elementwise")
        assert claim_bytes(unsplit) > claim_bytes(best)

    def test_loses_where_sums_in_the_switch_are_cheaper(self) -> None:
        """Two tensor ranks of 8 B: an all-reduce in the switches beats gather and scatter, and little is saved."""
        best = answer(ask("llama-8b", 8, "pp=1", "tp=2", global_batch_size=16, seq_len=4096))
        assert not best.placement.layout.sequence_parallel
        split = twin(best, sequence_parallel=True)
        assert exposed_s(split, "tp") > exposed_s(best, "tp")
        assert split.step_time_s > best.step_time_s


class TestRingAttention:
    def test_wins_where_few_keys_hide_behind_attention(self) -> None:
        """Grouped queries: keys and values are a quarter of the queries, and travel while attention runs."""
        request = ask("llama-8b", 8, *ALONE, "recompute=none", global_batch_size=16, seq_len=8192)
        best = answer(request)
        ring, ulysses = cp(best)
        assert ring > 1 == ulysses
        other = twin(best, cp_ring=1, cp_ulysses=ring)
        assert exposed_s(best, "cp") < 0.5 * exposed_s(other, "cp")
        assert best.step_time_s < other.step_time_s

    def test_loses_where_a_rank_holds_the_sequence(self) -> None:
        best = answer(ask("llama-3.2-1b", 8, *ALONE, global_batch_size=16, seq_len=8192))
        assert cp(best) == (1, 1)
        assert twin(best, cp_ring=2, dp_shard=4, num_microbatches=4).step_time_s > best.step_time_s


class TestUlysses:
    def test_wins_where_a_ring_does_not_hide(self) -> None:
        """As many keys as queries and no overlap: a ring carries them seven times, the exchange each token once."""
        request = ask("llama-7b", 8, *ALONE, "recompute=none", global_batch_size=1, seq_len=16384)
        best = answer(with_runtime(request, {"context": 0.0}))
        assert cp(best) == (1, 8)
        ring = twin(best, cp_ring=8, cp_ulysses=1)
        assert exposed_s(ring, "cp") > 3.0 * exposed_s(best, "cp")

    def test_cannot_go_beyond_the_heads(self) -> None:
        """Of 64 ranks at most 32 can share the 32 heads of 8 B: the rest of the degree is a ring."""
        request = ask("llama-8b", 64, *ALONE, global_batch_size=1, seq_len=131072)
        assert cp(answer(with_runtime(request, {"context": 0.0}))) == (2, 32)
        forced = replace(request, fixed={**request.fixed, "cp_ulysses": 64})
        assert search(forced, Problem.from_request(forced)).best is None


class TestUnifiedSequenceParallelism:
    def test_wins_across_nodes(self) -> None:
        """Sixteen ranks on two nodes: Ulysses inside, where links are fast, and a ring of two across."""
        best = answer(ask("llama-8b", 16, *ALONE, "recompute=none", global_batch_size=1, seq_len=65536))
        assert cp(best) == (2, 8)
        layout = best.placement.layout
        assert layout.order.index("cp_ulysses") < layout.order.index("cp_ring")
        for ring, ulysses in ((1, 16), (16, 1)):
            other = twin(best, cp_ring=ring, cp_ulysses=ulysses)
            assert exposed_s(other, "cp", "elementwise") > exposed_s(best, "cp", "elementwise")
            assert other.step_time_s > best.step_time_s

    def test_loses_inside_a_node(self) -> None:
        """Four ranks, grouped queries: the ring hides as it is, and an exchange would not."""
        best = answer(ask("llama-8b", 8, *ALONE, "recompute=none", global_batch_size=16, seq_len=8192))
        assert min(cp(best)) == 1
        ring, ulysses = cp(best)
        assert twin(best, cp_ring=ring // 2, cp_ulysses=2 * ulysses).step_time_s > best.step_time_s


class TestLinearAttention:
    LONG: tuple[Any, ...] = ("mamba2-1.3b", 8, *ALONE)

    def test_lasp_2_wins_where_one_state_stands_for_the_sequence(self) -> None:
        """128K tokens of Mamba-2 on eight ranks: a state a head crosses, whatever the length."""
        best = answer(ask(*self.LONG, global_batch_size=1, seq_len=131072))
        assert best.placement.layout.cp == 8
        twice = answer(ask(*self.LONG, global_batch_size=1, seq_len=262144))
        assert exposed_s(twice, "cp") == pytest.approx(exposed_s(best, "cp"), rel=0.2)
        assert exposed_s(best, "cp") < 0.03 * best.step_time_s

    def test_it_loses_where_sequences_are_short(self) -> None:
        best = answer(ask(*self.LONG, global_batch_size=64, seq_len=4096))
        assert best.placement.layout.cp == 1
        split = twin(best, cp_ring=2, dp_shard=4, num_microbatches=2 * best.placement.layout.num_microbatches)
        assert exposed_s(split, "cp") > 0.0
        assert split.step_time_s > best.step_time_s

    def test_zeco_sends_one_state_where_lasp_2_gathers_all(self) -> None:
        """The all-scan's bytes hardly grow with the ranks, the all-gather's in proportion."""
        request = ask(*self.LONG, global_batch_size=1, seq_len=131072)
        gathers = answer(request)
        scans = answer(with_runtime(request, state_passing="all-scan"))
        assert scans.placement.layout == gathers.placement.layout
        assert exposed_s(scans, "cp") < 0.6 * exposed_s(gathers, "cp")
        assert scans.step_time_s < gathers.step_time_s

    def test_zeco_gains_nothing_between_two(self) -> None:
        """Two ranks: one state crosses either way, and the gather needs no more steps."""
        request = ask("mamba2-1.3b", 2, *ALONE, "cp_ring=2", global_batch_size=1, seq_len=65536)
        gathers, scans = answer(request), answer(with_runtime(request, state_passing="all-scan"))
        assert exposed_s(scans, "cp") == pytest.approx(exposed_s(gathers, "cp"), rel=0.5)


class TestTokenRing:
    """Priced for frameworks that have it; the catalog has none."""

    @staticmethod
    def both(model: str, gpu: str) -> tuple[float, float]:
        """Exposed context traffic of a ring of eight: keys and values round, queries and outputs to and fro."""
        fix = (*ALONE, "cp_ring=8", "recompute=none")
        request = ask(model, 8, *fix, gpu=gpu, global_batch_size=1, seq_len=32768)
        plain = with_runtime(request, {"context": 0.0})
        other = with_runtime(request, {"context": 0.0}, ring_moves="queries-outputs")
        return exposed_s(answer(plain), "cp"), exposed_s(answer(other), "cp")

    def test_halves_the_ring_on_a_mesh(self) -> None:
        """As many keys as queries, every peer on a link of its own: two streams of half the bytes, at the same time."""
        ring_s, token_s = self.both("llama-7b", "mi300x")
        assert token_s == pytest.approx(0.5 * ring_s, rel=0.1)

    def test_gains_little_behind_one_port_and_loses_with_grouped_queries(self) -> None:
        ring_s, token_s = self.both("llama-7b", "h100")
        assert 0.75 * ring_s < token_s < ring_s
        ring_s, token_s = self.both("llama-8b", "mi300x")
        assert token_s > 1.5 * ring_s


class TestLadderResidual:
    """Priced for models that are built so and frameworks that use it; the catalog has none."""

    def test_takes_tensor_traffic_off_the_path(self) -> None:
        request = ask("llama-70b", 16, "tp=8", "pp=1", "micro_batch_size=1", global_batch_size=16, seq_len=4096)
        plain, ladder = answer(request), answer(with_runtime(request, {"ladder": 1.0}))
        assert exposed_s(ladder, "tp") < 0.2 * exposed_s(plain, "tp")
        assert ladder.step_time_s < plain.step_time_s

    def test_costs_the_slowdown_of_what_it_runs_beside(self) -> None:
        """Nothing to hide without tensor parallelism; with it, kernels beside a collective run slower."""
        request = ask("llama-3.2-1b", 8, "pp=1", "tp=1", global_batch_size=16, seq_len=4096)
        assert answer(with_runtime(request, {"ladder": 1.0})).step_time_s == answer(request).step_time_s
        split = ask("llama-3.2-1b", 8, "pp=1", "tp=2", "sequence_parallel=false", global_batch_size=16, seq_len=4096)
        ladder = answer(with_runtime(split, {"ladder": 1.0, "compute_slowdown": 2.5}))
        assert ladder.step_time_s > answer(split).step_time_s


class TestSplitBroadcastPartial:
    """OneFlow's SBP: what the search chose, said as a placement of every tensor."""

    @staticmethod
    def placements(request: Request) -> dict[str, dict[str, str]]:
        return {one.tensor: one.placements for one in find_plan(request).tensors}

    def test_a_split_sequence_is_a_split_tensor(self) -> None:
        """Where sequence parallelism is chosen: shards between blocks, columns in, rows out, summands after."""
        found = self.placements(ask("llama-8b", 8, "pp=1", "tp=8", global_batch_size=8, seq_len=32768))
        assert found["hidden states"] == {"tp": "Shard(1)"}
        assert found["dense.attention.q"] == {"tp": "Shard(0)"}
        assert found["dense.attention.o"] == {"tp": "Shard(1)"}
        assert found["a block's output before its sum"] == {"tp": "Partial"}

    def test_a_whole_sequence_is_replicated(self) -> None:
        """Where it is not: whole hidden states, and only data parallelism splits anything but weights."""
        found = self.placements(ask("llama-8b", 8, "pp=1", "tp=2", global_batch_size=16, seq_len=4096))
        assert found["hidden states"] == {"tp": "Replicate", "dp_shard": "Shard(0)"}
        assert found["gradient of a micro-batch"]["dp_shard"] == "Partial"
        assert found["optimizer state"]["dp_shard"] == "Shard(0)"


class TestHeterogeneityAdaptiveSequenceParallelism:
    """FlexSP: groups of unlike context-parallel degree in one step."""

    def test_wins_on_a_long_tail(self) -> None:
        """Two sequences of 128K get a group that holds them; the thousands below 16K stay on ranks of their own."""
        tail = Histogram((1024, 4096, 16384, 131072), (5000, 900, 60, 2))
        request = ask("llama-8b", 64, "tp=1", seq_len=tail.longest, global_batch_size=tail.sequences)
        plan = find_length_plan(request, tail)
        assert plan.chosen.mixed
        assert plan.gain > 0.05
        longest, *rest = (group.cp_ring * group.cp_ulysses for group in plan.chosen.groups)
        assert longest >= 16 > max(rest)

    def test_loses_where_lengths_are_alike(self) -> None:
        alike = Histogram((7168, 8192), (256, 256))
        request = ask("llama-8b", 64, seq_len=8192, global_batch_size=512)
        plan = find_length_plan(request, alike)
        assert not plan.chosen.mixed
        assert plan.gain <= request.gap
