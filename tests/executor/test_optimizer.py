"""Updates and clipping do not depend on the layout, and a checkpoint of one layout resumes in another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from orders import one_by_one
from plans import build_plan, small_model
from worker_pool import WorkerPool

from costmodel.schema.layout import Layout

STEPS = 3
LAYOUTS = {
    "one": Layout(num_microbatches=4),
    "replicate": Layout(dp_replicate=2, num_microbatches=2),
    "zero3": Layout(dp_shard=2, zero_stage=3, num_microbatches=2),
    "tp-sp": Layout(tp=2, num_microbatches=4),
    "tp": Layout(tp=2, num_microbatches=4, sequence_parallel=False),
    "pp": Layout(pp=2, num_microbatches=4),
    "hybrid": Layout(dp_replicate=2, dp_shard=2, zero_stage=2),
    "zero3-tp": Layout(dp_shard=2, tp=2, zero_stage=3, num_microbatches=2),
    "pp-zero1": Layout(dp_shard=2, pp=2, zero_stage=1, num_microbatches=2),
    "two-way": Layout(pp=2, num_microbatches=4),
    "two-way-zero2": Layout(pp=2, dp_shard=2, zero_stage=2, num_microbatches=2),
    "both-copies-on-a-rank": Layout(pp=2, num_microbatches=4),
    "vocab-1": Layout(pp=2, num_microbatches=4),
    "vocab-2-replicate": Layout(pp=2, dp_replicate=2, num_microbatches=2),
}
ORDERS = {
    "two-way": one_by_one((0, 1, 1, 0), 4),
    "two-way-zero2": one_by_one((0, 1, 1, 0), 2),
    "both-copies-on-a-rank": one_by_one((0, 1, 0, 1), 4),
    "vocab-1": "1f1b-vocab-1",
    "vocab-2-replicate": "1f1b-vocab-2",
}


def _train(
    name: str, workers: Callable[[int], WorkerPool], steps: int = STEPS, *, tied: bool = False, **options: str
) -> np.ndarray:
    plan = build_plan(LAYOUTS[name], schedule=ORDERS.get(name, "1f1b"), model=small_model(tied=tied))
    results = workers(plan.world_size).run("train_steps", plan=plan.model_dump_json(), steps=steps, **options)
    for result in results[1:]:
        np.testing.assert_allclose(result, results[0], rtol=1e-12)
    return np.array(results[0])


@pytest.fixture(scope="module")
def one_process(workers: Callable[[int], WorkerPool]) -> np.ndarray:
    return _train("one", workers)


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name != "one"])
def test_training_is_the_same_in_every_layout(
    name: str, one_process: np.ndarray, workers: Callable[[int], WorkerPool]
) -> None:
    losses, norms = one_process
    assert losses[-1] < losses[0]
    assert norms[0] > 0
    np.testing.assert_allclose(_train(name, workers), one_process, rtol=1e-6)


@pytest.mark.parametrize(
    ("saved", "loaded"),
    [
        ("zero3", "zero3"),
        ("zero3-tp", "pp"),
        ("pp-zero1", "tp-sp"),
        ("two-way-zero2", "pp"),
        ("zero3", "two-way-zero2"),
        ("vocab-1", "zero3"),
        ("pp-zero1", "vocab-2-replicate"),
        ("pp", "both-copies-on-a-rank"),
    ],
)
def test_a_checkpoint_resumes_in_any_layout(
    saved: str, loaded: str, one_process: np.ndarray, workers: Callable[[int], WorkerPool], tmp_path: Path
) -> None:
    folder = str(tmp_path / "checkpoint")
    _train(saved, workers, steps=2, save=folder)
    np.testing.assert_allclose(_train(loaded, workers, steps=1, load=folder), one_process[:, 2:], rtol=1e-6)


def test_tied_models_train_and_resume_alike(workers: Callable[[int], WorkerPool], tmp_path: Path) -> None:
    one_process = _train("one", workers, tied=True)
    folder = str(tmp_path / "checkpoint")
    np.testing.assert_allclose(_train("two-way", workers, 2, tied=True, save=folder), one_process[:, :2], rtol=1e-6)
    for name in ("pp", "tp", "both-copies-on-a-rank"):
        np.testing.assert_allclose(_train(name, workers, 1, tied=True, load=folder), one_process[:, 2:], rtol=1e-6)
