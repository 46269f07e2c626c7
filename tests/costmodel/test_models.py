"""The model catalog: every entry reads, counts what was published, and is found under each of its names."""

from __future__ import annotations

import json
import math
import re
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from costmodel.catalog import models
from costmodel.catalog.models import load_entry, load_model, model_aliases, model_names, resolve_name
from costmodel.parameters import count_model
from costmodel.schema.errors import InvalidSpec, UnknownName

NAMES = model_names()
EXACT = [name for name in NAMES if load_entry(name).published_params and load_entry(name).published_digits is None]
ROUNDED = [name for name in NAMES if load_entry(name).published_digits is not None]
ACTIVE = [name for name in NAMES if load_entry(name).published_active_params is not None]


def half_of_last_digit(figure: int, digits: int) -> float:
    """Half a unit of the last of ``digits`` significant digits."""
    return 0.5 * 10.0 ** (math.floor(math.log10(figure)) - digits + 1)


def counted(name: str) -> int:
    """With frozen parts, which a checkpoint holds too."""
    model = load_model(name)
    params, frozen = count_model(model), sum(count_model(part.model).total for part in model.frozen_parts)
    return params.total + frozen + (params.mtp if load_entry(name).published_includes_mtp else 0)


@pytest.mark.parametrize("name", EXACT)
def test_total_is_the_checkpoints(name: str) -> None:
    assert counted(name) == load_entry(name).published_params


@pytest.mark.parametrize("name", ROUNDED)
def test_total_agrees_with_the_published_figure(name: str) -> None:
    """To the last printed digit, or by exactly the deviation that the entry admits and explains."""
    entry = load_entry(name)
    assert entry.published_params is not None
    assert entry.published_digits is not None
    error = counted(name) - entry.published_params
    agrees = abs(error) <= half_of_last_digit(entry.published_params, entry.published_digits)
    if entry.count_note is None:
        assert agrees, f"counted {counted(name):,}"
    else:
        assert not agrees, "the note explains a deviation that is not there"
        assert error / entry.published_params == pytest.approx(entry.count_deviation, abs=1e-4)


@pytest.mark.parametrize("name", ACTIVE)
def test_active_agrees_with_the_published_figure(name: str) -> None:
    entry = load_entry(name)
    assert entry.published_active_params is not None
    assert entry.published_active_digits is not None
    error = count_model(load_model(name)).active - entry.published_active_params
    agrees = abs(error) <= half_of_last_digit(entry.published_active_params, entry.published_active_digits)
    if entry.active_note is None:
        assert agrees, f"counted {count_model(load_model(name)).active:,}"
    else:
        assert not agrees, "the note explains a deviation that is not there"
        assert error / entry.published_active_params == pytest.approx(entry.active_deviation, abs=1e-4)


def test_most_of_the_catalog_is_checked_exactly() -> None:
    assert len(EXACT) > 100
    assert set(NAMES) - set(EXACT) - set(ROUNDED) <= {"tiny", "megatron-gpt-126m"}


@pytest.mark.parametrize("name", NAMES)
def test_entry_is_sourced_and_dated(name: str) -> None:
    entry = load_entry(name)
    assert entry.source
    date.fromisoformat(entry.date)
    assert entry.published_params is None or entry.published_from
    assert load_model(name).source == f"{entry.source}, {entry.date}"


@pytest.mark.parametrize("name", NAMES)
def test_parts_sum_to_the_total(name: str) -> None:
    model = load_model(name)
    params = count_model(model)
    assert params.total == params.embedding + params.head + params.layers + params.other
    assert params.matmul_active <= params.active <= params.total
    by_kind = dict(zip((kind.name for kind in model.kinds), params.by_kind, strict=True))
    layers = sum(by_kind[run.kind].total * run.count for run in model.runs)
    assert layers == params.layers + params.mtp
    assert (params.mtp > 0) == any(kind.mtp for kind in model.kinds)


def test_every_name_and_alias_finds_its_model() -> None:
    for name in NAMES:
        for spelling in (name, name.upper(), name.replace("-", "_"), name.replace("-", " ")):
            assert resolve_name(spelling) == name
    for alias, name in model_aliases().items():
        assert resolve_name(alias) == name
        assert resolve_name(alias.lower()) == name


def test_a_direct_hit_reads_one_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting fast matters more than a warm cache."""
    read: list[str] = []

    def once(name: str) -> tuple[dict[str, Any], models.ModelEntry]:
        read.append(name)
        return original(name)

    original = models._read
    monkeypatch.setattr(models, "_read", once)
    models._shipped.cache_clear()
    load_model("Mixtral 8x22B")
    assert read == ["mixtral-8x22b"]


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("llama-70b", "llama-3.1-70b"),
        ("llama3-70b", "llama-3.1-70b"),
        ("LLAMA3_70B", "llama-3.1-70b"),
        ("llama-8b", "llama-3.1-8b"),
        ("llama-405b", "llama-3.1-405b"),
        ("Llama 3.1 8B", "llama-3.1-8b"),
        ("meta-llama/Llama-3.1-70B", "llama-3.1-70b"),
        ("mixtral", "mixtral-8x7b"),
        ("gpt3", "gpt3-175b"),
        ("GPT-3 175B", "gpt3-175b"),
        ("DeepSeekV3", "deepseek-v3"),
        ("turing-530B", "mt-nlg-530b"),
        ("megatron-1T", "megatron-gpt-1t"),
        ("opt-1.3b", "opt-1.3b"),
        ("OPT_1_3B", "opt-1.3b"),
        ("opt-13b", "opt-13b"),
        ("opt13b", "opt-13b"),
    ],
)
def test_friendly_spellings(spelling: str, name: str) -> None:
    assert load_model(spelling).name == name


def test_an_unknown_name_suggests_near_ones() -> None:
    with pytest.raises(UnknownName) as caught:
        load_model("lama-70b")
    assert "llama-70b" in (caught.value.hint or "")


@pytest.mark.parametrize("name", ["megatron-gpt-22b", "megatron-gpt-1t", "mt-nlg-530b", "gpt3-175b"])
def test_the_megatron_papers_models_train_with_dropout(name: str) -> None:
    model = load_model(name)
    assert (model.hidden_dropout, model.attention_dropout) == (0.1, 0.1)
    assert (model.vocab_size, model.learned_positions, model.norm) == (51200, 2048, "layernorm")


def test_tiny_is_tiny() -> None:
    model = load_model("tiny")
    assert (model.vocab_size, model.num_layers, model.max_position_embeddings) == (256, 8, 256)
    assert count_model(model).total < 2_000_000


def test_a_config_of_ones_own(tmp_path: Path) -> None:
    config = {
        "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 128, "vocab_size": 100,
    }  # fmt: skip
    folder = tmp_path / "my-model"
    folder.mkdir()
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    by_file, by_folder = load_model(str(path)), load_model(str(folder))
    assert by_file == by_folder
    assert by_file.name == "my-model"
    embeddings, attention, gated, norms = 2 * 100 * 64, 4 * 64 * 64, 3 * 64 * 128, 2 * 64
    assert count_model(by_file).total == embeddings + 2 * (attention + gated + norms) + 64


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "not JSON"),
        ("[]", "must be a JSON object"),
        ("{}", "model_type is missing"),
        ('{"model_type": "llama"}', "num_hidden_layers"),
        ('{"model_type": "no-such-thing"}', "unknown architecture 'no-such-thing'"),
    ],
)
def test_a_config_that_cannot_be_read(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(InvalidSpec, match=re.escape(complaint)):
        load_model(str(path))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match="no such file"):
        load_model(str(tmp_path / "config.json"))
