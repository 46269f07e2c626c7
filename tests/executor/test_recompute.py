"""Recomputation happens once per layer and micro-batch, also when the backward is split, and saves what it should."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from plans import build_plan, small_model
from torch import Tensor, nn
from torch.distributed.pipelining._backward import stage_backward_input
from torch.utils._python_dispatch import TorchDispatchMode
from worker_pool import WorkerPool

from costmodel.layers import estimate_layer_costs
from costmodel.ops import Split
from costmodel.schema.layout import Layout
from costmodel.schema.model import ModelSpec
from costmodel.schema.plan import Plan
from executor.activations import keep_activations
from executor.initialise import materialise
from executor.memory import _LiveBytes, measure_peak_memory
from executor.model import Layer
from planner.problem import Problem
from planner.request import build_request

CPU = torch.device("cpu")
MICROBATCHES = 3


RECOMPUTE = ("full", "selective", "none", "full")


def _assert_forwards(plan: Plan, pool: WorkerPool) -> None:
    """Every layer ran forward once a micro-batch in F, and once more in B or I if it is recomputed; never in W."""
    backward = "I" if plan.schedule().splits_backward else "B"
    seen = set()
    for counts in pool.run("forwards", plan=plan.model_dump_json()):
        for name, ran in counts.items():
            seen.add(name)
            once = {"F": MICROBATCHES} | ({} if RECOMPUTE[int(name)] == "none" else {backward: MICROBATCHES})
            assert ran == once, f"layer {name}"
    assert seen == {"0", "1", "2", "3"}


@pytest.mark.parametrize("offload", [0.0, 1.0])
@pytest.mark.parametrize("schedule", ["1f1b", "zb-h1"])
def test_forwards_per_layer_and_microbatch(schedule: str, offload: float, workers: Callable[[int], WorkerPool]) -> None:
    layout = Layout(pp=2, num_microbatches=MICROBATCHES)
    plan = build_plan(layout, schedule=schedule, recompute=RECOMPUTE, offload=(offload,), seq_len=32)
    _assert_forwards(plan, workers(2))


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
@pytest.mark.parametrize("schedule", ["1f1b", "zb-h1"])
def test_forwards_under_fsdp(schedule: str, zero_stage: int, workers: Callable[[int], WorkerPool]) -> None:
    layout = Layout(pp=2, dp_shard=2, zero_stage=zero_stage, num_microbatches=MICROBATCHES)
    _assert_forwards(build_plan(layout, schedule=schedule, recompute=RECOMPUTE), workers(4))


class _CountProducts(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[func._opname] += 1
        return func(*args, **(kwargs or {}))


def _layer(
    policy: str = "none", offload: float = 0.0, *, spec: ModelSpec | None = None, dtype: torch.dtype = torch.float64
) -> nn.Module:
    spec = spec or small_model(1, hidden_size=64)
    with torch.device("meta"):
        layer = Layer(spec, spec.kinds[0])
    materialise(layer, "layers.0", 0, dtype, CPU)
    keep_activations(layer, policy, offload, CPU)
    return layer


def _hidden() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 64, 64, dtype=torch.float64, generator=generator).requires_grad_()


def _backward_ops(policy: str) -> Counter[str]:
    out = _layer(policy)(_hidden()).sum()
    with _CountProducts() as counter:
        out.backward()
    return counter.counts


def test_selective_repeats_no_product_and_full_all_but_the_closing_one() -> None:
    plain, selective, full = (_backward_ops(policy)["mm"] for policy in ("none", "selective", "full"))
    assert plain == 14  # two for each of the seven matrices
    assert selective == plain
    assert full == plain + 6  # down_proj's result is needed by nothing
    assert _backward_ops("selective")["mul"] > _backward_ops("none")["mul"]


def _peak_bytes(policy: str, offload: float = 0.0) -> tuple[int, int]:
    layer, hidden = _layer(policy, offload), _hidden()
    with measure_peak_memory(CPU) as peaks:
        out = hidden
        for _ in range(4):
            out = layer(out)
        out.sum().backward()
    return peaks[0].allocated_bytes, peaks[0].host_bytes


def test_stronger_policies_need_less_memory() -> None:
    (none, _), (selective, _), (full, _), (offloaded, on_host) = (
        _peak_bytes("none"),
        _peak_bytes("selective"),
        _peak_bytes("full"),
        _peak_bytes("none", 1.0),
    )
    assert full < selective < none
    assert offloaded < selective
    assert on_host > none - offloaded


def test_recomputed_tensors_live_no_longer_than_the_graph() -> None:
    layer, hidden = _layer("full"), _hidden()
    out = layer(hidden).sum()
    torch.autograd.grad(out, hidden, retain_graph=True)
    with _CountProducts() as kept:
        torch.autograd.grad(out, [hidden, *layer.parameters()], retain_graph=True)
    assert kept.counts["mm"] == 14, "the second walk must find what the first recomputed"
    with measure_peak_memory(CPU) as held:
        pass
    del out
    with measure_peak_memory(CPU) as freed:
        pass
    assert freed[0].allocated_bytes < held[0].allocated_bytes - 4 * hidden.numel() * hidden.element_size()


def _waiting_bytes(policy: str, spec: ModelSpec, seq_len: int) -> tuple[int, int]:
    """Live bytes of a micro-batch in four layers, from its I to its W: what F left there, what came on top in I."""
    stage = nn.Sequential(*(_layer(policy, spec=spec, dtype=torch.float32) for _ in range(4)))
    hidden = torch.zeros(4, seq_len, spec.hidden_size)
    stage(hidden)  # makes the rotary tables
    hidden.requires_grad_()
    gradient = torch.zeros_like(hidden)
    gc.collect()  # or garbage of earlier stages may die meanwhile
    with _LiveBytes() as live:
        before = live.live_bytes
        out = stage(hidden)
        saved = live.live_bytes - before - out.nbytes
        sent, groups = stage_backward_input([out], [gradient], [hidden], stage.parameters())
        hidden.grad = None
        del out, sent
        assert groups, "the graph waits"
        waiting = live.live_bytes - before + gradient.nbytes
    return saved, waiting - saved


def test_what_waits_for_the_weight_gradient_is_what_the_cost_model_charges() -> None:
    request = build_request("tiny", 1, gpu="cpu", calibration="none")
    seq_len = request.workload.seq_len
    problem = Problem.from_request(request)
    names = ("tp", "cp_ring", "cp_ulysses", "ep", "etp", "sequence_parallel", "vocab_over")
    degrees = {name: np.ones(1) for name in names}
    split = Split(**degrees, micro_batch_size=np.full(1, 4.0), seq_len=float(seq_len))
    charged = estimate_layer_costs(problem.setting, problem.network, split).pending_bytes[0, 0]
    plain_saved, plain_on_top = _waiting_bytes("none", request.model, seq_len)
    assert plain_on_top == 4 * charged[0]  # the gradients at the outputs of products and norms
    for policy in ("selective", "full"):
        saved, on_top = _waiting_bytes(policy, request.model, seq_len)
        assert saved < plain_saved
        assert saved + on_top == plain_saved + plain_on_top, "what was recomputed is kept, and nothing else"
