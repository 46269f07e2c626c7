"""PyTorch's CSV form: written, read back, and what it cannot say."""

from __future__ import annotations

import pytest
from drawn import FROZEN, GATHERED, PAIRED, TWO_COPIES, VOCABULARY, from_lines, schedules
from hypothesis import given, settings

from costmodel.passes import check_schedule, csv_losses, from_csv, to_csv
from costmodel.schema.errors import Infeasible, InvalidSpec
from costmodel.schema.schedule import STAGE_KINDS, Schedule
from planner.schedules import build_schedule


@settings(deadline=None)
@given(schedules())
def test_what_can_be_written_is_read_back(schedule: Schedule) -> None:
    if csv_losses(schedule).refused:
        with pytest.raises(Infeasible):
            to_csv(schedule)
        return
    read = from_csv(to_csv(schedule), schedule.name)
    kept = tuple(tuple(step for step in order if step.kind not in STAGE_KINDS) for order in schedule.orders)
    assert read.orders == kept
    assert (read.stage_to_rank, read.num_microbatches, read.copies) == (
        schedule.stage_to_rank,
        schedule.num_microbatches,
        1,
    )
    assert check_schedule(read) == []


def test_rows_and_cells() -> None:
    assert to_csv(PAIRED) == "0F0,0F1,0B0,0B1\n1F0,(1F1;1B0)OVERLAP_F_B,1B1\n"
    assert from_csv(to_csv(PAIRED), PAIRED.name) == PAIRED


@pytest.mark.parametrize(
    ("schedule", "refused"),
    [
        (
            TWO_COPIES,
            "its 2 copies of the model each take some of the micro-batches, and PyTorch runs every micro-batch through "
            "every stage",
        ),
        (
            VOCABULARY,
            "PyTorch has no passes VOCAB_B, VOCAB_F, VOCAB_IN_B, VOCAB_IN_F: its vocabulary is not split over pipeline "
            "ranks",
        ),
        (FROZEN, "PyTorch has no pass FROZEN_F: it runs frozen models outside the pipeline"),
        (
            from_lines("0F0 0F1 0B0 0B1\n1F1 1F0 1B0 1B1", 2, (0, 1)),
            "1F1 comes out of the order of micro-batches, and PyTorch takes the last stage's losses to be in that "
            "order",
        ),
    ],
)  # fmt: skip
def test_what_pytorch_cannot_run_is_refused(schedule: Schedule, refused: str) -> None:
    assert csv_losses(schedule).refused == (refused,)
    with pytest.raises(Infeasible, match="cannot be written as PyTorch's CSV") as error:
        to_csv(schedule)
    assert error.value.reasons == (refused,)


def test_what_others_do_their_own_way_is_named() -> None:
    (gathers,) = csv_losses(GATHERED).changed
    assert gathers.startswith("REDUCE_GRAD, RESHARD, UNSHARD are left out: ")
    assert to_csv(GATHERED).splitlines()[0] == "0F0,0F1,0B0,0B1"
    v = from_lines("0F0 3F0 3B0 0B0\n1F0 2F0 2B0 1B0", 1, (0, 1, 1, 0))
    (placement,) = csv_losses(v).changed
    assert "ZBVZeroBubble" in placement
    swapped = from_lines("1F0 1B0\n0F0 0B0", 1, (1, 0))
    assert csv_losses(swapped).changed == (
        "torchtitan cannot build stages on ranks [1, 0]; PyTorch's runtime itself can",
    )
    assert csv_losses(build_schedule("interleaved-1f1b", 2, 4, 2)) == ((), ())


def test_idle_cells_blanks_and_communication_are_read_over() -> None:
    text = "\ufeff0UNSHARD, 0F0 ,0SEND_F0,,0RECV_B0,0B0,0REDUCE_GRAD\r\n,1RECV_F0,1F0,1B0,1SEND_B0\r\n"
    assert from_csv(text, "read").to_text() == {"0": "0UNSHARD 0F0 0B0 0REDUCE_GRAD", "1": "1F0 1B0"}


def test_copies_are_seen_by_their_micro_batches() -> None:
    text = "0F0,3F1,0B0,3B1\n2F1,1F0,1B0,2B1\n"
    assert from_csv(text, "written") == TWO_COPIES


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0F0,0B0\n1F0,1X0\n", "order.csv, line 2, cell 2: '1X0' is not a pass, like 2F0"),
        ("0F0,0B0\n1F,1B0\n", "order.csv, line 2, cell 1: '1F' is not a pass"),
        ("0F0,(0F1;0W0)OVERLAP_F_B\n", "line 1, cell 2: '(0F1;0W0)OVERLAP_F_B' is not a pass"),
        (f"0F{'9' * 5000}\n", "line 1, cell 1: '0F9999"),
        ("0F0,0B0\n0F1,0B1\n", "order.csv, line 2, cell 1: 0F1 stands on rank 1, its stage lives on 0"),
        ("", "order.csv has no passes; it needs one row per rank, with cells like 2F0"),
        ("0F0,0B0\n2F0,2B0\n", "order.csv has stage 2 but no stage 1: they count up from 0"),
        ("0F0,0F999999999999,0B0\n", "order.csv has micro-batch 999999999999 but no micro-batch 1"),
        ("0" * 200_000, "order.csv is not a CSV file: field larger than field limit"),
    ],
)  # fmt: skip
def test_faulty_files_are_named(text: str, message: str) -> None:
    with pytest.raises(InvalidSpec) as error:
        from_csv(text, "order", "order.csv")
    assert message in error.value.message
