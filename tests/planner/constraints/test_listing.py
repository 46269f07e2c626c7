"""The reference in docs/constraints.md is the tables' own, and its examples are read as they stand."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from planner.constraints import read_constraints
from planner.constraints.listing import list_allowed, list_forbidden, list_keys, markdown
from planner.constraints.techniques import ALIASES, FORBIDDABLE

PAGE = (Path(__file__).parents[3] / "docs" / "constraints.md").read_text(encoding="utf-8")


def test_the_page_holds_the_tables() -> None:
    """After a change of a table, put what ``markdown`` gives in the page."""
    for rows in (list_keys(), list_forbidden(), list_allowed()):
        assert markdown(rows) in PAGE


def test_the_pages_examples_are_constraints() -> None:
    toml = re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert toml is not None
    held = read_constraints(document=tomllib.loads(toml[1]), origin="the page")
    assert held.fixed["tp"] == 8
    assert held.limits["micro_batch_size"].among == (1, 2)
    options = dict(re.findall(r"--(fix|limit|forbid|free-memory) (\S+)", PAGE.partition("| option")[0]))
    typed = read_constraints(
        fix=[options["fix"]], limit=[options["limit"]], forbid=[options["forbid"]], free_memory=options["free-memory"]
    )
    assert typed.fixed["tp"] == 8
    assert typed.forbidden == {"vpp"}


def test_every_other_spelling_means_a_technique() -> None:
    for names in ALIASES.values():
        assert set(names) <= FORBIDDABLE.keys()
