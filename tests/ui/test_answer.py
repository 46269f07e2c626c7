"""The Answer page: what it says of a plan, in words, figures and files."""

from __future__ import annotations

import csv
import io
import json

import pytest

from costmodel.schema.plan import Plan
from planner.request import build_request
from planner.search.find import find_plan
from ui import answers
from ui.cluster_text import cluster_text
from ui.downloads import files_of
from ui.question import Question
from ui.remembered import Remembered
from ui.words import in_sentences, spanned


@pytest.fixture(scope="module")
def pipelined() -> Plan:
    fix = (
        "tp=2,pp=4,vpp=2,cp_ring=2,ep=2,dp_replicate=1,micro_batch_size=1,sequence_parallel=true,recompute=selective",
    )
    return find_plan(
        build_request("mixtral-8x7b", 32, seq_len=4096, global_batch_size=64, runtime="megatron", fix=fix, top=0)
    )


def test_sentences_name_everything_that_is_split(pipelined: Plan) -> None:
    said = " ".join(in_sentences(pipelined))
    for words in (
        "cut into a pipeline of 8 stages of 4 layers, 2 of them a rank",
        "the schedule interleaved-1f1b",
        "split over 2 GPUs (tensor parallel), and so is the sequence",
        "over 2 GPUs (context parallel: 2 in a ring)",
        "experts of a layer are spread over 2 groups",
        "2 ranks work on different sequences",
        "32 micro-batches of 1 sequence a step",
        "Of 32 layers the backward recomputes 32 in part (selective)",
    ):
        assert words in said


def test_sentences_leave_out_what_is_not_there() -> None:
    said = " ".join(in_sentences(find_plan(build_request("tiny", 1, gpu="cpu", top=0))))
    assert "pipeline" not in said
    assert "parallel" not in said


@pytest.mark.parametrize(
    ("low", "high", "whole"),
    [
        ("143 days", "217 days", "143 – 217 days"),
        ("51.3 s", "2 min 5 s", "51.3 s – 2 min 5 s"),
        ("38.9%", "58.8%", "38.9 – 58.8%"),
        ("844", "1,277", "844 – 1,277"),
    ],
)
def test_a_unit_that_both_ends_share_is_said_once(low: str, high: str, whole: str) -> None:
    assert spanned(low, high) == whole


def test_files_are_what_the_command_line_reads(pipelined: Plan) -> None:
    files = {file.label: file.content() for file in files_of("mine", lambda: pipelined)}
    assert Plan.model_validate_json(files["Plan"]) == pipelined
    assert "Where the time goes" in files["Report"]
    ranks = {event["pid"] for event in json.loads(files["Trace"])["traceEvents"]}
    assert ranks == set(range(4))
    assert len(list(csv.reader(io.StringIO(files["Schedule"])))) == 4


def test_an_answer_is_searched_once() -> None:
    question = Question(model="tiny", gpu="cpu", gpus=1, global_batch_size=8)
    assert answers.find_answer(question, question.request()) is answers.find_answer(question, question.request())


def test_a_search_that_is_broken_off_leaves_nothing_behind() -> None:
    question = Question(model="llama-3.1-8b", gpus=8, fix="micro_batch_size=1,zero_stage=3", time_limit_s=29.0)

    def leave(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        answers.find_answer(question, question.request(), leave)
    assert answers.find_answer(question, question.request()).plan.certificate.status == "proven"


def test_what_was_not_asked_for_longest_is_forgotten() -> None:
    memory: Remembered[str, list[str]] = Remembered(2)
    first, second = memory.of("first", lambda: ["first"]), memory.of("second", lambda: ["second"])
    assert memory.of("first", lambda: ["again"]) is first
    memory.of("third", lambda: ["third"])
    assert memory.get("second") is None
    assert memory.get("first") is first
    assert second == ["second"]


def test_runners_up_are_those_that_the_planner_lists() -> None:
    question = Question(model="llama-3.1-8b", gpus=8, fix="micro_batch_size=1,zero_stage=3")
    answer = answers.find_answer(question, question.request())
    assert not answer.plan.alternatives
    listed = find_plan(answer.request).alternatives
    assert listed
    waited: list[None] = []

    def give_up() -> None:
        waited.append(None)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        answers.with_runners_up(answer, give_up)
    assert len(waited) == 1
    assert answers.with_runners_up(answer).alternatives == listed
    assert answers.with_runners_up(answer).prediction == answer.plan.prediction


@pytest.mark.parametrize("gpu", ["h100", "mi300x", "gb200", "rtx4090"])
def test_the_cluster_to_edit_is_the_one_that_was_planned_for(gpu: str) -> None:
    usual = Question(gpu=gpu, gpus=64).request()
    edited = Question(gpu="ignored", gpus=1, cluster=cluster_text(gpu, 64)).request()
    assert edited.devices_said == usual.devices_said
    assert [level.size for level in edited.cluster.network] == [level.size for level in usual.cluster.network]
    inside = [[level.bytes_per_s for level in group.levels] for group in edited.cluster.groups]
    assert inside == [[level.bytes_per_s for level in group.levels] for group in usual.cluster.groups]
