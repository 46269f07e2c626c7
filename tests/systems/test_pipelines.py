"""Pipeline schedules: for each published one where the search takes it and why, and where it does not.

Sixteen equal layers on four ranks, nothing recomputed and nothing offloaded, so that only the order of passes differs:
its bubble, what it keeps alive, what it sends and what it gathers. The schedules that compete are named, and where that
is not all that would run there, it says why those.
"""

from __future__ import annotations

from dataclasses import astuple
from functools import cache
from typing import Any

import numpy as np
import pytest
from small_instances import build_model, build_request, slower, with_budget, with_request

from costmodel.schema.errors import Infeasible, InvalidSpec
from costmodel.schema.layout import Layout
from costmodel.schema.model import FrozenPart
from costmodel.schema.plan import Plan
from executor.capabilities import reasons_not_runnable
from planner.assemble import reprice
from planner.cli.files import plan_from
from planner.predict import predict_plan
from planner.report.command import pins
from planner.request import Request
from planner.schedules import PassTimes, build_schedule
from planner.schedules.bubble_filling import fill_bubbles
from planner.schedules.report import schedule_summary
from planner.search import find_plan
from planner.search.rules import IF_ASKED
from planner.simulator import FrozenTimes, StageTimes, simulate

GIB = 2**30
LATENCY_S = 0.005
"""Of a message between stages on slow links: a few percent of a micro-batch's time on a rank."""


@cache
def four_ranks(m: int, *, replicas: int = 1, vocab: int = 1000, **limits: Any) -> Request:
    """Four stages, ``m`` micro-batches a step; parameters sharded over the replicas of a stage where there are any."""
    fixed = {"pp": 4, "micro_batch_size": 1, "zero_stage": 3 if replicas > 1 else 0, "recompute": "none"}
    return build_request(
        build_model(num_layers=16, hidden=4096, vocab=vocab, heads=32), 4 * replicas, seq_len=4096,
        global_batch_size=m * replicas, fixed=fixed, forbidden=frozenset({"activation_offload"}), top=0, gap=0.0,
        **limits,
    )  # fmt: skip


@cache
def slow_links(m: int) -> Request:
    request = four_ranks(m)
    return with_request(request, cluster=slower(request.cluster, 1.0, LATENCY_S))


@cache
def slow_replicas(m: int) -> Request:
    """Two replicas of each stage on links of a tenth of the bandwidth."""
    request = four_ranks(m, replicas=2)
    return with_request(request, cluster=slower(request.cluster, 10.0, 0.0))


_CHOSEN: dict[tuple[int, tuple[str, ...]], tuple[Request, Plan]] = {}
"""By request and schedules; the request is held so that no other gets its id."""


def choose(request: Request, *schedules: str) -> Plan:
    key = (id(request), schedules)
    if key not in _CHOSEN:
        _CHOSEN[key] = (request, find_plan(with_request(request, schedules=schedules)))
    return _CHOSEN[key][1]


def chosen(request: Request, *schedules: str) -> str:
    return choose(request, *schedules).pipeline.schedule


def step_s(plan: Plan) -> float:
    return plan.prediction.step_time_s.mean


def term_s(plan: Plan, name: str) -> float:
    return plan.prediction.breakdown.get(f"{name}_exposed_s", 0.0)


def most_bytes(plan: Plan, part: str) -> float:
    """Of the rank that has most of it."""
    return max(stage.parts[part] for stage in plan.prediction.memory.per_stage)


def does_not_fit(request: Request, schedule: str) -> bool:
    try:
        choose(request, schedule)
    except Infeasible:
        return True
    return False


