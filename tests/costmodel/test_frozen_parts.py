"""Frozen parts: forward work and bytes of an encoder, before the pipeline and in its bubbles."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pricing import make_problem, make_request, price_uniform

from costmodel.catalog.models import load_model
from costmodel.flops import estimate_model_flops
from costmodel.frozen import PIECES, estimate_held_bytes, estimate_param_bytes, output_bytes
from costmodel.layer_table import price_layers
from costmodel.layouts import Layouts
from costmodel.parameters import count_model, trainable_share
from costmodel.price import Priced
from costmodel.schema.errors import InvalidSpec
from costmodel.schema.layout import Layout
from costmodel.schema.model import FrozenPart
from planner.problem import Problem

PROBLEM = make_problem("llava-1.5-7b", 16, global_batch_size=32)
SETTING = PROBLEM.setting
ENCODER = SETTING.model.frozen_parts[0].model


def priced(**degrees: Any) -> Priced:
    return price_uniform(PROBLEM, rows(Layout(**degrees)))


def rows(*layouts: Layout) -> Layouts:
    return Layouts.from_rows([(layout, "1f1b") for layout in layouts])


def test_it_has_parameters_and_neither_gradients_nor_optimizer_state() -> None:
    assert trainable_share(ENCODER) == 0.0
    alone = SETTING.model.model_copy(update={"frozen_parts": ()})
    assert count_model(SETTING.model) == count_model(alone)
    layouts = rows(Layout(tp=4, pp=4, num_microbatches=32), Layout(tp=4, pp=4, num_microbatches=32, frozen_fill=True))
    before, filled = estimate_param_bytes(SETTING, layouts)
    assert before == 2.0 * count_model(ENCODER).total
    # Matrices are split, the patch convolution, positions and norms are not.
    assert 0.25 * before < filled < 0.26 * before


def test_its_forward_counts_as_work_of_the_model() -> None:
    model, workload = SETTING.model, SETTING.workload
    alone = estimate_model_flops(model.model_copy(update={"frozen_parts": ()}), workload)
    ran = estimate_model_flops(model, workload) - alone
    tokens = 577 * workload.global_batch_size
    assert ran == pytest.approx(2.0 * count_model(ENCODER).total * tokens, rel=0.15)


def test_before_the_pipeline_all_devices_share_the_batch() -> None:
    """Whatever splits the model, its devices run the encoder whole, in rounds of a micro-batch at most."""
    plain = {"num_microbatches": 16, "dp_replicate": 2}
    times_s = [
        float(priced(**plain, **degrees).extras.frozen_s[0, 0])
        for degrees in ({"pp": 8}, {"pp": 4, "tp": 2}, {"pp": 2, "tp": 4}, {"tp": 8})
    ]
    np.testing.assert_allclose(times_s, times_s[0], rtol=0.01)
    fewer_s = float(priced(pp=4, num_microbatches=8, dp_replicate=4).extras.frozen_s[0, 0])
    assert fewer_s == pytest.approx(times_s[0], rel=0.01)
    lone_s = float(priced(pp=16, num_microbatches=32).extras.frozen_s[0, 0])
    assert lone_s == pytest.approx(times_s[0], rel=0.01)


def test_it_lengthens_the_step_by_its_own_time() -> None:
    layout = {"pp": 4, "num_microbatches": 8, "dp_replicate": 4}
    one = priced(**layout)
    alone = replace(PROBLEM, setting=replace(SETTING, model=SETTING.model.model_copy(update={"frozen_parts": ()})))
    bare = price_uniform(alone, rows(Layout(**layout)))
    late = 1.0 + float(one.layers.jitter[0])
    frozen_s = float(one.extras.frozen_s[0, 0])
    assert float(one.step_time_s[0] - bare.step_time_s[0]) == pytest.approx(frozen_s * late, rel=1e-9)


def test_pieces_sum_to_the_forward_of_all_layers() -> None:
    layouts = rows(Layout(pp=4, dp_replicate=4, num_microbatches=8, frozen_fill=True))
    layers = price_layers(SETTING, PROBLEM.network, layouts)
    assert layers.frozen.piece_s.shape == (1, PIECES)
    before = priced(pp=4, dp_replicate=4, num_microbatches=8)
    assert float(before.layers.frozen.piece_s.sum()) == 0.0
    # Two of its eight micro-batches on each rank, and the way of one output to the first.
    assert float(before.extras.frozen_s[0, 0]) == pytest.approx(2.0 * float(layers.frozen.piece_s.sum()), rel=0.02)


def test_the_first_stage_holds_the_outputs() -> None:
    base = {"pp": 4, "dp_replicate": 4, "micro_batch_size": 2, "num_microbatches": 4}
    layouts = rows(Layout(**base), Layout(**base, frozen_fill=True))
    held = estimate_held_bytes(SETTING, layouts, np.array([[0, 1], [0, 1]]))
    outputs = 8 * output_bytes(SETTING)
    assert output_bytes(SETTING) == 2.0 * 577 * 1024
    np.testing.assert_allclose(held[:, 0] - held[:, 1], [outputs, 2.0 * outputs])
    assert held[0, 1] == 0.0 < held[1, 1]


def test_a_part_trains_nothing_and_has_no_parts() -> None:
    with pytest.raises(InvalidSpec, match="tiny must have trains = 'frozen', not 'full'"):
        FrozenPart.load({"model": load_model("tiny").model_dump(), "seq_len": 4}, "a part")


def test_a_model_that_trains_nothing_is_refused() -> None:
    request = make_request("tiny", 1)
    with pytest.raises(InvalidSpec, match="tiny has trains = 'frozen'"):
        Problem.from_request(replace(request, model=request.model.model_copy(update={"trains": "frozen"})))
