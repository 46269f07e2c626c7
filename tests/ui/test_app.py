"""The dashboard, page by page, in Streamlit's own harness: what is drawn, and what is said when it cannot be."""

from __future__ import annotations

import pytest
from opened import opened
from streamlit.testing.v1 import AppTest

from costmodel.schema.errors import SolverTimeout
from ui import answers


@pytest.fixture(scope="module")
def default() -> AppTest:
    return opened()


def test_the_opening_page_answers_without_a_click(default: AppTest) -> None:
    labels = [metric.label for metric in default.metric]
    assert labels[:3] == ["Step", "Tokens/s a GPU", "MFU"]
    assert "P(fits)" in labels
    assert len(default.get("plotly_chart")) >= 2
    assert len(default.get("download_button")) >= 2


def test_an_address_carries_the_question() -> None:
    app = opened(model="llama-3.1-8b", gpus="8")
    assert app.selectbox(key="model").value == "llama-3.1-8b"
    assert app.number_input(key="gpus").value == 8
    assert any("**llama-3.1-8b** on **8 × h100**" in caption.value for caption in app.caption)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ({"model": "lama-3.1-8b"}, "unknown model 'lama-3.1-8b'"),
        ({"gpu": "h1000"}, "unknown gpu 'h1000'"),
        ({"gpus": "63"}, "does not fill nodes of 8"),
        ({"fix": "tp=0"}, "tp=0"),
        ({"config": "{"}, "the pasted config.json is not JSON"),
        ({"config": '{"model_type": "nope"}'}, "unknown architecture 'nope'"),
        ({"cluster": "name ="}, "the pasted cluster.toml is not whole TOML"),
        ({"cluster": "[[groups]]\nnum_nodes = 2"}, "the pasted cluster.toml"),
        ({"precision": "bf17"}, "unknown precision 'bf17'"),
        ({"runtime": "megatrom"}, "unknown runtime 'megatrom'"),
        ({"schedules": "dualpipe", "runtime": "megatron"}, "schedule 'dualpipe': the runtime"),
        ({"tokens": "abc"}, "tokens abc"),
        ({"price": "-1"}, "price -1"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_bad_value_is_explained_beside_its_field_and_on_the_page(address: dict[str, str], said: str) -> None:
    app = opened(**address)
    beside = [error.value for error in app.sidebar.error]
    assert [said in error for error in beside] == [True]
    assert beside[0] in [error.value for error in app.main.error]


@pytest.mark.parametrize("typed", ["many", "0", "-inf"])
def test_a_number_in_the_address_that_its_field_does_not_take_is_named(typed: str) -> None:
    app = opened(gpus=typed)
    assert [warning.value for warning in app.sidebar.warning] == [
        f"gpus = {typed!r} in the address is no number from 1 to 1,000,000: the default stands."
    ]
    assert app.metric
    app.number_input(key="gpus").set_value(8).run()
    assert not app.sidebar.warning


def test_constraints_are_folded_away_until_one_is_asked_for(default: AppTest) -> None:
    (folded,) = [one for one in default.expander if one.label == "Constraints"]
    assert not folded.proto.expanded
    asked = opened(model="tiny", gpu="cpu", gpus="2", fit_probability="0.9")
    assert [one.proto.expanded for one in asked.expander if one.label == "Constraints"] == [True]


def test_what_does_not_fit_says_why() -> None:
    app = opened(model="llama-3.1-70b", gpus="1")
    assert app.main.subheader[0].value == "No layout meets this"
    assert any(text.value.startswith("- ") for text in app.main.markdown)


def test_a_time_limit_is_no_bad_question(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object) -> None:
        raise SolverTimeout("the time limit of 1 s came before any layout was found that fits")

    monkeypatch.setattr(answers, "find_plan", stopped)
    app = opened(model="tiny", gpu="cpu", gpus="2", time_limit_s="1.5")
    assert app.main.subheader[0].value == "No answer within the time limit"
    assert app.sidebar.error[0].value == app.main.error[0].value