class TestGPipeAnd1F1B:
    """One stage a rank, whole backwards: equal bubbles, so that sends and memory decide."""

    def test_gpipe_hides_slow_sends(self) -> None:
        """Its forwards follow each other without an answer; 1F1B waits for a round trip every p micro-batches."""
        gpipe, other = (choose(slow_links(8), name) for name in ("gpipe", "1f1b"))
        assert chosen(slow_links(8), "gpipe", "1f1b") == "gpipe"
        assert term_s(gpipe, "bubble") == pytest.approx(term_s(other, "bubble"), rel=1e-6)
        assert term_s(gpipe, "pp") < 0.5 * term_s(other, "pp")

    def test_1f1b_bounds_what_is_alive(self) -> None:
        """Memory for p micro-batches and not for m, the same slow sends."""
        request = with_budget(slow_links(8), 35 * GIB)
        plan = choose(request, "gpipe", "1f1b")
        assert plan.pipeline.schedule == "1f1b"
        assert does_not_fit(request, "gpipe")
        kept = most_bytes(plan, "activations")
        assert most_bytes(choose(slow_links(8), "gpipe"), "activations") == pytest.approx(kept * 8 / 4)


class TestInterleaved1F1B:
    def test_chunks_shorten_the_fill(self) -> None:
        """As many micro-batches as ranks: of four chunks a rank's first is reached in a fourth of the time."""
        plan, plain = choose(four_ranks(4), "gpipe", "1f1b", "interleaved-1f1b"), choose(four_ranks(4), "1f1b")
        assert (plan.pipeline.schedule, plan.layout.vpp) == ("interleaved-1f1b", 4)
        assert term_s(plan, "bubble") < 0.5 * term_s(plain, "bubble")

    def test_not_over_slow_links(self) -> None:
        """Every chunk's boundary is a message: what chunks save of the bubble goes to sends."""
        request = four_ranks(8)
        request = with_request(request, cluster=slower(request.cluster, 1.0, 4 * LATENCY_S))
        plan, chunked = (choose(request, name) for name in ("gpipe", "interleaved-1f1b"))
        assert chosen(request, "gpipe", "1f1b", "interleaved-1f1b") == "gpipe"
        assert term_s(chunked, "bubble") < term_s(plan, "bubble")
        assert term_s(chunked, "pp") > term_s(plan, "pp") + term_s(plan, "bubble") - term_s(chunked, "bubble")


class TestZeroBubble:
    """Weight gradients run where a rank would wait."""

    def test_zb_h1_idles_less_than_1f1b_with_as_much_alive(self) -> None:
        plan, plain = choose(four_ranks(16), "1f1b", "zb-h1"), choose(four_ranks(16), "1f1b")
        assert plan.pipeline.schedule == "zb-h1"
        assert term_s(plan, "bubble") < 0.6 * term_s(plain, "bubble")
        assert most_bytes(plan, "activations") == pytest.approx(most_bytes(plain, "activations"))

    def test_zb_h1_needs_room_for_what_waits(self) -> None:
        """Between input and weight gradient a layer keeps more: memory for 1F1B alone."""
        request = with_budget(four_ranks(16), 32 * GIB)
        assert chosen(request, "1f1b", "zb-h1") == "1f1b"
        assert does_not_fit(request, "zb-h1")
        assert most_bytes(choose(four_ranks(16), "zb-h1"), "pending") > 2 * GIB

    def test_zb_h2_fills_the_bubble_with_twice_the_micro_batches(self) -> None:
        plan, other = choose(four_ranks(16), "zb-h1", "zb-h2"), choose(four_ranks(16), "zb-h1")
        assert plan.pipeline.schedule == "zb-h2"
        assert term_s(plan, "bubble") < 0.7 * term_s(other, "bubble")
        assert most_bytes(plan, "activations") > 1.5 * most_bytes(other, "activations")

    def test_zb_h2_not_where_they_do_not_fit(self) -> None:
        request = with_budget(four_ranks(16), 45 * GIB)
        assert chosen(request, "zb-h1", "zb-h2") == "zb-h1"
        assert does_not_fit(request, "zb-h2")

    def test_zb_v_idles_less_with_the_memory_of_zb_h1(self) -> None:
        names = ("1f1b", "zb-h1", "zb-h2", "zb-v")
        plan, other = choose(four_ranks(16), *names), choose(four_ranks(16), "zb-h1")
        assert plan.pipeline.schedule == "zb-v"
        assert term_s(plan, "bubble") < 0.5 * term_s(other, "bubble")
        assert most_bytes(plan, "activations") == pytest.approx(most_bytes(other, "activations"))

    def test_zb_v_not_over_slow_links(self) -> None:
        """There and back is every boundary twice."""
        plan, other = (choose(slow_links(8), name) for name in ("zb-h2", "zb-v"))
        assert chosen(slow_links(8), "zb-h1", "zb-h2", "zb-v") == "zb-h2"
        assert term_s(plan, "pp") < 0.5 * term_s(other, "pp")


