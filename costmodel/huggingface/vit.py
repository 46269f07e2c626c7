"""ViT: an encoder over image patches and a class token, with a linear classifier; CLIP's vision tower, with none."""

from __future__ import annotations

from costmodel.huggingface.assemble import assemble, attention, hidden_size, mlp, num_layers
from costmodel.huggingface.config import Config
from costmodel.schema.model import LayerKind, ModelSpec


def build(config: Config) -> ModelSpec:
    """A sequence is (image_size / patch_size)² patches and the class token.

    The patch convolution, the class token and the classifier (a row per entry of ``id2label``, or ``num_labels``
    rows) count as extras.
    """
    hidden = hidden_size(config)
    labels = len(config.section("id2label").fields) or config.integer("num_labels", default=2)
    bias = config.flag("qkv_bias", default=True)
    return _tower(config, patch_size=16, activation="gelu", qkv_bias=bias, extra_params=hidden + (hidden + 1) * labels)


def build_clip(config: Config) -> ModelSpec:
    """The patch convolution without bias, and a norm before the first layer."""
    return _tower(config, patch_size=32, activation="quick_gelu", embedding_norms=1)


def _tower(
    config: Config, patch_size: int, activation: str, extra_params: int = 0, embedding_norms: int = 0,
    qkv_bias: bool = True,
) -> ModelSpec:  # fmt: skip
    """What both share; ``patch_size``, ``activation``: the architecture's defaults."""
    hidden = hidden_size(config)
    image, patch = config.integer("image_size", default=224), config.integer("patch_size", default=patch_size)
    if image % patch:
        raise config.error("image_size", f"is not a multiple of patch_size {patch}")
    tokens = (image // patch) ** 2 + 1
    convolution = config.integer("num_channels", default=3) * patch * patch * hidden
    mixer = attention(config, causal=False, qkv_bias=qkv_bias, out_bias=True, rotary=False)
    layer = LayerKind(name="encoder", blocks=(mixer, mlp(config, gated=False, bias=True)), encoder=True)
    return assemble(config, [layer] * num_layers(config), tie=False, norm="layernorm", rope_theta=None, vocab_size=0,
                    has_head=False, learned_positions=tokens, max_position_embeddings=tokens,
                    embedding_norms=embedding_norms, extra_params=convolution + hidden + extra_params,
                    activation=config.text("hidden_act", default=activation))  # fmt: skip


MODEL_TYPES = {"vit": build, "clip_vision_model": build_clip}
