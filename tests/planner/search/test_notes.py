"""What a plan says of its own limits."""

from __future__ import annotations

import pytest

from planner.request import build_request
from planner.search import find_plan

LAYOUT = ("dp_shard=8", "micro_batch_size=1", "zero_stage=3", "recompute=selective")


def _note(fix: tuple[str, ...], about: str) -> str | None:
    given = {"global_batch_size": 16, "calibration": "none", "top": 0}
    plan = find_plan(build_request("llama-3.1-8b", 8, fix=fix, **given))
    return next((note for note in plan.notes if about in note), None)


def test_a_plan_says_what_its_offload_is_for() -> None:
    note = _note((*LAYOUT, "activation_offload=hidden"), "leave the device")
    assert note is not None
    assert note.startswith("Activations of 32 layers leave the device; the same layout would take, with them kept, ")
    kept, recomputed = note.split("; with those layers recomputed in full, ")
    assert "less time" in kept
    assert "GiB (fits) and" in recomputed
    assert "more time" in recomputed
    assert "of a node's 1,863 GiB" in note


def test_a_plan_without_offload_says_nothing_of_it() -> None:
    assert _note((*LAYOUT[:3], "recompute=full", "activation_offload=0"), "leave the device") is None


@pytest.mark.parametrize(("share", "hides"), [("1", True), ("0", False)])
def test_copies_behind_compute_are_counted_as_hidden(share: str, hides: bool) -> None:
    """total - exposed of the offload: what the passes beside the copies hide."""
    fix = (*LAYOUT[:3], "recompute=full", f"activation_offload={share}")
    plan = find_plan(build_request("llama-3.1-8b", 8, fix=fix, global_batch_size=16, calibration="none", top=0))
    terms = plan.prediction.breakdown
    exposed = terms.get("activation_offload_exposed_s", 0.0)
    assert (terms.get("activation_offload_total_s", 0.0) > 2.0 * exposed) == hides


@pytest.mark.parametrize(
    ("model", "seq_len", "runtime", "says"),
    [
        ("olmoe-1b-7b", 4096, "torch", "torch has no expert parallelism: "),
        ("llama-3.2-1b", 2**16, "torch", "torch has no context parallelism: "),
        ("olmoe-1b-7b", 4096, "megatron", None),
        ("llama-3.2-1b", 4096, "torch", None),
    ],
)
def test_a_plan_says_what_its_runtime_lacks(model: str, seq_len: int, runtime: str, says: str | None) -> None:
    given = {"seq_len": seq_len, "runtime": runtime, "global_batch_size": 8, "calibration": "none", "top": 0}
    notes = [note for note in find_plan(build_request(model, 8, **given)).notes if "parallelism: " in note]
    if says is None:
        assert not notes
    else:
        assert [note.startswith(says) for note in notes] == [True]
        assert notes[0].endswith("(--runtime megatron).")