class TestAutomaticScheduler:
    """``--schedule auto``: an order found for the placement's own times, within what memory leaves. Whole backwards and
    one stage a rank, so that it may change the order and nothing else."""

    def whole(self, **fixed: Any) -> Request:
        request = four_ranks(4)
        runtime = request.runtime.model_copy(update={"schedules": ("gpipe", "1f1b")})
        return with_request(request, runtime=runtime, fixed={**request.fixed, **fixed})

    def test_uneven_stages_leave_named_orders_idle(self) -> None:
        named, found = find_plan(self.whole()), find_plan(with_request(self.whole(), synthesize=True))
        assert len(set(found.pipeline.layers_per_stage)) > 1
        assert found.pipeline.schedule == "auto"
        assert term_s(found, "bubble") < term_s(named, "bubble")
        assert step_s(found) < step_s(named)

    def test_not_where_a_named_order_idles_no_longer_than_it_must(self) -> None:
        """Of equal stages every order of whole backwards fills and drains as long."""
        plan = find_plan(with_request(self.whole(layers_per_stage=(4, 4, 4, 4)), synthesize=True))
        assert plan.pipeline.schedule in ("gpipe", "1f1b")
        assert plan.notes[0].startswith("No order of passes was found that beats")


class TestControllableMemory:
    """V-shaped building blocks whose lifespan sets the peak. The others are what a rank of little memory may run: one
    or two stages, nothing recomputed."""

    NAMES = ("gpipe", "1f1b", "zb-h1", "zb-v", "v-half", "v-min")

    @pytest.mark.parametrize(("gib", "schedule", "share"), [(33, "v-half", 0.75), (28.5, "v-min", 0.5)])
    def test_it_fits_where_the_faster_do_not(self, gib: float, schedule: str, share: float) -> None:
        """(p + 2) / 2 micro-batches of p, and (p + 4) / 3."""
        request = with_budget(four_ranks(16), gib * GIB)
        plan, whole = choose(request, *self.NAMES), choose(four_ranks(16), "zb-v")
        assert plan.pipeline.schedule == schedule
        assert does_not_fit(request, "zb-v")
        assert most_bytes(plan, "activations") == pytest.approx(share * most_bytes(whole, "activations"))

    @pytest.mark.parametrize(("gib", "schedule", "faster"), [(45, "v-half", "zb-v"), (33, "v-min", "v-half")])
    def test_not_where_there_is_room_for_less_bubble(self, gib: float, schedule: str, faster: str) -> None:
        request = with_budget(four_ranks(16), gib * GIB)
        plan, other = choose(request, *self.NAMES), choose(request, schedule)
        assert plan.pipeline.schedule == faster
        assert term_s(plan, "bubble") < term_s(other, "bubble")


class TestHanayo:
    """Against what its authors compare with: whole backwards, one stage a rank or two directions."""

    NAMES = ("gpipe", "1f1b", "chimera", "hanayo")

    def test_waves_idle_less_with_one_copy_of_the_model(self) -> None:
        plan, two = choose(four_ranks(4), *self.NAMES), choose(four_ranks(4), "chimera")
        assert plan.pipeline.schedule == "hanayo"
        assert term_s(plan, "bubble") < term_s(two, "bubble")
        assert most_bytes(plan, "optimizer") < 0.55 * most_bytes(two, "optimizer")

    def test_not_over_slow_links(self) -> None:
        """A wave crosses every boundary as often as it has chunks."""
        plan, waves = (choose(slow_links(8), name) for name in ("gpipe", "hanayo"))
        assert chosen(slow_links(8), "gpipe", "1f1b", "hanayo") == "gpipe"
        assert term_s(waves, "pp") > 2 * term_s(plan, "pp")


