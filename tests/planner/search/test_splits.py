"""Given splits: who gives layers away to relieve the ends, and stages that hold an end of the model alone."""

from __future__ import annotations

import numpy as np
import pytest
from drawn_instances import Instance
from hypothesis import given, settings
from hypothesis import strategies as st
from proof_checks import check_answer
from small_instances import build_model, build_request

from costmodel.layer_table import price_layers
from costmodel.schema.errors import InvalidSpec
from costmodel.schema.layout import Layout
from costmodel.stages import stages_of
from planner.predict import predict_plan
from planner.problem import Problem
from planner.search import find_plan
from planner.search.ranges import list_ranges
from planner.search.space import enumerate_layouts
from planner.search.splits import given_splits


def loads(split: tuple[int, ...], schedule: str, pp: int, vpp: int, ends: tuple[int, int]) -> np.ndarray:
    stages = stages_of(schedule, pp, vpp)
    load = stages.embedding * float(ends[0]) + stages.head * float(ends[1])
    np.add.at(load, list(stages.stage_to_rank), np.tile(split, stages.copies))
    return load


@given(
    shape=st.sampled_from([("interleaved-1f1b", 2, 2), ("interleaved-1f1b", 4, 3), ("zb-v", 3, 2), ("chimera", 4, 1)]),
    more=st.integers(-2, 20),
    ends=st.tuples(st.integers(0, 6), st.integers(0, 6)),
)
@settings(deadline=None, max_examples=60)
def test_the_relieved_split_is_no_less_even(shape: tuple[str, int, int], more: int, ends: tuple[int, int]) -> None:
    schedule, pp, vpp = shape
    total = stages_of(*shape).per_copy + more
    splits = given_splits(total, schedule, pp, vpp, ends, 0)
    heaviest = [loads(split, schedule, pp, vpp, ends).max() for split in splits]
    assert all(sum(split) == total for split in splits)
    assert all(min(split) >= 0 for split in splits)
    assert all(all(split[1:-1]) for split in splits)
    assert heaviest == sorted(heaviest, reverse=True)


def test_an_end_gives_its_last_layer_away_only_where_it_may() -> None:
    """Two chunks on each of two ranks and a head of five layers; and Llama 3 405B's chunks of one."""
    assert given_splits(6, "interleaved-1f1b", 2, 2, (0, 5), 0)[-1][-1] == 0
    assert given_splits(6, "interleaved-1f1b", 2, 2, (0, 5))[-1][-1] == 1
    assert given_splits(126, "interleaved-1f1b", 16, 8, (0, 1), 0) == ((0, *[1] * 126, 0),)


@pytest.mark.parametrize(("runtime", "alone"), [("torch", True), ("deepspeed", False)])
def test_ranges_of_an_end_alone_are_those_that_the_runtime_has(runtime: str, alone: bool) -> None:
    model = build_model(num_layers=6, hidden=256, vocab=256000)
    request = build_request(model, 4, runtime=runtime, schedules=("1f1b",), fixed={"pp": 4})
    problem = Problem.from_request(request)
    layers = price_layers(problem.setting, problem.network, enumerate_layouts(request).take([0]))
    empty = {one for one in list_ranges(problem, layers) if one[1] == one[2]}
    assert empty == ({(0, 0, 0), (3, 6, 6)} if alone else set())


def test_stages_may_be_two_more_than_layers() -> None:
    model, asked = build_model(num_layers=4), {"gpus_per_node": 6, "global_batch_size": 12, "fixed": {"pp": 6}}
    found = {name: build_request(model, 6, schedules=(name,), **asked) for name in ("1f1b", "1f1b-vocab-1")}
    assert {name: len(enumerate_layouts(one)) > 0 for name, one in found.items()} == {
        "1f1b": True,
        "1f1b-vocab-1": False,
    }


def test_a_model_without_a_head_has_no_stage_of_an_end_alone() -> None:
    """With one stage more than layers an even split would leave the last one nothing at all."""
    model = build_model(num_layers=4).model_copy(update={"has_head": False})
    request = build_request(model, 5, gpus_per_node=5, global_batch_size=5)
    with pytest.raises(InvalidSpec, match="every stage needs one") as refused:
        predict_plan(request, Layout(pp=5, num_microbatches=5), "1f1b")
    assert refused.value.hint == "4 stages at most"


def test_a_large_vocabulary_has_a_stage_to_itself() -> None:
    """A head that weighs several layers: the best of every split leaves none beside it, and the search proves it."""
    model = build_model(num_layers=6, hidden=256, vocab=256000)
    fixed = {"pp": 4, "tp": 1, "schedule": "1f1b", "micro_batch_size": 1}
    request = build_request(model, 4, global_batch_size=6, fixed=fixed, gap=0.0, top=0)
    answer = check_answer(Instance("ends", 0, request))
    assert not answer.wrong
    assert answer.status == "proven"
    assert find_plan(request).pipeline.layers_per_stage[-1] == 0
