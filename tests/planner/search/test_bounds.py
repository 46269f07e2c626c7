"""What the certificate stands on: no placement of a layout is faster, or smaller, than the layout's bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

import numpy as np
import pytest
from exhaustive import all_splits, best_placement, kept_of, random_placement, stage_window
from floors import memory_floor_bytes, time_floor_s
from small_instances import build_model, build_request, price_space, random_request, random_state_request

from costmodel.catalog.runtimes import load_runtime
from costmodel.even_split import even_split
from costmodel.layer_table import PricedLayers
from costmodel.price import price
from costmodel.schedules import SCHEDULES
from planner.evaluate import Evaluated, evaluate, stage_times
from planner.kept import count_kept, count_kept_microbatches
from planner.order import build_order
from planner.placement import Placement
from planner.problem import Problem
from planner.request import Request
from planner.schedules import build_schedule
from planner.search.bounds import extras_floor_s, interleaved_alive, least_evenness, least_in_flight
from planner.search.passes import passes_floor
from planner.search.place import place
from planner.search.policies import policy_sets
from planner.search.ranges import list_ranges
from planner.search.splits import splits_of_row
from planner.search.tight import tighten
from planner.simulator import simulate

ROUNDING = 1.0 + 1e-9
AMPLE = 1e15
SEVERAL_STAGES = [
    name for name, form in SCHEDULES.items() if form.copies > 1 or any(form.allows(4, 8, vpp) for vpp in (2, 3, 4))
]


@dataclass(frozen=True)
class Sample:
    """Some rows of an instance's space with their bounds."""

    request: Request
    problem: Problem
    layers: PricedLayers
    sets: tuple[tuple[int, ...], ...]
    floor_bytes: np.ndarray
    floor_s: np.ndarray
    after_s: np.ndarray

    @property
    def policies(self) -> tuple[int, ...]:
        return tuple(sorted({policy for one in self.sets for policy in one}))

    def row(self, index: int) -> PricedLayers:
        return self.layers.take(np.array([index]))


def sample_rows(request: Request, draw: Random, most: int) -> Sample:
    problem, layers = price_space(request)
    rows = range(len(layers.layouts))
    layers = layers.take(np.array(sorted(draw.sample(rows, min(most, len(rows)))), np.intp))
    sets = policy_sets(request)
    policies = tuple(sorted({policy for one in sets for policy in one}))
    floors = [
        estimate(layers, problem.kinds, problem.num_kinds, policies)
        for estimate in (memory_floor_bytes, time_floor_s, extras_floor_s)
    ]
    return Sample(request, problem, layers, sets, *floors)


def claim_bytes(evaluated: Evaluated) -> float:
    return float(evaluated.priced.peak_claim_bytes[0])


def check_tight(sample: Sample, placed: list[tuple[int, float, float]], budget_bytes: float, best_s: float) -> None:
    """``placed``: (row, seconds, bytes). A row's bound is no more than any of its placements that fit; inf stands for
    at least ``best_s``."""
    bound = tighten(
        sample.problem, sample.layers, sample.policies, budget_bytes, sample.floor_s, sample.after_s, best_s
    )
    for row, step_s, num_bytes in placed:
        if num_bytes <= budget_bytes:
            assert min(bound[row], best_s) <= step_s * ROUNDING, (sample.layers.layouts.row(row), budget_bytes, best_s)


@pytest.mark.parametrize(
    ("drawn", "seed"),
    [(random_request, seed) for seed in range(20)] + [(random_state_request, seed) for seed in range(6)],
)
def test_no_random_placement_beats_the_bounds(drawn: Callable[[int], Request], seed: int) -> None:
    """26 instances x 24 layouts x 2 placements, each against both floors and six tight bounds."""
    draw = Random(seed)
    sample = sample_rows(drawn(seed), draw, 24)
    placed = []
    for row in range(len(sample.layers.layouts)):
        one = sample.row(row)
        for _ in range(2):
            placement = random_placement(draw, sample.problem, one, draw.choice(sample.sets))
            evaluated = evaluate(sample.problem, placement, layers=one)
            assert sample.floor_bytes[row] <= claim_bytes(evaluated) * ROUNDING, placement
            assert sample.floor_s[row] <= evaluated.step_time_s * ROUNDING, placement
            placed.append((row, evaluated.step_time_s, claim_bytes(evaluated)))
    for budget_bytes in (AMPLE, *np.quantile([num_bytes for *_, num_bytes in placed], (0.2, 0.6))):
        for best_s in np.quantile([step_s for _, step_s, _ in placed], (0.3, 1.0)):
            check_tight(sample, placed, float(budget_bytes), float(best_s) * 1.001)


