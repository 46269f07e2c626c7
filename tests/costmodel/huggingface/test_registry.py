"""Which family reads a config, and what every family does with a config that is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import resources
from typing import Any

import pytest

from costmodel.huggingface import known_model_types, model_from_config
from costmodel.schema.errors import InvalidSpec, UnknownName

WRONG = (-1, 0, 1.5, True, "x", [], ["x"], [[1]], {})


def catalog_configs() -> Iterator[tuple[str, dict[str, Any]]]:
    folder = resources.files("costmodel.catalog") / "data" / "models"
    for entry in sorted(folder.iterdir(), key=lambda path: path.name):
        config = json.loads(entry.read_text(encoding="utf-8"))
        config.pop("parlay")
        yield entry.name.removesuffix(".json"), config


CONFIGS = dict(catalog_configs())
BY_TYPE = {config["model_type"]: config for config in CONFIGS.values()}
"""One catalog config of each model_type."""

SAME_AS = {
    "RefinedWeb": "falcon", "RefinedWebModel": "falcon", "bailing_moe": "bailing_moe_v2", "gemma3": "gemma3_text",
    "granite": "llama", "llama4": "llama4_text", "ministral": "mistral", "mistral3": "mistral", "mt5": "t5",
    "qwen3_5": "qwen3_5_text", "qwen3_5_moe": "qwen3_5_moe_text", "roberta": "bert", "yi": "llama",
}  # fmt: skip
"""Types without a catalog model, and the one whose fields they share."""

APART = {"clip_vision_model", "glm", "glm4"}
"""Types without a catalog model that are tested with their family."""

LLAMA = {
    "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 128, "vocab_size": 100,
}  # fmt: skip


def complaint(config: dict[str, Any]) -> InvalidSpec | None:
    """The error that reading the config ends in; any other exception passes through and fails the test."""
    try:
        model_from_config(config, "m")
    except InvalidSpec as error:
        return error
    return None


def test_every_family_is_in_the_catalog_or_tested_apart() -> None:
    assert set(known_model_types()) - set(BY_TYPE) == APART | set(SAME_AS)


@pytest.mark.parametrize(("model_type", "known"), SAME_AS.items())
def test_types_that_share_their_fields(model_type: str, known: str) -> None:
    found = model_from_config({**BY_TYPE[known], "model_type": model_type}, "m")
    expected = model_from_config(BY_TYPE[known], "m")
    assert (found.kinds, found.runs) == (expected.kinds, expected.runs)


@pytest.mark.parametrize("model_type", BY_TYPE)
def test_a_missing_field_is_named_or_has_a_default(model_type: str) -> None:
    for field in BY_TYPE[model_type]:
        error = complaint({key: value for key, value in BY_TYPE[model_type].items() if key != field})
        assert error is None or field in f"{error.message} {error.hint}"


@pytest.mark.parametrize("model_type", BY_TYPE)
def test_a_wrong_value_is_refused_in_a_sentence_or_not_needed(model_type: str) -> None:
    """Sizes, lists and flags never end in a traceback; those that a count rests on are refused."""
    for field in BY_TYPE[model_type]:
        for value in WRONG:
            error = complaint({**BY_TYPE[model_type], field: value})
            assert error is None or "\n" not in error.message
    sizes = {"vocab_size": -1, "image_size": -1, "padded_vocab_size": -1}
    inner = {name: {**field, **sizes} for name, field in BY_TYPE[model_type].items() if isinstance(field, dict)}
    assert complaint({**BY_TYPE[model_type], **sizes, **inner}) is not None


@pytest.mark.parametrize("model_type", BY_TYPE)
def test_the_class_name_does_for_a_missing_model_type(model_type: str) -> None:
    """Custom code on the Hub often has one of the two only."""
    config = BY_TYPE[model_type]
    found = model_from_config({key: value for key, value in config.items() if key != "model_type"}, "m")
    expected = model_from_config(config, "m")
    assert (found.kinds, found.runs) == (expected.kinds, expected.runs)


@pytest.mark.parametrize(
    ("model_type", "name"), [("gpt-neox", "gpt_neox"), ("GPT2", "gpt2"), ("xlm_roberta", "xlm-roberta")]
)
def test_spelling_of_the_model_type_does_not_matter(model_type: str, name: str) -> None:
    assert name in known_model_types()
    config = BY_TYPE[name]
    assert model_from_config({**config, "model_type": model_type}, "m") == model_from_config(config, "m")


def test_the_language_model_of_a_multimodal_config() -> None:
    outer = {
        "model_type": "llava",
        "architectures": ["LlavaForConditionalGeneration"],
        "tie_word_embeddings": True,
        "vision_config": {"hidden_size": 1024},
        "text_config": LLAMA,
    }
    assert model_from_config(outer, "m") == model_from_config({**LLAMA, "tie_word_embeddings": True}, "m")


def test_the_outer_type_does_for_a_text_config_without_one() -> None:
    inner = {key: value for key, value in BY_TYPE["gemma3_text"].items() if key not in ("model_type", "architectures")}
    spec = model_from_config({"model_type": "gemma3", "text_config": inner}, "m")
    assert spec.kinds == model_from_config(BY_TYPE["gemma3_text"], "m").kinds


def test_an_unknown_architecture_suggests_near_ones() -> None:
    with pytest.raises(UnknownName, match="unknown architecture 'qwen4'") as caught:
        model_from_config({"model_type": "qwen4"}, "m")
    assert "qwen" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_size": 66}, ("hidden_size = 66", "4 attention heads", "head_dim")),
        ({"num_attention_heads": "four"}, ("num_attention_heads = 'four'", "whole number of at least 1")),
        ({"num_key_value_heads": 3}, ("num_key_value_heads = 3", "divide the 4")),
        ({"num_hidden_layers": 0}, ("num_hidden_layers = 0", "at least 1")),
        ({"vocab_size": None}, ("vocab_size is missing",)),
        ({"tie_word_embeddings": "yes"}, ("tie_word_embeddings = 'yes'", "true or false")),
        ({"rope_theta": "big"}, ("rope_theta = 'big'", "a number")),
        ({"hidden_act": 3}, ("hidden_act = 3", "a string")),
        ({"layer_types": "full_attention"}, ("layer_types", "a list")),
        ({"layer_types": ["full_attention"]}, ("layer_types", "must name 2 layers")),
        ({"attention_dropout": 1.5}, ("attention_dropout = 1.5", "less than 1")),
    ],
)
def test_the_error_names_field_value_and_rule(changes: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(InvalidSpec) as caught:
        model_from_config({**LLAMA, **changes}, "my-model")
    said = f"{caught.value.message} {caught.value.hint}"
    assert said.startswith("my-model: ")
    for word in words:
        assert word in said


def test_a_text_config_that_is_no_object() -> None:
    with pytest.raises(InvalidSpec, match="text_config = 3"):
        model_from_config({"model_type": "gemma3", "text_config": 3}, "m")
