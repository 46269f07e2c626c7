"""Saved activations in 8 bits: how far numbers and gradients are off, and what they need."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from plans import build_plan
from reference import single_process
from torch import Tensor, nn
from worker_pool import WorkerPool

from costmodel.layers import estimate_layer_costs
from costmodel.layouts import POLICIES, Policy
from costmodel.offload import INT8_BLOCK
from costmodel.ops import Split
from costmodel.schema.layout import Layout
from executor.activations import keep_activations
from executor.initialise import materialise
from executor.memory import _LiveBytes
from executor.model import Layer
from executor.narrow import narrow
from executor.offload import Keep
from planner.problem import Problem
from planner.request import build_request

CPU = torch.device("cpu")
GRADIENT_TOLERANCE = 0.03
"""Norm-wise, of each parameter's gradient: rounding to 1/254 of a block's largest number, through four layers."""


@pytest.mark.parametrize("shape", [(3, 5, 100), (128,), (1,), (2, 0)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_no_number_is_off_by_more_than_half_a_level(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype) * 10
    back = narrow(tensor, INT8_BLOCK).wide(tensor.shape, dtype)
    assert (back.shape, back.dtype) == (tensor.shape, tensor.dtype)
    level = tensor.abs().max().item() / 127 if tensor.numel() else 0.0
    assert (back - tensor).abs().sum() <= tensor.numel() * level * (0.5 + 2.0**-7)


def test_zeros_stay_zeros() -> None:
    assert not narrow(torch.zeros(300), INT8_BLOCK).wide(torch.Size([300]), torch.float32).any()


def test_small_tensors_stay_exact_and_strides_are_kept() -> None:
    keep = Keep(1.0, CPU, narrow_from=1000)
    small, large = torch.randn(999), torch.randn(40, 50).t()
    torch.testing.assert_close(keep.unpack(keep.pack(small)), small, rtol=0, atol=0)
    packed = [keep.pack(large), keep.pack(large.clone(memory_format=torch.preserve_format))]
    for one in packed:
        back = keep.unpack(one)
        assert back.stride() == large.stride()
        assert back is keep.unpack(one)
        assert 0 < (back - large).norm() / large.norm() < 0.01
    assert keep.pack(large) is packed[0]
    assert keep.host_bytes == small.nbytes + 2 * 16 * (INT8_BLOCK + 4), "in as many bytes as it is kept"


@pytest.mark.parametrize(
    ("degrees", "schedule", "offload"),
    [({"dp_shard": 2, "zero_stage": 3}, "1f1b", 0.0), ({"tp": 2}, "1f1b", 0.5), ({"pp": 2}, "zb-h1", 0.0)],
    ids=["zero3", "tp-and-host", "zb-h1"],
)
def test_gradients_are_near(
    degrees: dict[str, Any], schedule: str, offload: float, workers: Callable[[int], WorkerPool]
) -> None:
    plan = build_plan(
        Layout(**degrees, num_microbatches=2), schedule=schedule, recompute=("none", "selective", "full"),
        offload=(offload,), saved_dtype="int8", seq_len=32,
    )  # fmt: skip
    loss, gradients = single_process(plan)
    for losses, full, _ in workers(2).run("gradients", plan=plan.model_dump_json()):
        np.testing.assert_allclose(losses, loss, rtol=1e-9)  # the forward pass reads what was computed
        errors = {name: np.linalg.norm(full[name] - gradients[name]) / np.linalg.norm(gradients[name]) for name in full}
        assert max(errors.values()) < GRADIENT_TOLERANCE
        assert max(errors.values()) > 1e-6, "nothing was rounded"


def _saved_bytes(policy: Policy, spec: Any, hidden: Tensor, narrow_from: int) -> int:
    """What one forward of four layers leaves alive beside its result."""
    layers = []
    for _ in range(4):
        with torch.device("meta"):
            layer = Layer(spec, spec.kinds[0])
        materialise(layer, "layers.0", 0, torch.float32, CPU)
        keep_activations(
            layer, policy.recompute, 0.0, CPU, narrow_from=narrow_from if policy.saved_dtype == "int8" else 0
        )
        layers.append(layer)
    stage = nn.Sequential(*layers)
    with torch.no_grad():
        stage(hidden)  # makes the rotary tables
    gc.collect()  # or garbage of earlier layers may die meanwhile
    with _LiveBytes() as live:
        before = live.live_bytes
        out = stage(hidden)
        return live.live_bytes - before - out.nbytes


def test_the_share_that_is_saved_is_what_the_cost_model_charges() -> None:
    request = replace(build_request("tiny", 1, gpu="cpu", calibration="none"), allowed=frozenset({"int8_activations"}))
    problem, model, tokens = Problem.from_request(request), request.model, request.workload.seq_len
    names = ("tp", "cp_ring", "cp_ulysses", "ep", "etp", "sequence_parallel", "vocab_over")
    degrees = {name: np.ones(1) for name in names}
    split = Split(**degrees, micro_batch_size=np.full(1, 4.0), seq_len=float(tokens))
    charged = estimate_layer_costs(problem.setting, problem.network, split).saved_bytes[0, 0]
    attention = model.kinds[0].blocks[0]
    keys = 4 * tokens * attention.num_key_value_heads * attention.head_dim
    hidden = torch.randn(4, tokens, model.hidden_size, generator=torch.Generator().manual_seed(0)).requires_grad_()
    for name in ("none", "selective"):
        wide, narrowed = Policy(name), Policy(name, saved_dtype="int8")
        share = _saved_bytes(narrowed, model, hidden, keys) / _saved_bytes(wide, model, hidden, keys)
        assert share == pytest.approx(charged[POLICIES.index(narrowed)] / charged[POLICIES.index(wide)], rel=0.1)