@pytest.mark.parametrize(
    ("drawn", "seed"),
    [(random_request, seed) for seed in range(1000, 1016)]
    + [(random_state_request, seed) for seed in range(1000, 1004)],
)
def test_the_very_best_placement_respects_the_bounds(drawn: Callable[[int], Request], seed: int) -> None:
    """Where a bound is nearest to being wrong: the optimum by exhaustive search, with memory ample and short."""
    draw = Random(seed)
    sample = sample_rows(drawn(seed), draw, 5)
    for row in range(len(sample.layers.layouts)):
        one, floor = sample.row(row), float(sample.floor_bytes[row])
        for budget_bytes in (AMPLE, floor * draw.choice((1.2, 1.5, 2.0, 3.0))):
            best = best_placement(sample.problem, one, sample.sets, budget_bytes)
            after_s = sample.after_s[[row]]
            placed = place(sample.problem, one, after_s, sample.sets, budget_bytes, float("inf"))[0]
            if best is None:
                assert placed.evaluated is None
                assert not placed.slower
                continue
            evaluated = evaluate(sample.problem, best.placement)
            assert evaluated.step_time_s == pytest.approx(best.step_time_s, rel=1e-9)
            assert claim_bytes(evaluated) <= budget_bytes * ROUNDING
            assert floor <= claim_bytes(evaluated) * ROUNDING
            assert sample.floor_s[row] <= best.step_time_s * ROUNDING
            for factor in (1.0001, 1.5):
                step = (row, best.step_time_s, claim_bytes(evaluated))
                check_tight(sample, [step], budget_bytes, best.step_time_s * factor)
            assert placed.evaluated is not None, best
            assert placed.bound_s <= best.step_time_s * (1.0 + 1e-6), (best, placed.evaluated.placement)
            assert placed.evaluated.step_time_s >= best.step_time_s / ROUNDING
            limit_s = placed.evaluated.step_time_s * 1.0001
            again = place(sample.problem, one, after_s, sample.sets, budget_bytes, limit_s)[0]
            assert again.evaluated is not None, "a limit above its own time made the placement disappear"


@pytest.mark.parametrize("schedule", SEVERAL_STAGES)
@pytest.mark.parametrize("layers", [7, 10, 13])
def test_several_stages_a_rank_respect_the_bounds(schedule: str, layers: int) -> None:
    """Uneven stages, both directions, and just as much memory as a placement needs, its stages' mean included."""
    draw = Random(layers)
    request = build_request(
        build_model(num_layers=layers, vocab=32000, hidden=1024), 4, fixed={"pp": 2 + 2 * (layers == 13)},
        schedules=(schedule,),
    )  # fmt: skip
    sample = sample_rows(request, draw, 8)
    assert len(sample.layers.layouts)
    for row in range(len(sample.layers.layouts)):
        one = sample.row(row)
        placement = random_placement(draw, sample.problem, one, draw.choice(sample.sets))
        evaluated = evaluate(sample.problem, placement, layers=one)
        placed = placement.assignment(sample.problem.kinds, sample.problem.num_kinds)
        assignment = placed.on_axis(one.costs.num_policies)
        at_mean = price(one, assignment, kept_of(one, assignment, placement.layers_per_stage))
        budget_bytes = max(claim_bytes(evaluated), float(at_mean.peak_claim_bytes[0]))
        step = (row, evaluated.step_time_s, claim_bytes(evaluated))
        check_tight(sample, [step], budget_bytes, evaluated.step_time_s * 1.001)
        assert sample.floor_bytes[row] <= budget_bytes * ROUNDING, placement


@pytest.mark.parametrize(("layers", "pp"), [(13, 2), (21, 4)])
@pytest.mark.parametrize("schedule", ["interleaved-1f1b", "hanayo", "bitpipe", "zb-v"])
def test_no_split_keeps_less_than_its_memory_floor_assumes(schedule: str, layers: int, pp: int) -> None:
    """Splits that the search takes, relieved ends included, of layers that don't divide by the stages, each with what
    its order is counted to keep."""
    model = build_model(num_layers=layers, vocab=32000, hidden=1024)
    sample = sample_rows(build_request(model, 4, fixed={"pp": pp}, schedules=(schedule,)), Random(layers), 16)
    evenness = least_evenness(sample.layers, layers, sample.problem.num_kinds)
    found = evenness * least_in_flight(sample.layers.layouts)
    for row, assumed in enumerate(found.tolist()):
        one = sample.row(row)
        for lengths in splits_of_row(sample.problem, one):
            kept = count_kept_microbatches(build_order(one), lengths)
            assert assumed <= kept.in_flight.min() * ROUNDING
    assert evenness.min() < 1


