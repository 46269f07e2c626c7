"""Constraints as words and as a file: what they mean, and that every refusal names entry, value and what would work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from costmodel.catalog.toml_file import read_toml
from costmodel.schema.errors import InvalidSpec, UnknownName
from planner.constraints import KEYS, Constraints, LayerPin, Limit, read_constraints, shown

FILE = """
forbid = ["full-recompute", "zb-h1", "vpp=3"]
allow = ["int8-optimizer"]
schedules = ["1f1b", "auto"]
free_memory = "4 GiB"

[fix]
tp = 8
sequence-parallel = true
order = "dp-outermost"
layers_per_stage = [19, 20, 20, 21]

[fix.recompute]
"0-3" = "selective"
7 = "none"

[limit]
pp = { min = 2 }
dp_shard = "..16"
micro_batch_size = [1, 2]
"""


def from_file(text: str, tmp_path: Path) -> Constraints:
    path = tmp_path / "limits.toml"
    path.write_text(text)
    return read_constraints(document=read_toml(path), origin="limits.toml")


def test_a_file_says_what_options_say(tmp_path: Path) -> None:
    words = read_constraints(
        fix=[
            "tp=8,sequence_parallel=true,order=dp-outermost,layers_per_stage=19/20/20/21",
            "recompute.0-3=selective,recompute.7=none",
        ],
        limit=["pp=2..,dp-shard=..16", "micro_batch_size=1/2"],
        forbid=["full-recompute,zb-h1", "vpp=3"],
        allow=["int8_optimizer"],
        schedules=["1f1b,auto"],
        free_memory="4GiB",
    )
    assert from_file(FILE, tmp_path) == words
    assert words.fixed["order"][-1] == "dp_replicate"
    assert words.pins == (LayerPin("recompute", 0, 3, "selective"), LayerPin("recompute", 7, 7, "none"))
    assert words.forbidden == {"full", "zb-h1"}
    assert words.limits["vpp"] == Limit(never=(3,))
    assert (words.schedules, words.synthesize) == (("1f1b",), True)
    assert words.free_bytes == 4 * 2**30


def test_file_and_options_add_up(tmp_path: Path) -> None:
    path = tmp_path / "limits.toml"
    path.write_text("[fix]\ntp = 8\n[limit]\npp = { max = 8 }")
    asked = read_constraints(fix=["pp=4"], limit=["pp=2.."], document=read_toml(path), origin="limits.toml")
    assert asked.fixed == {"pp": 4, "tp": 8}
    assert asked.limits["pp"] == Limit(2, 8)


@pytest.mark.parametrize("name", KEYS)
def test_every_value_reads_back_as_it_is_shown(name: str) -> None:
    samples: dict[str, Any] = {
        "schedule": "zb-h1", "order": "dp-outermost", "layers_per_stage": [3, 4], "recompute": "full",
        "sequence_parallel": True, "vocab_parallel": False, "frozen_fill": True, "optimizer_format": "low_rank",
        "zero_stage": 2, "optimizer_offload": 0.25, "activation_offload": 1,
    }  # fmt: skip
    asked = read_constraints(document={"fix": {name: samples.get(name, 4)}}, origin="a file")
    assert read_constraints(fix=[f"{name}={shown(asked.fixed[name])}"]).fixed == asked.fixed


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[fixed]\ntp = 2", ("key in limits.toml 'fixed'", "did you mean fix")),
        ("[fix]\ntq = 2", ("'tq'", "limits.toml: fix.tq = 2", "tp")),
        ("[fix]\ntp = 0", ("limits.toml: fix.tp = 0", "whole number from 1")),
        ("[fix]\ntp = 2.5", ("fix.tp = 2.5", "whole number from 1")),
        ("[fix]\ntp = true", ("fix.tp = True", "whole number from 1")),
        ('[fix]\nsequence_parallel = "maybe"', ("maybe", "true, false")),
        ("[fix]\nzero_stage = 4", ("fix.zero_stage = 4", "0, 1, 2, 3")),
        ("[fix]\nlayers_per_stage = [4, 0, 4]", ("layers_per_stage", "9/8/8/7")),
        ('[fix]\norder = ["pp", "tp"]', ("order", "pp-outermost or dp-outermost")),
        ("[fix]\noptimizer_offload = 1.5", ("optimizer_offload", "from 0 to 1")),
        ('[fix.recompute]\n"3-1" = "full"', ("'3-1' names no layers", "recompute.0-3")),
        ('[fix.tp]\n"0-3" = 2', ("tp is the same for all layers", "recompute")),
        ('[fix.recompute]\n"0-3" = "full"\n"2-5" = "none"', ("recompute.0-3 is fixed as full already",)),
        ("[limit]\ntp = { min = 8, max = 4 }", ("no value of tp is left",)),
        ("[limit]\ntp = { least = 8 }", ("'least'", "max, min")),
        ("[limit]\ntp = {}", ("neither a least nor a most",)),
        ("[limit]\nsequence_parallel = { min = true }", ("no order",)),
        ("[limit]\ntp = []", ("no value of tp is left",)),
        ("fix = 3", ("fix must be a table", "[fix]")),
        ('forbid = "pp"', ("forbid must be a list", '["…"]')),
        ('forbid = ["sleep"]', ("'sleep'",)),
        ('forbid = ["pp=none"]', ("forbid 'pp=none'", "whole number")),
        ('allow = ["int4_optimizer"]', ("'int4_optimizer'", "int8_optimizer")),
        ('free_memory = "much"', ("limits.toml: free_memory = much", "4GiB")),
        ("free_memory = true", ("free_memory", "4GiB")),
    ],
)
def test_files_that_are_refused(text: str, words: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec) as refused:
        from_file(text, tmp_path)
    said = f"{refused.value.message} | {refused.value.hint}"
    for word in words:
        assert word in said


@pytest.mark.parametrize(
    ("spelling", "names"),
    [
        ("full-recompute", {"full"}),
        ("full recomputation", {"full"}),
        ("Recomputation", {"recompute"}),
        ("pipeline-parallelism", {"pp"}),
        ("context_parallel", {"cp_ring", "cp_ulysses"}),
        ("sequence-parallelism", {"sequence_parallel"}),
        ("ZeRO-3", {"zero3"}),
        ("zero", {"zero1", "zero2", "zero3"}),
        ("offload", {"optimizer_offload", "activation_offload"}),
        ("Interleaved1F1B", {"interleaved-1f1b"}),
    ],
)
def test_natural_spellings_of_what_is_forbidden(spelling: str, names: set[str]) -> None:
    assert read_constraints(forbid=[spelling]).forbidden == names


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"limit": ["tp"]}, "'tp' is not KEY=VALUE"),
        ({"limit": ["tp=2..x"]}, "--limit tp=2..x: tp must be a whole number from 1"),
        ({"limit": ["tp=.."]}, "--limit tp=.. says neither"),
        ({"limit": ["recompute=..full"]}, "values of recompute have no order"),
        ({"limit": ["tp=..4"], "forbid": ["tp=8"]}, None),
        ({"limit": ["tp=4"], "forbid": ["tp=4"]}, "--forbid tp=4: with the other limits, no value of tp is left"),
        ({"free_memory": "4 bananas"}, "--free-memory 4 bananas"),
        ({"free_memory": "1.2.3GB"}, "--free-memory 1.2.3GB"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], words: str | None) -> None:
    if words is None:
        assert read_constraints(**options).limits["tp"] == Limit(most=4, never=(8,))
        return
    with pytest.raises(InvalidSpec, match=words.replace(".", r"\.")):
        read_constraints(**options)


def test_a_key_that_is_none_is_refused_with_its_nearest() -> None:
    with pytest.raises(UnknownName, match="key of --limit 'dp_shards'"):
        read_constraints(limit=["dp_shards=2"])
