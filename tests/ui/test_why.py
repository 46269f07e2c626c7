"""The Why page in Streamlit's own harness: its sections, its controls, a measured run, and what is wrong with one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from opened import opened
from streamlit.testing.v1 import AppTest

from costmodel.schema.errors import InvalidSpec
from costmodel.schema.plan import Plan
from planner.evaluate import evaluate_plan
from ui.answers import find_answer
from ui.question import Question
from ui.runs import choose_run, find_run, read_runs

TINY = Question(model="tiny", gpu="cpu", gpus=2, fix="pp=2")


@pytest.fixture(scope="module")
def tiny() -> Plan:
    return find_answer(TINY, TINY.request()).plan


@pytest.fixture(scope="module")
def page(tiny: Plan) -> AppTest:
    return opened("why", model=TINY.model, gpu=TINY.gpu, gpus=str(TINY.gpus), fix=TINY.fix)


def record(plan: Plan, **changes: object) -> str:
    """What ``plan run`` would add for a run of the plan that went exactly as simulated."""
    trace = evaluate_plan(plan).simulation.trace()
    run = {
        "date": "2026-01-31", "schedule": plan.pipeline.schedule, "layout": plan.layout.model_dump(mode="json"),
        "measured": {"step_time_s": 1.0}, "trace": {"origin": "measured", "events": trace.events}, "host": "here",
    }  # fmt: skip
    return json.dumps({"schema_version": 1, "runs": [run | changes]})


def test_every_section_is_drawn_for_the_question_asked_on_another_page(page: AppTest) -> None:
    assert page.selectbox(key="model").value == "tiny"
    assert page.main.header[0].value.startswith("Why pp 2")
    assert [section.value for section in page.main.subheader] == [
        "Where a step's time goes",
        "What limits it, and what was weighed",
        "Memory at the worst moment",
        "The pipeline, pass by pass",
        "Layers",
        "On the cluster",
    ]
    assert len(page.get("plotly_chart")) == 7


def test_another_schedule_is_held_against_the_plans_own(page: AppTest, tiny: Plan) -> None:
    chosen = page.selectbox(key="why_schedule")
    assert chosen.value == tiny.pipeline.schedule
    other = next(name for name in chosen.options if not name.startswith(tiny.pipeline.schedule))
    chosen.select(other).run()
    said = [text.value for text in page.markdown if text.value.startswith(f"**{other}**")]
    assert len(said) == 1
    assert f"instead of {other}" in said[0] or f"{other} instead of" in said[0]
    page.selectbox(key="why_schedule").select(tiny.pipeline.schedule).run()
    assert not page.exception


def test_a_run_is_drawn_above_and_a_bad_folder_is_said_beside_its_field(
    page: AppTest, tiny: Plan, tmp_path: Path
) -> None:
    page.text_input(key="why_run").set_value(str(tmp_path)).run()
    assert [error.value for error in page.main.error] == [
        f"{tmp_path} holds no *.runs.json – plan run PLAN.json writes one beside the plan"
    ]
    (tmp_path / "p.runs.json").write_text(record(tiny))
    page.text_input(key="why_run").set_value(str(tmp_path)).run()
    assert not page.main.error
    (timeline,) = [chart.proto.spec for chart in page.get("plotly_chart") if "measured 2026-01-31" in chart.proto.spec]
    assert "simulated" in timeline
    assert any(text.value.startswith("The run's steps took 1.00 s, against") for text in page.markdown)
    (tmp_path / "p.runs.json").write_text(record(tiny, schedule="zb-h1"))
    page.text_input(key="why_run").set_value(f"{tmp_path}/p.runs.json").run()
    assert "another layout" in page.main.warning[0].value


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "p.runs.json is not whole JSON"),
        ("{}", "p.runs.json: runs: Field required"),
        ('{"runs": [{"date": "today"}]}', "p.runs.json: runs.0.schedule: Field required"),
    ],
)
def test_what_is_no_record_is_refused_in_a_sentence(text: str, says: str) -> None:
    with pytest.raises(InvalidSpec, match=says):
        read_runs(text, "p.runs.json")


def test_the_last_timed_run_of_the_plans_own_layout_is_taken(tiny: Plan, tmp_path: Path) -> None:
    own, other = (read_runs(record(tiny, **change), "p") for change in ({"date": "own"}, {"schedule": "zb-h1"}))
    untimed = read_runs(record(tiny, trace=None), "p")
    assert choose_run(own + other + untimed, "p", tiny).date == "own"
    assert choose_run(untimed + other + untimed, "p", tiny).schedule == "zb-h1"
    with pytest.raises(InvalidSpec, match="no run in p has a timeline"):
        choose_run(untimed, "p", tiny)
    with pytest.raises(InvalidSpec, match="is not there"):
        find_run(str(tmp_path / "nowhere"), tiny)
