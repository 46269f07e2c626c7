"""The command under a plan makes the same plan again."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from costmodel.schema.plan import Plan
from planner.cli.main import status_of
from planner.layer_words import policies_words
from planner.report.command import plan_command
from planner.report.layers import activations_words
from planner.request import build_request
from planner.search import find_plan


@pytest.mark.parametrize(
    ("options", "begins"),
    [
        ({"global_batch_size": 16, "fix": ["dp_shard=8", "micro_batch_size=1", "zero_stage=3"]}, "plan --model"),
        ({"fix": ["pp=3", "tp=1", "dp_shard=2", "schedule=1f1b", "recompute=full"]}, "plan --model"),
        ({"fix": ["tp=8", "recompute=selective", "activation_offload=0"]}, "plan predict"),
    ],
    ids=["offloaded in part", "uneven stages", "all alike"],
)
def test_it_makes_the_same_step(options: dict[str, Any], begins: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Layers that differ are named one run at a time, and stages by their lengths; a search among one is no search."""
    model, devices = ("llama-3.2-1b", 6) if "pp=3" in options["fix"] else ("llama-3.1-8b", 8)
    given = {"global_batch_size": 48, "time_limit_s": 30.0, "calibration": "none", "top": 0} | options
    plan = find_plan(build_request(model, devices, **given))
    command = plan_command(plan)
    assert command.startswith(begins)
    assert ("recompute.0-2=selective" in command) == ("dp_shard=8" in options["fix"])
    capsys.readouterr()
    assert status_of([*shlex.split(command)[1:], "--calibration", "none", "--json"]) == 0
    again = Plan.model_validate_json(capsys.readouterr().out)
    assert again.layout == plan.layout
    assert again.layers == plan.layers
    assert again.prediction.step_time_s == plan.prediction.step_time_s


def test_activations_away_in_words(make_plan: Any) -> None:
    layers = make_plan().layers[:1] * 4
    away = [one.model_copy(update={"offload": share}) for one, share in zip(layers, (1.0, 1.0, 0.5, 0.0), strict=True)]
    assert activations_words(layers) == ""
    assert activations_words(away) == "activations on the host: all of 2 layers, 50% of 1"
    to_drive = away[2].model_copy(update={"offload_to": "nvme"})
    assert activations_words([to_drive]) == "activations on drives: 50% of 1 layer"
    assert activations_words([layers[0].model_copy(update={"saved_dtype": "int8"})]) == "activations in 8 bits: 1 layer"


def test_policies_in_words() -> None:
    assert policies_words([0, 0]) == "no recompute"
    assert policies_words([2, 0, 1]) == "recompute none / selective / full"
    assert policies_words([3, 3]) == "no recompute, activations offloaded"
    assert policies_words([1, 4]) == "recompute selective / none, activations offloaded in part"
