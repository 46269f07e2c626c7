"""AdamW with moments in 8 bits: its points, how far it strays from fp32 moments, its memory, its checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from plans import build_plan
from worker_pool import WorkerPool

from costmodel.moments import INT8_BLOCK
from costmodel.schema.errors import InvalidSpec
from costmodel.schema.layout import Layout
from executor.capabilities import check_runnable
from executor.eight_bit import EightBitAdamW, decode, dynamic_points, encode

CPU = torch.device("cpu")
LOSS_TOLERANCE = 0.02
"""Relative, of every loss in the first steps, against moments in full."""


@pytest.mark.parametrize("signed", [True, False])
def test_points_are_256_from_one_down_to_a_ten_millionth(signed: bool) -> None:
    points = dynamic_points(signed=signed, device=CPU)
    assert points.unique().numel() == 256
    assert points.max() == 1.0
    assert (points.min() < 0) == signed
    assert 1e-7 < points[points > 0].min() < 1e-6


@pytest.mark.parametrize("signed", [True, False])
def test_rounding_goes_to_the_nearest_point(signed: bool) -> None:
    numbers = torch.randn(3, 200, generator=torch.Generator().manual_seed(0)) ** 3
    numbers = numbers if signed else numbers.abs()
    codes, scales = encode(numbers, signed=signed)
    back = decode(codes, scales, numbers, signed=signed)
    assert (codes.shape, scales.shape) == ((3, INT8_BLOCK), (3, 1))
    points, scale = dynamic_points(signed=signed, device=CPU), scales.repeat_interleave(INT8_BLOCK)[: numbers.numel()]
    nearest = (numbers.flatten()[:, None] / scale[:, None] - points).abs().amin(dim=1)
    torch.testing.assert_close(((back - numbers).flatten() / scale).abs(), nearest, rtol=0, atol=1e-6)
    for one, other in zip(encode(back, signed=signed), (codes, scales), strict=True):
        assert torch.equal(one, other), "what was rounded once stays"


def test_moments_take_two_bytes_a_parameter_and_their_scales() -> None:
    parameter = torch.nn.Parameter(torch.randn(64, 1024))
    optimizer = EightBitAdamW([parameter], lr=1e-3)
    parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    kept = sum(value.nbytes for key, value in optimizer.state[parameter].items() if key != "step")
    assert kept == parameter.numel() * 2 * (1 + 4 / INT8_BLOCK)


def _moved(kind: type[torch.optim.Optimizer], powers: int) -> torch.Tensor:
    """How 20 steps move down a quadratic whose gradients differ by ``powers`` of ten within a block."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(8, 100, generator=generator)
    curvature = 10.0 ** (powers * torch.rand(8, 100, generator=generator))
    value = torch.nn.Parameter(start.clone())
    optimizer = kind([value], lr=0.01, betas=(0.9, 0.95), weight_decay=0.1)
    for _ in range(20):
        value.grad = curvature * value.detach()
        optimizer.step()
    return value.detach() - start


def test_it_goes_where_adamw_goes() -> None:
    exact, near = _moved(torch.optim.AdamW, 2), _moved(EightBitAdamW, 2)
    assert 0 < (near - exact).norm() < 0.1 * exact.norm()


def test_squares_below_the_smallest_point_slow_an_update_down_and_never_blow_it_up() -> None:
    exact, near = _moved(torch.optim.AdamW, 6), _moved(EightBitAdamW, 6)
    assert near.abs().max() < 1.1 * exact.abs().max()


def _train(layout: Layout, workers: Callable[[int], WorkerPool], steps: int = 4, **folders: str) -> np.ndarray:
    plan = build_plan(layout)
    return np.array(workers(plan.world_size).run("train_steps", plan=plan.model_dump_json(), steps=steps, **folders)[0])


def test_training_stays_near_and_resumes_in_other_layouts_and_formats(
    workers: Callable[[int], WorkerPool], tmp_path: Path
) -> None:
    sharded = Layout(dp_shard=2, zero_stage=3, num_microbatches=2, optimizer_format="int8")
    split = Layout(tp=2, num_microbatches=4, optimizer_format="int8")
    full = _train(sharded.model_copy(update={"optimizer_format": "fp32"}), workers)[0]
    folder = str(tmp_path / "checkpoint")
    narrow = np.concatenate([_train(sharded, workers, 2, save=folder)[0], _train(sharded, workers, 2, load=folder)[0]])
    np.testing.assert_allclose(narrow, _train(sharded, workers)[0], rtol=1e-12)
    np.testing.assert_allclose(narrow, full, rtol=LOSS_TOLERANCE)
    assert np.abs(narrow - full).max() > 1e-9, "nothing was rounded"
    for other in (split, split.model_copy(update={"optimizer_format": "fp32"})):
        np.testing.assert_allclose(_train(other, workers, 2, load=folder)[0], full[2:], rtol=LOSS_TOLERANCE)


def test_moments_of_other_optimizers_stay_in_full() -> None:
    with pytest.raises(InvalidSpec, match=r"workload.optimizer = sgd-momentum, and moments in int8 are adamw's"):
        check_runnable(build_plan(Layout(optimizer_format="int8"), optimizer="sgd-momentum"))
