"""From ``model_type`` (or ``architectures``) to the family that reads the config."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from costmodel.huggingface import (
    bert,
    chatglm,
    deepseek,
    falcon,
    gemma,
    glm,
    gpt2,
    gpt_neox,
    gpt_oss,
    jamba,
    jet_nemotron,
    llama,
    llama4,
    llava,
    mamba,
    mixtral,
    mpt,
    nemotron,
    nemotron_h,
    olmo,
    opt,
    phi,
    qwen,
    qwen_hybrid,
    t5,
    vit,
)
from costmodel.huggingface.config import Config
from costmodel.schema.base import invalid_spec
from costmodel.schema.errors import InvalidSpec, UnknownName
from costmodel.schema.model import ModelSpec

Builder = Callable[[Config], ModelSpec]

_FAMILIES: dict[str, Builder] = {
    **bert.MODEL_TYPES,
    **chatglm.MODEL_TYPES,
    **deepseek.MODEL_TYPES,
    **falcon.MODEL_TYPES,
    **gemma.MODEL_TYPES,
    **glm.MODEL_TYPES,
    **gpt2.MODEL_TYPES,
    **gpt_neox.MODEL_TYPES,
    **gpt_oss.MODEL_TYPES,
    **jamba.MODEL_TYPES,
    **jet_nemotron.MODEL_TYPES,
    **llama.MODEL_TYPES,
    **llama4.MODEL_TYPES,
    **mamba.MODEL_TYPES,
    **mixtral.MODEL_TYPES,
    **mpt.MODEL_TYPES,
    **nemotron.MODEL_TYPES,
    **nemotron_h.MODEL_TYPES,
    **olmo.MODEL_TYPES,
    **opt.MODEL_TYPES,
    **phi.MODEL_TYPES,
    **qwen.MODEL_TYPES,
    **qwen_hybrid.MODEL_TYPES,
    **t5.MODEL_TYPES,
    **vit.MODEL_TYPES,
}


def known_model_types() -> list[str]:
    """Every ``model_type`` that can be read, sorted."""
    return sorted([*_FAMILIES, llava.MODEL_TYPE])


def model_from_config(config: Mapping[str, Any], name: str) -> ModelSpec:
    """Read a Hugging Face ``config.json``; of a multimodal one the language model (``text_config``) alone, but for
    families that train it behind frozen encoders.

    Raises InvalidSpec naming the field, its value and what would work; UnknownName for an unknown architecture.
    """
    fields = _language_model(config, name)
    model_type = _model_type(fields, name)
    try:
        model = _FAMILIES[model_type](Config({**fields, "model_type": model_type}, name))
    except ValidationError as error:
        raise invalid_spec(error, name) from None
    if not llava.has_tower(config):
        return model
    return llava.with_tower(model, model_from_config(config["vision_config"], f"{name} vision tower"))


def _language_model(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The fields of ``text_config`` where there is one, completed by the outer ones that it leaves out."""
    inner = config.get("text_config")
    if inner is None:
        if config.get("model_type") == llava.MODEL_TYPE:
            raise Config(config, name).missing("text_config")
        return dict(config)
    if not isinstance(inner, Mapping):
        raise InvalidSpec(f"{name}: text_config = {inner!r}: must be an object with the language model's fields")
    shared = ("model_type", "architectures", "tie_word_embeddings")
    return {**{key: config[key] for key in shared if key in config}, **inner}


def _model_type(fields: Mapping[str, Any], name: str) -> str:
    by_letters = {_letters(known): known for known in _FAMILIES}
    stated = fields.get("model_type")
    if isinstance(stated, str) and _letters(stated) in by_letters:
        return by_letters[_letters(stated)]
    classes = fields.get("architectures") or []
    for entry in classes if isinstance(classes, list) else []:
        family = _letters(re.sub(r"(LMHead)?(Model)?(For[A-Z]\w*)?$", "", str(entry)))
        if family in by_letters:
            return by_letters[family]
    if stated is None and not classes:
        raise InvalidSpec(f"{name}: the field model_type is missing", f"state one of {', '.join(sorted(_FAMILIES))}")
    raise UnknownName("architecture", str(stated or classes[0]), _FAMILIES, f"model_type of {name}")


def _letters(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())
