"""``plan ui`` before its server starts: what is refused, each in one sentence."""

from __future__ import annotations

import importlib.util
import socket
from importlib.machinery import ModuleSpec

import pytest

from planner.cli.main import status_of


def test_a_port_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(["ui", "--port", "99999"]) == 2
    assert "--port 99999: must be from 1 to 65535" in capsys.readouterr().err


def test_a_port_that_is_taken_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("localhost", 0))
        other.listen()
        port = other.getsockname()[1]
        assert status_of(["ui", "--no-browser", "--port", str(port)]) == 2
    assert f"--port {port}: address already in use" in capsys.readouterr().err


def test_an_address_that_is_none_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(["ui", "--no-browser", "--address", "256.0.0.1"]) == 2
    assert "--address 256.0.0.1" in capsys.readouterr().err


def test_without_its_extra_the_way_to_get_it_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = importlib.util.find_spec

    def without_streamlit(name: str) -> ModuleSpec | None:
        return None if name == "streamlit" else found(name)

    monkeypatch.setattr(importlib.util, "find_spec", without_streamlit)
    assert status_of(["ui"]) == 2
    said = capsys.readouterr().err
    assert "plan ui needs streamlit, not installed here" in said
    assert "parlay[ui]" in said
