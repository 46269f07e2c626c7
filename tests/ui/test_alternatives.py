"""The page Alternatives: the space, one layout held against the plan, other numbers of GPUs, another machine."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from opened import opened
from streamlit.testing.v1 import AppTest

from planner.sensitivity import CHANGES

EXAMPLE = Path(__file__).parents[2] / "examples" / "cluster.toml"
SMALL = {"model": "llama-3.1-8b", "gpus": "8", "global_batch_size": "32"}


def shown(**address: str) -> AppTest:
    return opened("alternatives", **{**SMALL, **address})


def words(app: AppTest) -> str:
    return " ".join(str(one.value) for one in (*app.markdown, *app.caption, *app.info, *app.warning, *app.error))


@pytest.fixture(scope="module")
def first() -> AppTest:
    return shown()


def test_the_space_is_drawn_and_counted(first: AppTest) -> None:
    assert "layouts** are possible" in words(first)
    assert len(first.get("plotly_chart")) == 1
    assert first.selectbox(key="alternatives_colour").options[0] == "Tensor parallel"


def test_a_slower_layout_is_compared_and_can_be_pinned() -> None:
    text = "tp=2, pp=2, schedule=1f1b, micro_batch_size=1, zero_stage=1"
    app = shown(alternatives_against=text)
    assert "longer: more" in words(app)
    assert len(app.get("plotly_chart")) == 3
    app.button(key="alternatives_pin").click().run()
    assert app.text_input(key="fix").value == text


def test_a_layout_that_does_not_fit_says_so_and_is_priced_all_the_same() -> None:
    app = shown(alternatives_against="tp=1, pp=1, zero_stage=0")
    (warning,) = [one.value for one in app.main.warning]
    assert "does not fit on 8 h100" in warning
    assert len(app.get("plotly_chart")) == 3
    assert not [one for one in app.button if one.key == "alternatives_pin"]


def test_what_is_no_layout_is_refused_in_a_sentence() -> None:
    app = shown(alternatives_against="tp=three")
    (error,) = [one.value for one in app.main.error]
    assert "tp" in error
    assert "--" not in error


def test_all_choices_at_once() -> None:
    app = shown(alternatives_tab="All choices at once")
    assert "600 fastest" in words(app)
    assert len(app.get("plotly_chart")) == 1


def test_other_numbers_of_gpus_are_searched_when_asked() -> None:
    app = shown(model="tiny", gpu="cpu", gpus="2", global_batch_size="", alternatives_tab="More or fewer GPUs")
    assert not app.get("plotly_chart")
    app.button(key="alternatives_search").click().run()
    assert len(app.get("plotly_chart")) == 2
    assert not app.exception


def test_sliders_answer_at_once() -> None:
    app = shown(alternatives_tab="Another machine")
    before = {metric.label: metric.value for metric in app.metric}
    app.select_slider(key="alternatives_compute").set_value(2.0).run()
    after = {metric.label: metric.value for metric in app.metric}
    assert float(after["Step"].split()[0]) < float(before["Step"].split()[0])
    app.select_slider(key="alternatives_memory").set_value(0.5).run()
    assert "no longer fits" in words(app)


def test_who_would_win_is_searched_when_asked() -> None:
    app = shown(model="tiny", gpu="cpu", gpus="2", global_batch_size="", alternatives_tab="Another machine")
    assert not app.table
    app.button(key="alternatives_sweep").click().run()
    assert not app.exception
    (table,) = [table.value for table in app.table]
    assert len(table) == len(CHANGES)
    assert set(table["if"]) == {f"{figure.replace('_', ' ')} × {factor:g}" for figure, factor in CHANGES}


def test_nodes_of_several_kinds_say_what_is_not_available() -> None:
    text = re.sub(r"num_nodes = \d+", "num_nodes = 1", EXAMPLE.read_text(encoding="utf-8"))
    app = shown(cluster=text, global_batch_size="64")
    assert "several kinds of node" in words(app)
    assert not app.get("plotly_chart")
    app = shown(cluster=text, global_batch_size="64", alternatives_tab="More or fewer GPUs")
    assert "planned whole" in words(app)
