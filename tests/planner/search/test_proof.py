"""Answers and bounds with every kind of choice in the space, against trying everything and against simulation.

``python benchmarks/proof.py`` does the same for more of them.
"""

from __future__ import annotations

import pytest
from drawn_instances import KINDS, Instance, draw_instance
from exhaustive import TooLarge
from proof_checks import check_answer, check_layouts
from small_instances import build_model, build_request

OPEN = {"hosts too small": 82, "pinned layers": 389, "shared cores": 403, "parts in bubbles": 756, "V-shaped": 755,
        "mixes as fast as each other": 1381, "ranks without experts": 1503,
        "mixes under less memory that are slower": 5277}  # fmt: skip
"""Instances whose answer what bounds a placed layout leaves open: not until all its choices are looked through is it
the optimum, and proven."""

LEAN = 18
"""An instance of interleaved stages of unlike lengths, one layer of them pinned, and hardly any memory."""


@pytest.mark.parametrize("seed", range(3 * len(KINDS)))
def test_answers_equal_trying_everything(seed: int) -> None:
    """Kinds of instance take turns."""
    try:
        answer = check_answer(draw_instance(seed))
    except TooLarge:
        pytest.skip("more than is worth waiting for")
    assert not answer.wrong, (answer.step_s, answer.bound_s, answer.best_s)


@pytest.mark.parametrize("why", OPEN)
def test_what_placing_leaves_open_is_looked_through(why: str) -> None:
    answer = check_answer(draw_instance(OPEN[why], gap=0.0))
    assert not answer.wrong, (answer.step_s, answer.bound_s, answer.best_s)
    assert answer.status == "proven"
    assert answer.excess < 1e-6


@pytest.mark.parametrize("seed", range(2000, 2000 + 4 * len(KINDS)))
def test_bounds_are_below_what_is_simulated(seed: int) -> None:
    for one in check_layouts(draw_instance(seed, cut=False), 8):
        assert not one.wrong, one


def test_instances_have_every_choice() -> None:
    """What the checks are drawn from: none of the search's choices is missing."""
    requests = [draw_instance(seed, cut=False).request for seed in range(12 * len(KINDS))]
    runtimes = [request.runtime for request in requests]
    assert any(request.pins for request in requests)
    assert any("layers_per_stage" in request.fixed for request in requests)
    assert any(request.other_devices for request in requests)
    assert any(runtime.vocab_parallel for runtime in runtimes)
    assert any(request.runtime.ends_without_layers and request.model.num_layers < 4 for request in requests)
    assert any(request.runtime.frozen_fill and request.model.frozen_parts for request in requests)
    assert {group for runtime in runtimes for group in runtime.state.shard_groups} == {
        "secondary",
        "params",
        "optimizer",
    }


def test_a_split_that_no_path_tells_apart_is_found_on_the_timeline() -> None:
    """The stage program's paths leave open which of several splits is fastest: --gap 0 is proven all the same."""
    unlike = build_model("unlike", num_layers=7, hidden=1024, vocab=1000)
    fixed = {"tp": 1, "pp": 4, "schedule": "1f1b", "micro_batch_size": 1}
    request = build_request(unlike, 4, global_batch_size=6, fixed=fixed, gap=0.0, top=0)
    answer = check_answer(Instance("open", 0, request))
    assert not answer.wrong
    assert answer.status == "proven"
    assert answer.excess < 1e-9


def test_the_leanest_mixes_of_several_stages_are_tried_last() -> None:
    """An order keeps mixes longer than the mean of their stages; of those with less memory only the leanest fits."""
    answer = check_answer(draw_instance(LEAN, kind="pins"))
    assert answer.step_s < float("inf")
    assert not answer.wrong, (answer.step_s, answer.best_s)