class TestTwoDirections:
    """Two copies of the model, the second from the other end. Against schedules of whole backwards without chunks."""

    def test_chimera_halves_the_fill_of_few_micro_batches(self) -> None:
        plan, plain = choose(four_ranks(4), "gpipe", "1f1b", "chimera"), choose(four_ranks(4), "gpipe")
        assert plan.pipeline.schedule == "chimera"
        assert term_s(plan, "bubble") < 0.75 * term_s(plain, "bubble")

    def test_chimera_not_for_many(self) -> None:
        """Forwards and backwards of the two directions take slots of one length, for every micro-batch of the step."""
        plan, both = (choose(four_ranks(16), name) for name in ("1f1b", "chimera"))
        assert chosen(four_ranks(16), "gpipe", "1f1b", "chimera") == "1f1b"
        assert term_s(both, "bubble") > term_s(plan, "bubble")
        assert term_s(both, "optimizer") > 1.5 * term_s(plan, "optimizer")

    def test_chimera_not_without_room_for_a_second_copy(self) -> None:
        request = with_budget(four_ranks(4), 40 * GIB)
        assert chosen(request, "gpipe", "1f1b", "chimera") != "chimera"
        assert does_not_fit(request, "chimera")

    def test_bitpipe_interleaves_the_two(self) -> None:
        plan, plain = choose(four_ranks(4), "gpipe", "1f1b", "chimera", "bitpipe"), choose(four_ranks(4), "chimera")
        assert plan.pipeline.schedule == "bitpipe"
        assert term_s(plan, "bubble") < 0.6 * term_s(plain, "bubble")

    def test_bitpipe_not_over_slow_links(self) -> None:
        plan, chunked = (choose(slow_links(8), name) for name in ("chimera", "bitpipe"))
        assert chosen(slow_links(8), "chimera", "bitpipe") == "chimera"
        assert term_s(chunked, "bubble") < term_s(plan, "bubble")
        assert term_s(chunked, "pp") > 2 * term_s(plan, "pp")


class TestShardedParameters:
    """ZeRO-3 over replicas on slow links: a schedule is worth how rarely it gathers."""

    def test_breadth_first_gathers_every_stage_once(self) -> None:
        """Layered gradient accumulation: all micro-batches through a stage before the next."""
        names = ("gpipe", "1f1b", "interleaved-1f1b", "breadth-first")
        plan, other = choose(slow_replicas(8), *names), choose(slow_replicas(8), "interleaved-1f1b")
        assert plan.pipeline.schedule == "breadth-first"
        assert term_s(plan, "dp") < 0.7 * term_s(other, "dp")
        assert term_s(plan, "bubble") == pytest.approx(term_s(other, "bubble"), rel=0.05)

    def test_breadth_first_not_where_all_micro_batches_do_not_fit(self) -> None:
        request = with_budget(slow_replicas(8), 33 * GIB)
        assert chosen(request, "gpipe", "1f1b", "interleaved-1f1b", "breadth-first") == "interleaved-1f1b"
        assert does_not_fit(request, "breadth-first")

    def test_zeropp_gathers_once_a_unit_and_fills_with_weight_gradients(self) -> None:
        names = ("1f1b", "interleaved-1f1b", "zb-h1", "zb-h2", "zb-v", "breadth-first", "zeropp")
        plan = choose(slow_replicas(8), *names)
        assert plan.pipeline.schedule == "zeropp"
        assert term_s(plan, "dp") < 0.7 * term_s(choose(slow_replicas(8), "zb-v"), "dp")
        assert term_s(plan, "bubble") < term_s(choose(slow_replicas(8), "breadth-first"), "bubble")

    def test_zeropp_not_where_a_unit_does_not_fit(self) -> None:
        request = with_budget(slow_replicas(8), 40 * GIB)
        assert chosen(request, "1f1b", "zb-h1", "zb-v", "zeropp") == "zb-v"
        assert does_not_fit(request, "zeropp")