@pytest.mark.parametrize(("pp", "batch"), [(2, 3), (2, 16), (4, 4), (4, 10), (4, 32)])
def test_an_interleaved_rank_keeps_what_is_alive_after_its_warm_up(pp: int, batch: int) -> None:
    """Chunk by chunk, for any lengths of stages; full rounds, uneven ones and fewer micro-batches than ranks."""
    fixed = {"pp": pp, "tp": 1, "micro_batch_size": 1, "schedule": "interleaved-1f1b"}
    request = build_request(build_model(num_layers=24), pp, global_batch_size=batch, fixed=fixed)
    layouts = price_space(request)[1].layouts
    for vpp in set(layouts.vpp.tolist()):
        one = layouts.take(np.flatnonzero(layouts.vpp == vpp)[:1])
        alive = interleaved_alive(one, np.arange(pp))[0]
        kept = count_kept(build_schedule("interleaved-1f1b", pp, batch, vpp))
        for chunk in range(vpp):
            own = np.zeros(pp * vpp)
            own[chunk * pp : (chunk + 1) * pp] = 1.0
            assert (alive[:, chunk] <= kept.peak("alive", own)).all()
        lengths = np.array(Random(batch).choices(range(1, 5), k=pp * vpp), float)
        assert ((alive * lengths.reshape(vpp, pp).T).sum(axis=1) <= kept.peak("alive", lengths)).all()


@pytest.mark.parametrize("defers", [True, False])
@pytest.mark.parametrize("vocab", [64000, 128000, 256000])
def test_a_wide_vocabulary_gathered_at_once_respects_the_bounds(vocab: int, defers: bool) -> None:
    """Two gathered embeddings outweigh a few layers but not all of them: such bytes do not grow evenly with layers."""
    runtime = load_runtime("torch")
    state = runtime.state.model_copy(update={"full_grads_under_pipeline": defers})
    request = build_request(
        build_model(num_layers=33, vocab=vocab, hidden=512), 4, runtime=runtime.model_copy(update={"state": state}),
        fixed={"pp": 2, "vpp": 16, "zero_stage": 3, "micro_batch_size": 1, "schedule": "interleaved-1f1b"},
    )  # fmt: skip
    sample = sample_rows(request, Random(vocab), 12)
    for row in range(len(sample.layers.layouts)):
        one = sample.row(row)
        for policy in sample.policies:
            even = tuple(even_split(33, 32))
            evaluated = evaluate(
                sample.problem, Placement(one.layouts.row(0), "interleaved-1f1b", even, (policy,) * 33), layers=one
            )
            step = (row, evaluated.step_time_s, claim_bytes(evaluated))
            check_tight(sample, [step], claim_bytes(evaluated), evaluated.step_time_s * 1.001)


@pytest.mark.parametrize("schedule", ["zb-h1", "gpipe+2bp", "1f1b+2bp"])
def test_floors_know_how_far_boundaries_move(schedule: str) -> None:
    """Six light layers, then one that is mostly weight gradient: the best split leaves the last rank one layer of
    seven, which sends its gradient back sooner than half of the layers would."""
    fixed = {"pp": 2, "tp": 1, "micro_batch_size": 1, "recompute": "none"}
    model = build_model("unlike", num_layers=7, hidden=256, vocab=1000)
    problem, layers = price_space(build_request(model, 2, global_batch_size=1, fixed=fixed, schedules=(schedule,)))
    # Of both kinds and both ends.
    forward, backward, weight = np.array([(1.0, 1.5, 0.0, 0.01), (2.0, 13.5, 0.0, 0.01), (1.0, 12.0, 0.0, 0.0)])
    costs = replace(
        layers.costs,
        forward_s=forward[None, :, None],
        backward_s=backward[None, :, None],
        weight_grad_s=weight[None],
        **{name: getattr(layers.costs, name)[:1] for name in ("recompute_s", "offload_s", "narrow_s", "saved_bytes")},
    )
    one = replace(layers.take(np.array([0])), costs=costs, index=np.zeros(1, np.intp))
    floor_s = passes_floor(one, problem.kinds, problem.num_kinds, (0,)).floor_s()[0]
    order, found = build_order(one), {}
    for spans in all_splits(stage_window(problem, one)):
        lengths = tuple(stop - start for start, stop in spans)
        times = stage_times(one, Placement(one.layouts.row(0), schedule, lengths, (0,) * 7), problem)
        found[lengths] = simulate(order, times).makespan_s
    assert min(found, key=lambda lengths: found[lengths]) == (6, 1)
    assert 0.9 * found[6, 1] < floor_s <= found[6, 1]


