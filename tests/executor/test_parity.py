"""The rule no plan escapes: the same losses and gradients as one process, float64, to 1e-9 per parameter."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from plans import build_plan, small_model
from reference import single_process
from worker_pool import WorkerPool

from costmodel.schema.layout import Layout
from costmodel.schema.plan import Plan
from costmodel.schema.schedule import STAGE_KINDS

TOLERANCE = 1e-9
SCHEDULES = (("gpipe", 1), ("1f1b", 1), ("interleaved-1f1b", 2), ("zb-h1", 1))


def assert_parity(plan: Plan, pool: WorkerPool) -> None:
    """The plan's passes ran in its order, with one process's losses and gradients."""
    loss, gradients = single_process(plan)
    orders = _stage_passes(plan)
    seen = set()
    for losses, full, (rank, passes) in pool.run("gradients", plan=plan.model_dump_json()):
        assert passes == orders[rank]
        np.testing.assert_allclose(losses, loss, rtol=TOLERANCE)
        for name, gradient in full.items():
            error = np.linalg.norm(gradient - gradients[name]) / np.linalg.norm(gradients[name])
            assert error < TOLERANCE, f"{name}: relative error {error:.2e}"
            seen.add(name)
    assert seen == set(gradients)


def _stage_passes(plan: Plan) -> list[list[str]]:
    """For each pipeline rank the passes that stages run, gathers and reductions left out."""
    if plan.layout.pp == 1:
        return [[]]
    parts = [[part for step in order for part in step.work] for order in plan.schedule().orders]
    return [[str(part) for part in order if part.kind not in STAGE_KINDS] for order in parts]


def layouts(world: int) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Every product of degrees that makes ``world``, with every stage, sequence parallelism and schedule it allows."""
    powers = [2**power for power in range(world.bit_length())]
    for pp, replicate, shard, tp in itertools.product(powers, repeat=4):
        if pp * replicate * shard * tp != world:
            continue
        for zero in range(4) if shard > 1 else (0,):
            for sequence in (True, False) if tp > 1 else (True,):
                for schedule, vpp in SCHEDULES if pp > 1 else (("1f1b", 1),):
                    degrees = {"pp": pp, "dp_replicate": replicate, "dp_shard": shard, "tp": tp}
                    name = "-".join(f"{axis}{degree}" for axis, degree in degrees.items() if degree > 1)
                    name += (
                        f"-zero{zero}" * (shard > 1) + ("-sp" * sequence if tp > 1 else "") + f"-{schedule}" * (pp > 1)
                    )
                    yield name, degrees | {"vpp": vpp, "zero_stage": zero, "sequence_parallel": sequence}, schedule


def cases() -> list[Any]:
    return [
        pytest.param(degrees, schedule, id=name)
        for world in (2, 4)
        for name, degrees, schedule in layouts(world)
    ]  # fmt: skip


@pytest.mark.parametrize(("degrees", "schedule"), cases())
def test_every_combination_of_degrees(
    degrees: dict[str, Any], schedule: str, workers: Callable[[int], WorkerPool]
) -> None:
    stages = degrees["pp"] * degrees["vpp"]
    layout = Layout(**degrees, num_microbatches=4 if stages > 1 else 3)
    plan = build_plan(layout, model=small_model(max(2, stages)), schedule=schedule)
    assert_parity(plan, workers(layout.world_size))


MEMORY_LAYOUTS = [
    pytest.param({}, "1f1b", id="one-rank-per-replica"),
    pytest.param({"zero_stage": 3}, "1f1b", id="zero3"),
    pytest.param({"tp": 2, "dp_shard": 1}, "1f1b", id="tp2-sp"),
    pytest.param({"tp": 2, "dp_shard": 1, "sequence_parallel": False}, "1f1b", id="tp2"),
    pytest.param({"pp": 2, "dp_shard": 1}, "zb-h1", id="zb-h1"),
    pytest.param({"pp": 2, "dp_shard": 1, "vpp": 2}, "interleaved-1f1b", id="interleaved-1f1b"),
    pytest.param({"pp": 2, "zero_stage": 3}, "zb-h1", id="zb-h1-zero3"),
    pytest.param({"pp": 2, "tp": 2, "dp_shard": 1}, "zb-h1", id="zb-h1-tp2-sp"),
]
KEEPING = [
    pytest.param(("full",), (0.0,), id="full"),
    pytest.param(("selective",), (0.0,), id="selective"),
    pytest.param(("none",), (1.0,), id="offload"),
    pytest.param(("full", "selective", "none"), (0.5, 1.0, 0.0), id="mixed"),
]


@pytest.mark.parametrize(("recompute", "offload"), KEEPING)
@pytest.mark.parametrize(("degrees", "schedule"), MEMORY_LAYOUTS)
def test_recomputation_and_offload(
    degrees: dict[str, Any],
    schedule: str,
    recompute: tuple[str, ...],
    offload: tuple[float, ...],
    workers: Callable[[int], WorkerPool],
) -> None:
    layout = Layout(**{"dp_shard": 2} | degrees, num_microbatches=3)
    model = small_model(len(recompute) if layout.pp == 1 else 4)
    plan = build_plan(layout, model=model, schedule=schedule, recompute=recompute, offload=offload, seq_len=32)
    assert_parity(plan, workers(layout.world_size))


ORDERS = list(itertools.permutations(("tp", "dp_shard", "pp")))


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_every_order_of_axes(order: tuple[str, ...], workers: Callable[[int], WorkerPool]) -> None:
    degrees = dict.fromkeys(order[:2], 2)
    layout = Layout(
        **degrees, zero_stage=3, num_microbatches=2, order=(*order, "cp_ulysses", "cp_ring", "dp_replicate")
    )
    assert_parity(build_plan(layout), workers(4))


@pytest.mark.parametrize(
    "degrees", [{"tp": 2}, {"dp_shard": 2, "zero_stage": 3}, {"tp": 2, "dp_shard": 2, "zero_stage": 2}]
)
def test_tied_embedding(degrees: dict[str, int], workers: Callable[[int], WorkerPool]) -> None:
    layout = Layout(**degrees, num_microbatches=2)
    assert_parity(build_plan(layout, model=small_model(2, tied=True)), workers(layout.world_size))


@pytest.mark.parametrize("degrees", [{"tp": 2}, {"tp": 2, "pp": 2}])
def test_gathered_logits(degrees: dict[str, int], workers: Callable[[int], WorkerPool]) -> None:
    layout = Layout(**degrees, num_microbatches=2)
    assert_parity(build_plan(layout, loss_parallel=False), workers(layout.world_size))


def test_unequal_stages_and_larger_microbatches(workers: Callable[[int], WorkerPool]) -> None:
    layout = Layout(pp=2, dp_shard=2, zero_stage=3, num_microbatches=3, micro_batch_size=2)
    assert_parity(build_plan(layout, model=small_model(5)), workers(4))
