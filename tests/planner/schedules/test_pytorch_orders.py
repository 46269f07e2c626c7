"""The orders that PyTorch has too are PyTorch's."""

from __future__ import annotations

import pytest

from planner.schedules import PYTORCH_NAMES, build_schedule

pipelining = pytest.importorskip("torch.distributed.pipelining.schedules")


class Stage(pipelining._PipelineStageBase):  # type: ignore[misc, name-defined]
    """As much of a stage as a schedule looks at when it makes its order."""

    _prepare_forward_infra = _prepare_backward_infra = _create_grad_recv_info = None

    def __init__(self, index: int, pp: int, num_stages: int) -> None:
        self.stage_index, self.num_stages = index, num_stages
        self.group_rank, self.group_size, self.group = 0, pp, None
        self.has_backward, self.submod = True, None


def _text(action: object) -> str:
    parts = action.sub_actions  # type: ignore[attr-defined]
    return f"({';'.join(map(_text, parts))})OVERLAP_F_B" if parts else str(action)


@pytest.mark.parametrize(
    ("name", "vpp", "sizes"),
    [
        ("interleaved-1f1b", 2, [(2, 1), (2, 3), (3, 5), (4, 3), (4, 10), (4, 16), (5, 12)]),
        ("interleaved-1f1b", 3, [(2, 6), (3, 8), (4, 12)]),
        ("breadth-first", 2, [(2, 1), (3, 5), (4, 8)]),
        ("breadth-first", 4, [(2, 6), (3, 3)]),
        ("dualpipe-v", 2, [(2, 4), (2, 9), (3, 7), (4, 8), (4, 13), (5, 10)]),
    ],
)
def test_same_order(name: str, vpp: int, sizes: list[tuple[int, int]]) -> None:
    schedule_class = pipelining.get_schedule_class(PYTORCH_NAMES[name])
    for pp, m in sizes:
        ours = build_schedule(name, pp, m, vpp)
        local = [stage for stage, rank in enumerate(ours.stage_to_rank) if rank == 0]
        stages = [Stage(stage, pp, ours.num_stages) for stage in local]
        theirs = schedule_class(stages, m, loss_fn=lambda *_: None).pipeline_order
        for rank, order in enumerate(ours.orders):
            assert list(map(str, order)) == [_text(action) for action in theirs[rank] if action is not None]