def test_tight_bounds_know_how_far_boundaries_move() -> None:
    """A head of 3.8 layers, or of 2.9 where these are recomputed: the space counts the former."""
    fixed = {"pp": 2, "tp": 1, "recompute": "full", "schedule": "1f1b", "micro_batch_size": 1, "zero_stage": 0}
    sample = sample_rows(build_request(build_model(num_layers=12, vocab=100_000), 2, fixed=fixed), Random(0), 1)
    one = sample.row(0)
    placement = Placement(one.layouts.row(0), "1f1b", (11, 1), sample.policies[:1] * 12)
    assert (0, 0, 11) in list_ranges(sample.problem, one)
    evaluated = evaluate(sample.problem, placement, layers=one)
    step = (0, evaluated.step_time_s, claim_bytes(evaluated))
    check_tight(sample, [step], claim_bytes(evaluated), evaluated.step_time_s * 1.0001)


@pytest.mark.parametrize("shape", ["dense", "unlike"])
def test_no_floor_counts_more_collectives_than_a_rank_has_layers(shape: str) -> None:
    """Small layers, so that latency is most of what reductions and gathers take: some rank waits as long at least."""
    model = build_model(shape, num_layers=7, hidden=256, vocab=1000)
    request = build_request(model, 8, gpus_per_node=2, global_batch_size=32, fixed={"pp": 2, "tp": 1, "zero_stage": 3})
    sample = sample_rows(request, Random(0), 40)
    even = tuple(even_split(7, 2))
    for row in range(len(sample.layers.layouts)):
        one = sample.row(row)
        if one.layouts.vpp[0] > 1 or one.layouts.schedule_name(0) not in ("1f1b", "gpipe", "zb-h1"):
            continue
        placement = Placement(one.layouts.row(0), one.layouts.schedule_name(0), even, (0,) * 7)
        exposed_s = evaluate(sample.problem, placement, layers=one).priced.extras.exposed_s
        assert sample.after_s[row] <= exposed_s.max() * ROUNDING, placement


def test_bounds_stay_finite_without_a_head() -> None:
    """An encoder's missing head takes no time at all where the host launches whole graphs."""
    runtime = load_runtime("torch")
    graphs = runtime.model_copy(update={"kernels": runtime.kernels.model_copy(update={"cuda_graphs": True})})
    model = build_model().model_copy(update={"has_head": False})
    sample = sample_rows(build_request(model, 8, runtime=graphs), Random(1), 400)
    assert np.isfinite(sample.floor_s).all()
    assert (sample.floor_s > 0).all()


@pytest.mark.parametrize(("batch", "floor", "tight"), [(4, 0.80, 0.94), (64, 0.94, 0.999)])
def test_bounds_are_near_for_equal_stages(batch: int, floor: float, tight: float) -> None:
    """Sixteen equal layers on four ranks, hardly a vocabulary: the shares of the simulated time that are proven."""
    fixed = {"pp": 4, "micro_batch_size": 1, "schedule": "1f1b", "recompute": "none", "zero_stage": 0}
    model = build_model(num_layers=16, hidden=4096, vocab=8)
    request = build_request(model, 4, seq_len=4096, global_batch_size=batch, fixed=fixed)
    sample = sample_rows(request, Random(0), 1)
    layers = sample.row(0)
    even = evaluate(sample.problem, Placement(layers.layouts.row(0), "1f1b", (4,) * 4, (0,) * 16)).step_time_s
    assert floor * even <= sample.floor_s[0] <= even
    assert (
        tight * even
        <= tighten(sample.problem, layers, (0,), AMPLE, sample.floor_s, sample.after_s, even * 1.001)[0]
        <= even
    )
