"""8-bit training may keep less for its backward: inputs of products in 8 bits, and of put-off products the operands."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pricing import make_problem, one_split

from costmodel.layers import LayerCosts, estimate_layer_costs
from costmodel.layouts import POLICIES, Policy
from costmodel.schema.runtime_kernels import NarrowSaves

SEQ_LEN = 4096
NONE, SELECTIVE, FULL = (POLICIES.index(Policy(name)) for name in ("none", "selective", "full"))
DENSE, MOE = 0, 1
HIDDEN, HEADS, VALUE, QUERY_KEY, LATENTS = 7168, 128, 128, 192, 1536 + 512 + 64
RECEIVED = SEQ_LEN * 8


def costs_of(
    precision: str = "fp8", saves: tuple[float, float, float] | None = (1.0, 1.0, 1.5), **rules: Any
) -> LayerCosts:
    """DeepSeek-V3 under HAI-LLM on one rank of 64 that share the experts, loads even, with rules as told."""
    problem = make_problem("deepseek-v3", 2048, gpu="h800", runtime="hai-llm", precision=precision, seq_len=SEQ_LEN)
    narrow = None if saves is None else NarrowSaves(
        product_inputs=saves[0], activation_inputs=saves[1], attention_output=saves[2]
    )  # fmt: skip
    kernels = problem.setting.runtime.kernels.model_copy(update={"narrow_saves": narrow})
    runtime = problem.setting.runtime.model_copy(update={"kernels": kernels, **rules})
    workload = problem.setting.workload.model_copy(update={"moe_imbalance": 1.0})
    setting = replace(problem.setting, runtime=runtime, workload=workload)
    return estimate_layer_costs(setting, problem.network, one_split(SEQ_LEN, ep=64))


def test_what_a_layer_of_experts_keeps() -> None:
    """Beside norms' inputs, latents, log-sum-exp and router logits: routed inputs and SwiGLU's inputs in 8 bits,
    attention's output in 12."""
    attention = SEQ_LEN * (HEADS * VALUE * 1.5 + HEADS * 4 + LATENTS * 2)
    norms = 2 * SEQ_LEN * HIDDEN * 2
    experts = RECEIVED * (HIDDEN + 2 * 2048) + SEQ_LEN * (256 * 4 + 2 * 2048 + 2048)
    assert costs_of().saved_bytes[0, MOE, SELECTIVE] == pytest.approx(attention + norms + experts)


def test_each_kind_of_tensor_by_its_own_width() -> None:
    saved = costs_of().saved_bytes[0, MOE, SELECTIVE]
    shared = SEQ_LEN * 2048
    wider = {
        (2.0, 1.0, 1.5): RECEIVED * HIDDEN + shared,
        (1.0, 2.0, 1.5): 2 * (RECEIVED * 2048 + shared),
        (1.0, 1.0, 2.0): 0.5 * SEQ_LEN * HEADS * VALUE,
    }
    for saves, more in wider.items():
        assert costs_of(saves=saves).saved_bytes[0, MOE, SELECTIVE] - saved == pytest.approx(more)


def test_products_of_16_bits_keep_16_bits() -> None:
    with_rule, without = costs_of("bf16"), costs_of("bf16", saves=None)
    np.testing.assert_array_equal(with_rule.saved_bytes, without.saved_bytes)
    np.testing.assert_array_equal(with_rule.pending_bytes, without.pending_bytes)
    assert (costs_of().saved_bytes[0, :2] < costs_of(saves=None).saved_bytes[0, :2])[:, (NONE, SELECTIVE)].all()


def test_time_does_not_depend_on_what_is_kept() -> None:
    narrow, whole = costs_of(), costs_of(saves=None)
    np.testing.assert_array_equal(narrow.forward_s, whole.forward_s)
    np.testing.assert_array_equal(narrow.backward, whole.backward)


def test_experts_outputs_stay_where_their_weights_gradient_reads_them() -> None:
    """A rank's own tokens, eight times each, in 16 bits."""
    kernels = make_problem("deepseek-v3", 2048, gpu="h800", runtime="hai-llm", seq_len=SEQ_LEN).setting.runtime.kernels
    assert not kernels.weighs_expert_outputs
    kept = costs_of("bf16", saves=None)
    weighed = costs_of("bf16", saves=None, kernels=kernels.model_copy(update={"weighs_expert_outputs": True}))
    more = weighed.saved_bytes[0, :, NONE] - kept.saved_bytes[0, :, NONE]
    assert more[MOE] == pytest.approx(RECEIVED * HIDDEN * 2)
    assert more[DENSE] == 0.0


def test_put_off_products_keep_two_operands() -> None:
    """Inputs and the gradients at outputs, 8 bits each, in place of all that was saved: no more than autograd's whole
    graph with the same gradients, and nothing where what was saved takes more."""
    ends = LATENTS + HEADS * (QUERY_KEY + 128 + VALUE)
    inputs = SEQ_LEN * (HIDDEN + 1.5 * HEADS * VALUE + LATENTS + HIDDEN + 2048) + RECEIVED * (HIDDEN + 2048)
    outputs = SEQ_LEN * (ends + HIDDEN + 2 * 2048 + HIDDEN) + RECEIVED * (2 * 2048 + HIDDEN)
    router = SEQ_LEN * 256 * 2
    store, graph = costs_of(), costs_of(defers_operands=False)
    both = store.saved_bytes + store.pending_bytes
    assert both[0, MOE, SELECTIVE] == pytest.approx(inputs + outputs + router)
    assert (store.pending_bytes <= graph.pending_bytes).all()
    assert (store.pending_bytes >= 0.0).all()
    assert store.pending_bytes[0, MOE, FULL] > store.pending_bytes[0, MOE, SELECTIVE]
