"""LLaVA: a language model that reads image patches, projected from a frozen vision tower."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from costmodel.huggingface import vit
from costmodel.schema.model import FrozenPart, ModelSpec

MODEL_TYPE = "llava"


def has_tower(config: Mapping[str, Any]) -> bool:
    """Whether the config is LLaVA's, with a vision tower that can be read."""
    tower = config.get("vision_config")
    known = isinstance(tower, Mapping) and tower.get("model_type") in vit.MODEL_TYPES
    return known and config.get("model_type") == MODEL_TYPE


def with_tower(model: ModelSpec, tower: ModelSpec) -> ModelSpec:
    """``model`` behind ``tower``, an image for each sequence; the projector's two maps are extras that train.

    The whole tower runs, whichever layer's output is taken. Leaves out: the projector's time.
    Source: Liu et al. 2023, "Improved Baselines with Visual Instruction Tuning", section 3.
    """
    frozen = FrozenPart(model=tower.model_copy(update={"trains": "frozen"}), seq_len=tower.learned_positions)
    width = model.hidden_size
    projector = (tower.hidden_size + 1) * width + (width + 1) * width
    return model.model_copy(update={"extra_params": model.extra_params + projector, "frozen_parts": (frozen,)})
