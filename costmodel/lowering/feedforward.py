"""Dense feed-forward blocks and plain projections."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from costmodel.layouts import Column
from costmodel.lowering.region import cross_tensor_region
from costmodel.ops import Elementwise, Gemm, Lowered, Saved, Setting, Split
from costmodel.schema.model import MLPBlock, ProjectionBlock


def lower_mlp(block: MLPBlock, setting: Setting, split: Split) -> Lowered:
    """Up (and gate) product, activation, down product; the intermediate is split over tp.

    Recomputed as the module ``mlp``, its input stays.
    """
    reductions = setting.runtime.kernels.gated_reductions if block.gated else 1
    lowered = cross_tensor_region(setting, split, reductions=reductions)
    saved = lowered.saved
    lowered = replace(lowered.within("mlp"), saved=saved)
    inner = lower_intermediate("mlp", split.tokens, block.intermediate_size / split.tp, block.gated, setting)
    lowered.extend(inner.within("mlp"))
    return lowered


def lower_intermediate(name: str, tokens: Column, features: Column, gated: bool, setting: Setting) -> Lowered:
    """tokens x hidden -> features -> hidden, as one pair of products (three matrices when gated).

    Kept: the activation's inputs and the down product's input; unfused gated activations keep one more.
    Source: Korthikanti et al. 2022, section 4.1 (8sbh + 8sbh of 19sbh) for the ungated case.
    """
    hidden = np.full_like(tokens, setting.model.hidden_size)
    width = setting.activation_bytes
    inner = tokens * features * width
    inputs = 2.0 if gated else 1.0
    lowered = Lowered(
        ops=[
            Gemm(f"{name} up", tokens, inputs * features, hidden, gathers_input=True),
            Elementwise(f"{name} activation", (inputs + 1.0) * inner, (2.0 * inputs + 1.0) * inner),
            Gemm(f"{name} down", tokens, hidden, features, scatters_output=True),
        ],
        saved=[
            Saved(f"{name} activation input", inputs * inner, matmul_output=True, narrow="activation_inputs"),
            Saved(f"{name} down input", inner, narrow="product_inputs"),
        ],
        working_bytes=[(inputs + 1.0) * inner],
    )
    if gated and not setting.runtime.kernels.fused_activation:
        lowered.saved.append(Saved(f"{name} activation", inner))
        lowered.ops.append(Elementwise(f"{name} unfused activation", 2.0 * inner, 3.0 * inner))
    return lowered


def lower_projection(block: ProjectionBlock, setting: Setting, split: Split) -> Lowered:
    """A plain linear map on the resident tokens, replicated over tp."""
    tokens = split.resident_tokens
    shape = np.full_like(tokens, block.out_features), np.full_like(tokens, block.in_features)
    kept = tokens * block.in_features * setting.activation_bytes
    saved = Saved("projection input", kept, narrow="product_inputs")
    return Lowered(ops=[Gemm("projection", tokens, *shape)], saved=[saved])