class TestTwoStageBackward:
    """2BP, of interleaved 1F1B: chunks and a split backward at once, which no other schedule of many chunks has."""

    NAMES = ("1f1b", "interleaved-1f1b", "zb-h1", "zb-v", "interleaved-1f1b+2bp")

    def test_weight_gradients_fill_what_chunks_leave(self) -> None:
        plan, whole = choose(four_ranks(16), *self.NAMES), choose(four_ranks(16), "interleaved-1f1b")
        assert (plan.pipeline.schedule, plan.layout.vpp) == ("interleaved-1f1b+2bp", 4)
        assert term_s(plan, "bubble") < 0.5 * term_s(whole, "bubble")
        assert term_s(plan, "bubble") < term_s(choose(four_ranks(16), "zb-v"), "bubble")

    def test_not_where_what_waits_does_not_fit(self) -> None:
        """At most p micro-batches' weight gradients wait on a rank: their activations stay alive as long."""
        request = with_budget(four_ranks(16), 45 * GIB)
        assert chosen(request, *self.NAMES) == "zb-v"
        assert does_not_fit(request, "interleaved-1f1b+2bp")
        kept = most_bytes(choose(four_ranks(16), "interleaved-1f1b+2bp"), "activations")
        assert kept > 1.5 * most_bytes(choose(four_ranks(16), "interleaved-1f1b"), "activations")

    @pytest.mark.parametrize("name", ["gpipe", "1f1b", "breadth-first", "hanayo", "chimera", "bitpipe"])
    def test_of_any_schedule_it_idles_less_where_passes_take_equal_times(self, name: str) -> None:
        plain, deferred = (
            build_schedule(each, 4, 4, 1 if name in ("gpipe", "1f1b", "chimera") else 2)
            for each in (name, f"{name}+2bp")
        )
        times = StageTimes.uniform(plain.num_stages, 1.0, 1.0, 1.0)
        assert simulate(deferred, times).makespan_s < simulate(plain, times).makespan_s

    def test_two_directions_with_slow_links(self) -> None:
        """As few messages as one stage a rank has, and weight gradients in what the two directions leave."""
        request = slow_links(4)
        plan = choose(request, "zb-h2", "zb-v", "zeropp", "interleaved-1f1b+2bp", "chimera", "chimera+2bp")
        assert plan.pipeline.schedule == "chimera+2bp"
        assert term_s(plan, "bubble") < 0.5 * term_s(choose(request, "chimera"), "bubble")
        assert term_s(plan, "pp") < 0.6 * term_s(choose(request, "interleaved-1f1b+2bp"), "pp")

    @pytest.mark.parametrize("comm", [0.0, 0.2, 1.0])
    @pytest.mark.parametrize("m", [4, 8, 16])
    def test_what_is_not_tried_unasked_has_its_equal(self, m: int, comm: float) -> None:
        """On four ranks some schedule that is tried takes no percent more, with as many micro-batches alive."""
        times = PassTimes(1.0, 1.1, 0.9, comm)

        def measured(name: str, vpp: int) -> tuple[float, float]:
            figures = schedule_summary(build_schedule(name, 4, m, vpp, times), *astuple(times))
            assert figures["makespan"] is not None
            assert figures["peak_activations"] is not None
            return figures["makespan"], max(figures["peak_activations"])

        tried = [
            measured(*each)
            for each in (("zb-h1", 1), ("zb-h2", 1), ("zeropp", 1), ("zeropp", 2), ("interleaved-1f1b+2bp", 2),
                         ("interleaved-1f1b+2bp", 4), ("bitpipe+2bp", 2))
        ]  # fmt: skip
        for name in IF_ASKED:
            for vpp in (1,) if name.startswith(("gpipe", "1f1b")) else (2, 4):
                own_s, alive = measured(name, vpp)
                assert any(each_s < 1.01 * own_s and kept <= alive for each_s, kept in tried), (name, vpp)

    def test_the_dominated_are_tried_where_they_are_named(self) -> None:
        plan = choose(four_ranks(8), "gpipe+2bp")
        assert plan.pipeline.schedule == "gpipe+2bp"
        assert step_s(plan) < step_s(choose(four_ranks(8), "gpipe"))


