"""The private parts of PyTorch's pipelining runtime that executor/pipeline stands on, and its own parts."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from orders import one_by_one
from plans import build_plan, small_model
from torch.distributed.pipelining import PipelineStage
from torch.distributed.pipelining.schedules import (
    _Action,
    _ComputationType,
    _PipelineScheduleRuntime,
    _validate_schedule,
)
from worker_pool import WorkerPool

from costmodel.passes.actions import Action, ActionKind
from costmodel.passes.lower import lower
from costmodel.schema.layout import Layout
from executor.clock import PassClock, PassUnits
from executor.pipeline import StageShapes
from executor.pipeline.runtime import torch_action
from executor.pipeline.stage import _drop_values


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (PipelineStage.forward_one_chunk, ["fwd_chunk_id", "args", "kwargs", "save_forward_output"]),
        (PipelineStage.backward_one_chunk, ["bwd_chunk_id", "loss", "full_backward", "last_backward"]),
        (PipelineStage.backward_weight_one_chunk, ["bwd_chunk_id", "last_backward"]),
        (PipelineStage.backward_maybe_with_nosync, ["backward_type", "bwd_kwargs", "last_backward"]),
        (PipelineStage.set_local_fwd_input, ["prev_stage_outputs", "mb_index"]),
        (PipelineStage.get_local_bwd_output, ["mb_index"]),
        (PipelineStage.set_local_bwd_input, ["next_stage_bwd_outputs", "mb_index"]),
        (PipelineStage._retrieve_recv_grads, ["bwd_chunk_id"]),
        (PipelineStage._setup_forward_recv_info, ["num_microbatches", "has_backward"]),
        (PipelineStage._setup_backward_recv_info, ["num_microbatches"]),
        (PipelineStage.get_fwd_send_ops, ["fwd_chunk_id"]),
        (PipelineStage.get_bwd_send_ops, ["bwd_chunk_id"]),
        (PipelineStage.get_fwd_recv_ops, ["fwd_chunk_id"]),
        (PipelineStage.get_bwd_recv_ops, ["bwd_chunk_id"]),
        (
            _PipelineScheduleRuntime._maybe_compute_loss,
            ["stage", "output", "target_mbs", "mb_index", "loss_kwargs"],
        ),
        (_PipelineScheduleRuntime._maybe_get_loss, ["stage", "mb_index"]),
        (_PipelineScheduleRuntime._update_losses, ["stages", "losses"]),
    ],
)
def test_private_signatures(function: Callable[..., Any], parameters: list[str]) -> None:
    assert list(inspect.signature(function).parameters) == ["self", *parameters]


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (_PipelineScheduleRuntime._prepare_schedule_with_comms, ["pipeline_order_with_comms", "compute_comms"]),
        (_PipelineScheduleRuntime._step_microbatches, ["pipeline_order_with_comms", "_comp_type_to_function_map"]),
        (PipelineStage.backward_one_chunk, ["fwd_cache", "bwd_cache", "is_first", "is_last"]),
        (PipelineStage.forward_one_chunk, ["fwd_cache", "_retrieve_recv_activations"]),
        (PipelineStage._retrieve_recv_activations, ["args_recv_info", "buffer", "tensor_meta"]),
        (PipelineStage._retrieve_recv_grads, ["grad_recv_info", "buffer", "tensor_meta"]),
        (PipelineStage._resolve_peer_global_rank, ["stage_index_to_group_rank"]),
    ],
)
def test_private_attributes(function: Callable[..., Any], names: list[str]) -> None:
    for name in names:
        assert name in inspect.getsource(function)


def test_actions_are_the_plans_passes() -> None:
    assert _Action._fields == ("stage_index", "computation_type", "microbatch_index", "sub_actions")
    schedule = build_plan(Layout(pp=2, num_microbatches=2), schedule="zb-h1").schedule()
    for order, actions in zip(schedule.orders, lower(schedule, gathers=True), strict=True):
        assert [str(action) for action in map(torch_action, actions)] == [str(action) for action in actions]
        work = [torch_action(action) for action in actions if str(action) in set(map(str, order))]
        assert list(map(str, work)) == list(map(str, order))
    pair = torch_action(Action(ActionKind.OVERLAP, 0, 1, parts=(Action(ActionKind.FORWARD, 0, 1),)))
    assert pair.sub_actions == (_Action(0, _ComputationType.FORWARD, 1),)


def test_pytorchs_check_refuses_copies() -> None:
    """Why runtime.py does not call it."""
    schedule = one_by_one((0, 1, 1, 0), 4)
    orders = {rank: [_Action.from_str(str(step)) for step in order] for rank, order in enumerate(schedule.orders)}
    with pytest.raises(AssertionError, match="microbatches for stage 0, expected 4"):
        _validate_schedule(orders, 2, 4, 4)


@pytest.mark.parametrize("schedule", ["1f1b", "zb-h1", "1f1b-vocab-1", "1f1b-vocab-2"])
def test_memory_does_not_grow_with_the_microbatches(schedule: str, workers: Callable[[int], WorkerPool]) -> None:
    """No buffer, output or gradient outlives its use, whether received, sent or handed over."""
    model = small_model(2, hidden_size=64, vocab_size=16)
    few, many = (
        workers(2).run(
            "peak_bytes",
            plan=build_plan(Layout(pp=2, num_microbatches=m), model=model, schedule=schedule).model_dump_json(),
        )
        for m in (4, 12)
    )
    seq_len = 8
    one_send = seq_len * model.hidden_size * 8
    tokens_and_targets = 2 * seq_len * 8
    for rank, (before, after) in enumerate(zip(few, many, strict=True)):
        assert after - before < 8 * (tokens_and_targets + one_send / 2), f"rank {rank}"


def test_an_output_that_is_sent_keeps_its_graph_alone() -> None:
    entry = torch.ones(4, 8, requires_grad=True)
    out = entry * 3
    sent = out.detach()
    _drop_values((out,))
    assert out.untyped_storage().nbytes() == out.element_size()
    out.backward(torch.full((4, 8), 2.0))
    torch.testing.assert_close(entry.grad, torch.full((4, 8), 6.0))
    torch.testing.assert_close(sent, torch.full((4, 8), 3.0))


def test_shapes_at_a_stages_ends() -> None:
    shapes = StageShapes((2, 8), (2, 4, 32), (2, 8, 64), torch.float64)
    entry, out = shapes.ends(first=True, last=False)
    assert (entry.shape, entry.dtype, out.shape) == ((2, 8), torch.int64, (2, 4, 32))
    entry, out = shapes.ends(first=False, last=True)
    assert (entry.shape, entry.dtype, out.shape) == ((2, 4, 32), torch.float64, (2, 8, 64))


def test_paced_passes_take_their_prescribed_time(workers: Callable[[int], WorkerPool]) -> None:
    plan = build_plan(Layout(pp=2, num_microbatches=2), recompute=("full", "none"))
    for order in workers(2).run("passes", plan=plan.model_dump_json(), unit_s=0.02):
        for name, duration_s in order:
            assert duration_s >= 0.02 * {"F": 2, "B": 5}[name[1]], name


def test_units_of_a_pass() -> None:
    units = PassUnits(layers=3, recomputed=2)
    assert [units.of(kind) for kind in "FIWB"] == [3, 5, 3, 8]
    assert PassUnits(0, 0).of("F") == 1


def test_a_clock_records_what_ran() -> None:
    clock = PassClock(rank=1)
    with clock.passing("0F0", 2):
        sum(range(100_000))
    (event,) = clock.events
    assert (event.rank, event.name) == (1, "0F0")
    assert 0 < 2 * clock.heaviest_s <= event.duration_s * 1.5
