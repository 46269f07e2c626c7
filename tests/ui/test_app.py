"""The dashboard, page by page, in Streamlit's own harness: what is drawn, and what is said when it cannot be."""

from __future__ import annotations

import pytest
from opened import opened
from streamlit.testing.v1 import AppTest


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
        ({"cluster": "name ="}, "the pasted cluster.toml is not whole TOML"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_bad_value_is_explained_beside_its_field_and_on_the_page(address: dict[str, str], said: str) -> None:
    app = opened(**address)
    beside = [error.value for error in app.sidebar.error]
    assert [said in error for error in beside] == [True]
    assert beside[0] in [error.value for error in app.main.error]


def test_a_number_in_the_address_that_is_none_is_named() -> None:
    app = opened(gpus="many")
    assert [warning.value for warning in app.sidebar.warning] == [
        "gpus = 'many' in the address is no number: the default stands."
    ]
    assert app.metric