class TestVocabularyParallelism:
    """Embedding and output layer as a p-th on every rank, against 1F1B with its layers moved off the ends."""

    NAMES = ("1f1b", "1f1b-vocab-1", "1f1b-vocab-2")

    @staticmethod
    @cache
    def wide() -> Request:
        """An output layer that outweighs all layers of a rank."""
        request = four_ranks(16, vocab=256_000)
        return with_request(request, model=build_model(num_layers=8, hidden=2048, vocab=256_000))

    def test_it_spreads_an_output_layer_that_no_rank_can_balance(self) -> None:
        plan, whole = choose(self.wide(), *self.NAMES), choose(self.wide(), "1f1b")
        assert plan.pipeline.schedule == "1f1b-vocab-2"
        assert plan.layout.vocab_parallel
        # Alone on its rank, it still takes longer than what others hold.
        assert whole.pipeline.layers_per_stage[-1] == 0
        assert step_s(plan) < 0.8 * step_s(whole)
        assert term_s(plan, "gemm") < 0.8 * term_s(whole, "gemm")
        assert most_bytes(plan, "logits") < most_bytes(whole, "logits")
        assert any("the vocabulary split over 4 ranks" in note for note in plan.notes)

    def test_a_second_barrier_keeps_one_more_micro_batch_alive(self) -> None:
        two, one = (choose(self.wide(), name) for name in ("1f1b-vocab-1", "1f1b-vocab-2"))
        assert most_bytes(two, "activations") > most_bytes(one, "activations")
        assert step_s(two) > step_s(one)

    def test_not_of_a_small_vocabulary(self) -> None:
        """Each barrier puts every backward off: more bubble, and nothing to spread."""
        plan, split = choose(four_ranks(16), *self.NAMES), choose(four_ranks(16), "1f1b-vocab-2")
        assert plan.pipeline.schedule == "1f1b"
        assert not plan.layout.vocab_parallel
        assert term_s(split, "bubble") > term_s(plan, "bubble")

    def test_forbidden_and_fixed(self) -> None:
        request = self.wide()
        forbidden = with_request(request, forbidden=request.forbidden | {"vocab_parallel"})
        assert chosen(forbidden, *self.NAMES) == "1f1b"
        fixed = with_request(four_ranks(16), fixed={**four_ranks(16).fixed, "vocab_parallel": True})
        assert choose(fixed, *self.NAMES).layout.vocab_parallel


