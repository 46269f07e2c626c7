"""The report of a plan: what it must say, that it fits, and that its figures are the plan's."""

from __future__ import annotations

import io
from typing import Any

import pytest

from planner.report.command import plan_command
from planner.report.console import ReportConsole
from planner.report.layers import alone_words, in_words
from planner.report.line import layout_words
from planner.report.plan import print_plan
from planner.report.terms import LABELS, MEANING, terms_of


def report(plan: Any, explain: bool = False) -> str:
    stream = io.StringIO()
    print_plan(plan, ReportConsole(file=stream, width=100, highlight=False), explain=explain)
    return stream.getvalue()


def test_the_figures_are_there_with_their_units(make_plan: Any) -> None:
    text = report(make_plan())
    for figure in (
        "small on 8 × h100",
        "2,048 tokens × 32 sequences",
        "tp 2 · pp 2 · dp_shard 2, ZeRO-1",
        "4 micro-batches of 4 sequences",
        "recompute 1 full of 4 layers",
        "500 ms",
        "90% between 450 ms and 560 ms",
        "16,384 tokens/s per GPU",
        "131k tokens/s together",
        "40.1%",
        "43.7% with recomputation",
        "88.3 days",
        "17.0k GPU-hours",
        "P(fits) 99.1%",
        "80.0 GiB are there",
        "2.79 GiB",
        "no layout in the space is more than 0.8% faster (no step below 496 ms)",
        "1,234 layouts considered, 12 evaluated, in 400 ms",
        "1,000 by memory · 222 by bound",
        "tp 4 · pp 2, no state sharded",
        "+10.0%",
        "Sequences have 2048 tokens (--seq-len).",
        "Micro-batches of 8 would need 3.1 GiB more than there is.",
    ):
        assert figure in text, figure


def test_hidden_time_stands_apart_from_exposed(make_plan: Any) -> None:
    lines = {line.split("  ")[1]: line.split() for line in report(make_plan()).splitlines() if line.startswith("  ")}
    assert lines["tensor parallel"][2:5] == ["80.0", "ms", "16.0%"]
    assert lines["tensor parallel"][-2:] == ["20.0", "ms"]
    assert lines["data parallel"][2:4] == ["0", "0%"]
    assert lines["data parallel"][-2:] == ["50.0", "ms"]


@pytest.mark.parametrize("explain", [False, True])
def test_it_fits_a_hundred_columns_and_is_plain(make_plan: Any, explain: bool) -> None:
    text = report(make_plan(), explain)
    command = plan_command(make_plan())
    assert all(len(line) <= 100 for line in text.splitlines() if line.strip() != command)
    assert "\x1b" not in text


def test_the_command_stands_on_one_line(make_plan: Any) -> None:
    assert plan_command(make_plan()) in [line.strip() for line in report(make_plan()).splitlines()]


def test_text_from_the_plan_is_never_markup(make_plan: Any) -> None:
    text = report(make_plan(model={"name": "[red]x[/red]"}, notes=["a [bold]note"]))
    assert "[red]x[/red]" in text
    assert "a [bold]note" in text


def test_explain_names_every_term_layer_and_relaxation(make_plan: Any) -> None:
    text = " ".join(report(make_plan(), explain=True).split())
    assert "Σ 2·M·N·K" in text
    assert "what may hide is taken as hidden" in text
    assert "1 dense full, 1 dense" in text
    assert "jitter" in text
    assert "jitter" not in report(make_plan())


def test_many_ranks_are_told_by_three(make_plan: Any) -> None:
    plan = make_plan()
    one = plan.prediction.memory.per_stage[0]
    stages = tuple(
        one.model_copy(update={"rank": rank, "device_bytes": one.device_bytes * (2 if rank == 7 else 1)})
        for rank in range(16)
    )
    memory = plan.prediction.memory.model_copy(update={"per_stage": stages})
    plan = plan.model_copy(update={"prediction": plan.prediction.model_copy(update={"memory": memory})})
    ranks = [line.split()[0] for line in report(plan).splitlines() if "34.00" in line or "68.00" in line]
    assert ranks == ["0", "7", "15"]
    assert "13 ranks between them are left out" in report(plan)
    assert "left out" not in report(plan, explain=True)


def test_a_given_layout_claims_no_proof(make_plan: Any) -> None:
    text = report(make_plan(certificate={"status": "given", "gap": None, "lower_bound_s": None}))
    assert "nothing was searched" in text
    assert "faster" not in text


def test_a_stopped_search_without_bound_says_so(make_plan: Any) -> None:
    text = report(make_plan(certificate={"status": "stopped", "gap": None, "lower_bound_s": None}))
    assert "without a bound" in text


def test_exposed_terms_sum_to_the_step(make_plan: Any) -> None:
    prediction = make_plan().prediction
    terms = terms_of(prediction.breakdown)
    assert sum(term.exposed_s for term in terms) == pytest.approx(prediction.step_time_s.mean)
    assert [term.name for term in terms[:3]] == ["gemm", "bubble", "tp"]
    assert next(term for term in terms if term.name == "tp").hidden_s == pytest.approx(0.02)
    assert next(term for term in terms if term.name == "bubble").hidden_s == 0


def test_names_of_terms_are_spelled_out() -> None:
    assert {name for name in MEANING if len(name) <= 3} <= set(LABELS)


def test_one_device(make_plan: Any) -> None:
    layout = make_plan().layout.model_copy(update={"tp": 1, "pp": 1, "dp_shard": 1, "zero_stage": 0})
    assert layout_words(layout) == "one device, no state sharded"


def test_layers_in_words(make_plan: Any) -> None:
    layers = list(make_plan().layers)
    assert in_words(layers) == "1 dense full, 3 dense"
    assert in_words([layers[1].model_copy(update={"offload": 0.5})]) == "1 dense (50.0% offloaded)"


def test_ends_on_stages_of_their_own_are_named(make_plan: Any) -> None:
    plan = make_plan()
    assert alone_words(plan) == ""
    for lengths, words in {
        (0, 4): "the embedding on a stage of its own",
        (4, 0): "the head on a stage of its own",
    }.items():
        pipeline = plan.pipeline.model_copy(update={"layers_per_stage": lengths})
        assert alone_words(plan.model_copy(update={"pipeline": pipeline})) == words
