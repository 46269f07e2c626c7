"""Multi-head latent attention (DeepSeek-V2 and after)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from costmodel.lowering.attention import lower_core
from costmodel.lowering.region import cross_tensor_region
from costmodel.ops import Elementwise, Gemm, Lowered, Saved, Setting, Split
from costmodel.schema.model import MLABlock


def lower_mla(block: MLABlock, setting: Setting, split: Split) -> Lowered:
    """Down-projections (replicated over tp, on the sequence shard), norms on the latents, up-projections, attention.

    Where queries have a latent too, only latents enter the tensor-parallel region, not the hidden state.

    Training materialises full keys and values. Source: DeepSeek-V2 (2024), section 2.1 and appendix C.
    """
    hidden, width, tokens = setting.model.hidden_size, setting.activation_bytes, split.tokens
    resident = split.resident_tokens
    heads = block.num_heads / split.tp
    qk_dim = block.qk_nope_head_dim + block.qk_rope_head_dim
    kv_latent = block.kv_lora_rank + block.qk_rope_head_dim
    latent = kv_latent + (block.q_lora_rank or 0)
    lowered = cross_tensor_region(setting, split, latent if block.q_lora_rank else None)
    if block.q_lora_rank is None:
        lowered.ops.append(
            Gemm(
                "query",
                tokens,
                heads * qk_dim,
                np.full_like(tokens, hidden),
                modules=("mla_up_proj",),
                gathers_input=True,
            )
        )
        lowered.saved.append(Saved("normed latents", tokens * latent * width, narrow="product_inputs"))
    else:
        lowered.saved.append(
            Saved("down-projection input", resident * hidden * width, modules=("layernorm",), narrow="product_inputs")
        )
        lowered.ops.append(
            Gemm(
                "query up",
                tokens,
                heads * qk_dim,
                np.full_like(tokens, block.q_lora_rank),
                modules=("mla_up_proj",),
                gathers_input=True,
            )
        )
    lowered.ops.append(Gemm("latent down", resident, np.full_like(tokens, latent), np.full_like(tokens, hidden)))
    lowered.ops.append(
        Gemm(
            "key-value up",
            tokens,
            heads * (block.qk_nope_head_dim + block.v_head_dim),
            np.full_like(tokens, block.kv_lora_rank),
            modules=("mla_up_proj",),
            gathers_input=True,
        )
    )
    norms = resident * latent * width
    lowered.ops.append(Elementwise("latent norm", 2.0 * norms, 3.0 * norms))
    lowered.saved.append(Saved("latents", norms, matmul_output=True))
    assembled = tokens * heads * 2.0 * qk_dim * width
    lowered.ops.append(
        Elementwise("rotary and concatenation", 2.0 * assembled, 2.0 * assembled, modules=("mla_up_proj",))
    )
    core = lower_core(
        setting, split, heads * qk_dim, heads * qk_dim, heads * block.v_head_dim, heads, qk_dim, block.v_head_dim,
        block.causal, None,
    )  # fmt: skip
    core.saved[0] = replace(core.saved[0], modules=("mla_up_proj",))
    lowered.extend(core)
    values = heads * block.v_head_dim
    lowered.ops.append(Gemm("attention output", tokens, np.full_like(tokens, hidden), values, scatters_output=True))
    lowered.working_bytes.append(tokens * heads * (2.0 * qk_dim + 2.0 * block.v_head_dim) * width)
    return lowered
