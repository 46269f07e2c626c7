"""PyTorch's own reading of what costmodel.passes makes: CSV files, lowered lists, gathers."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch.distributed.pipelining.schedules import (
    _Action,
    _add_reduce_grad,
    _add_unshard_reshard,
    _ComputationType,
    _PipelineScheduleRuntime,
    _simulate_comms_compute,
)

from costmodel.passes import add_gathers, csv_losses, lower, to_csv
from costmodel.schema.schedule import STAGE_KINDS, Schedule
from planner.schedules import SCHEDULES, build_schedule


def _samples() -> list[Schedule]:
    """Each registered schedule at a small size, and what none of them has."""
    built = []
    for name, kind in SCHEDULES.items():
        sizes = ((pp, m, kind.vpp) for pp in (4, 2, 3) for m in (8, 4, 6, 12))
        size = next(size for size in sizes if kind.allows(*size))
        built.append(build_schedule(name, *size))
    pairs = {"0": "0F0 0F1 0B0 0B1", "1": "1F0 (1F1;1B0)OVERLAP_F_B 1B1"}
    v = {"0": "0F0 3F0 3I0 3W0 0I0 0W0", "1": "1F0 2F0 2B0 1B0"}
    return [
        *built,
        Schedule.from_text("pairs", 2, (0, 1), pairs),
        Schedule.from_text("v", 1, (0, 1, 1, 0), v),
    ]


SAMPLES = [schedule for schedule in _samples() if not csv_losses(schedule).refused]


def _runtime(schedule: Schedule) -> _PipelineScheduleRuntime:
    """The runtime without its stages and process group, which loading a file does not use."""
    runtime = object.__new__(_PipelineScheduleRuntime)
    runtime._stages = []
    runtime._num_stages = schedule.num_stages
    runtime._n_microbatches = schedule.num_microbatches
    runtime.pp_group_size = schedule.num_ranks
    runtime.pipeline_order = {}
    runtime._defer_pp_recv = False
    return runtime


@pytest.mark.parametrize("schedule", SAMPLES, ids=lambda schedule: schedule.name)
def test_pytorch_loads_what_is_written(schedule: Schedule, tmp_path: Path) -> None:
    path = tmp_path / "order.csv"
    path.write_text(to_csv(schedule))
    runtime = _runtime(schedule)
    runtime._load_csv(str(path), format="compute_only")
    assert runtime.stage_index_to_group_rank == dict(enumerate(schedule.stage_to_rank))
    for rank, order in enumerate(schedule.orders):
        assert list(map(str, runtime.pipeline_order[rank])) == [str(s) for s in order if s.kind not in STAGE_KINDS]


def _actions(lists: tuple[tuple[object, ...], ...]) -> dict[int, list[_Action]]:
    return {rank: [_Action.from_str(str(action)) for action in own] for rank, own in enumerate(lists)}


@pytest.mark.parametrize(
    "schedule",
    [each for each in SAMPLES if not {kind.value for kind in each.kinds} & {"OVERLAP_F_B", *STAGE_KINDS}],
    ids=lambda schedule: schedule.name,
)
def test_pytorch_runs_the_lowered_lists_dry(schedule: Schedule) -> None:
    """Its dry run knows neither pairs nor gathers."""
    dry = _simulate_comms_compute(_actions(lower(schedule)), schedule.stage_to_rank.__getitem__, schedule.num_stages)
    ran = {rank: [str(action) for action in own if action is not None] for rank, own in dry.items()}
    assert ran == {rank: list(map(str, own)) for rank, own in enumerate(lower(schedule))}


@pytest.mark.parametrize(
    "schedule",
    [each for each in SAMPLES if not each.kinds & STAGE_KINDS],
    ids=lambda schedule: schedule.name,
)
def test_gathers_stand_where_pytorch_puts_them(schedule: Schedule) -> None:
    """Up to the order in which several stages are dropped at once, a set's order there."""
    for order in add_gathers(schedule).orders:
        steps = [str(step) for step in order]
        passes = [_Action.from_str(str(step)) for step in order if step.kind not in STAGE_KINDS]
        theirs = [str(action) for action in _add_reduce_grad(_add_unshard_reshard(passes), schedule.num_microbatches)]
        assert _sorted_drops(steps) == _sorted_drops(theirs)


def _sorted_drops(steps: list[str]) -> list[str]:
    """Neighbouring RESHARDs in sorted order."""
    ordered: list[str] = []
    drops: list[str] = []
    for step in [*steps, ""]:
        if step.endswith("RESHARD"):
            drops.append(step)
            continue
        ordered += [*sorted(drops), step]
        drops = []
    return ordered


def test_kinds_have_pytorchs_names() -> None:
    theirs = {kind.value for kind in _ComputationType}
    ours = {action.kind.value for schedule in SAMPLES for own in lower(schedule, gathers=True) for action in own}
    assert ours <= theirs