class TestDiffusionPipe:
    """Frozen encoders run ahead for the next step in the bubbles of this one, against running them by themselves."""

    def simulated(self, m: int, piece_s: tuple[float, ...]) -> tuple[float, float, float]:
        """Makespan of the pipeline alone, with the encoders in its bubbles, and with them before it, shared evenly."""
        plain = build_schedule("1f1b", 4, m)
        times = StageTimes.uniform(4, 1.0, 1.0, 1.0)
        filled = fill_bubbles(plain, times, piece_s)
        frozen = StageTimes.uniform(4, 1.0, 1.0, 1.0, frozen=FrozenTimes(np.array(piece_s)))
        alone_s = simulate(plain, times).makespan_s
        return alone_s, simulate(filled, frozen).makespan_s, alone_s + m * sum(piece_s) / 4

    def test_small_pieces_vanish_in_the_bubble(self) -> None:
        alone_s, filled_s, before_s = self.simulated(8, (0.5, 0.5, 0.25))
        assert filled_s == alone_s < before_s

    def test_no_gain_where_nothing_idles_long_enough(self) -> None:
        """Pieces longer than any idle span come after the rank's own passes."""
        alone_s, filled_s, before_s = self.simulated(8, (10.0,))
        assert filled_s >= before_s > alone_s

    @staticmethod
    @cache
    def encoded(m: int, *, pp: int = 4, tp: int = 1, **limits: Any) -> Request:
        """Four stages behind a frozen encoder of a few percent of their work."""
        request = four_ranks(m, replicas=tp, **limits)
        encoder = build_model(num_layers=24, hidden=2048, heads=16).model_copy(update={"trains": "frozen"})
        model = request.model.model_copy(update={"frozen_parts": (FrozenPart(model=encoder, seq_len=577),)})
        workload = request.workload.model_copy(update={"global_batch_size": m})
        fixed = {**request.fixed, "pp": pp, "tp": tp, "zero_stage": 0}
        return with_request(request, model=model, workload=workload, fixed=fixed)

    def elsewhere(self, request: Request, fill: bool, *names: str) -> Plan:
        return choose(with_request(request, fixed={**request.fixed, "frozen_fill": fill}), *names)

    def test_it_hides_an_encoder_in_a_large_bubble(self) -> None:
        """As a term of the step the encoder vanishes; its time before the pipeline is what is gained."""
        request = self.encoded(8)
        plan, before = choose(request, "1f1b"), self.elsewhere(request, False, "1f1b")
        assert plan.layout.frozen_fill
        assert term_s(plan, "frozen") == 0.0 < plan.prediction.breakdown["frozen_total_s"]
        assert step_s(before) - step_s(plan) == pytest.approx(term_s(before, "frozen"), rel=0.01)
        assert term_s(plan, "bubble") == pytest.approx(term_s(before, "bubble"))
        assert plan.certificate.status == "proven"
        assert any("in the pipeline's bubbles, for the next step" in note for note in plan.notes)
        assert all(passes.count("FROZEN_F") for passes in plan.pipeline.passes.values())

    def test_its_outputs_wait_a_step_in_memory(self) -> None:
        request = self.encoded(8)
        before = self.elsewhere(request, False, "1f1b")
        assert most_bytes(choose(request, "1f1b"), "buffers") > most_bytes(before, "buffers")
        assert "FROZEN_F" not in "".join(before.pipeline.passes.values())

    def test_it_changes_which_schedule_is_worth_its_bubble(self) -> None:
        """A bubble that is filled costs nothing: without the encoder fewer of them are."""
        request = self.encoded(64)
        plan, small = choose(request, "1f1b"), choose(request, "zb-v")
        assert term_s(plan, "bubble") > 5 * term_s(small, "bubble")
        gained = step_s(self.elsewhere(request, False, "1f1b")) - step_s(plan)
        assert gained > 2 * (step_s(self.elsewhere(request, False, "zb-v")) - step_s(small))

    def test_not_where_bubbles_are_small_and_stages_are_tensor_parallel(self) -> None:
        """Before the pipeline every device runs the encoder whole; in the bubbles its products are cut in four."""
        request = self.encoded(64, tp=4)
        plan, filled = choose(request, "1f1b"), self.elsewhere(request, True, "1f1b")
        assert not plan.layout.frozen_fill
        assert term_s(filled, "frozen") > term_s(plan, "frozen")
        assert filled.prediction.breakdown["frozen_total_s"] > 2 * term_s(plan, "frozen")
        assert choose(self.encoded(8, tp=4), "1f1b").layout.frozen_fill

    def test_not_without_a_pipeline_nor_in_a_runtime_that_cannot(self) -> None:
        alone = self.encoded(8, pp=1, tp=4)
        assert not choose(alone, "1f1b").layout.frozen_fill
        with pytest.raises(Infeasible):
            self.elsewhere(alone, True, "1f1b")
        request = self.encoded(8)
        other = with_request(request, runtime=request.runtime.model_copy(update={"frozen_fill": False}))
        assert not choose(other, "1f1b").layout.frozen_fill
        forbidden = with_request(request, forbidden=request.forbidden | {"frozen_fill"})
        assert step_s(choose(forbidden, "1f1b")) == step_s(choose(other, "1f1b"))

    def test_a_filled_plan_prices_again_to_the_last_bit_and_is_not_run_yet(self) -> None:
        plan = choose(self.encoded(8), "1f1b")
        again = plan_from(plan.model_dump(mode="json"), "the plan")
        assert again == plan
        assert reprice(again) == plan.prediction
        reasons = list(reasons_not_runnable(plan))
        assert reasons[0].startswith("model.frozen_parts has ")
        assert "FROZEN_F" in reasons[-1]
        assert "frozen_fill=true" in pins(plan)
        given = predict_plan(self.encoded(8), plan.layout, "1f1b")
        assert given.prediction.step_time_s.mean >= step_s(plan)
        with pytest.raises(InvalidSpec, match="frozen_fill true with pp 1"):
            predict_plan(self.encoded(8), Layout(tp=4, num_microbatches=8, frozen_fill=True), "1f1b")
